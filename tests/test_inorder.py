"""Jobs at once: order, limits, errors, reports, abandonment."""

from __future__ import annotations

import os
import threading

import pytest

from lmcompress.inorder import Cancelled, InOrder, Report
from tests.forks import status_of


@pytest.mark.parametrize("width", [1, 2, 5])
def test_results_come_in_order(width: int) -> None:
    """Each job waits for the one begun after it, as far as there is one that has begun."""
    jobs, begun = InOrder[int](width), [threading.Event() for _ in range(20)]

    def job(i: int, last: bool) -> int:
        begun[i].set()
        if not last:
            assert begun[i + 1].wait(60)
        return i

    results: list[int] = []
    for i in range(20):
        if jobs.full:
            results.append(jobs.take())
        jobs.add(lambda report, i=i: job(i, last=width == 1 or i % width == width - 1 or i == 19))  # type: ignore[misc]
        assert len(jobs) <= width
    while len(jobs):
        results.append(jobs.take())
    assert results == list(range(20))


@pytest.mark.parametrize("width", [1, 3])
def test_an_error_comes_in_its_turn(width: int) -> None:
    jobs = InOrder[int](width)

    def fail(report: Report) -> int:
        raise ZeroDivisionError

    results: list[object] = []
    for job in (lambda report: 1, fail, lambda report: 3):
        while jobs.full:
            results.append(taken(jobs))
        jobs.add(job)
    while len(jobs):
        results.append(taken(jobs))
    assert results == [1, ZeroDivisionError, 3]


def taken(jobs: InOrder[int]) -> object:
    try:
        return jobs.take()
    except ZeroDivisionError as error:
        with pytest.raises(ZeroDivisionError):
            jobs.take()  # again and again, until it is forgotten
        jobs._jobs.popleft()
        return type(error)


def test_an_interrupted_job_is_done_again() -> None:
    jobs, calls = InOrder[int](1), list[int]()

    def job(report: Report) -> int:
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return 7

    jobs.add(job)
    with pytest.raises(KeyboardInterrupt):
        jobs.take()
    assert jobs.take() == 7 and not len(jobs)


def test_without_threads_the_taker_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    jobs = InOrder[int](2)
    jobs.add(lambda report: 1)
    jobs.add(lambda report: 2)
    assert [jobs.take(), jobs.take()] == [1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_does_again_what_its_parents_threads_were_doing() -> None:
    jobs, go = InOrder[int](2), threading.Event()

    def job(report: Report) -> int:
        assert os.getpid() != parent or go.wait(60)
        return 7

    parent = os.getpid()
    jobs.add(job)
    jobs.add(job)
    child = os.fork()
    if child == 0:
        os._exit(0 if [jobs.take(), jobs.take()] == [7, 7] else 1)
    status = status_of(child)
    go.set()
    assert status == 0 and [jobs.take(), jobs.take()] == [7, 7]


def test_a_job_alone_runs_in_the_thread_that_takes() -> None:
    jobs = InOrder[int](1)
    jobs.add(lambda report: threading.get_ident())
    assert jobs.ready and jobs.take() == threading.get_ident() and not jobs.ready


@pytest.mark.parametrize("width", [1, 2])
def test_progress_is_the_sum_of_reports_told_in_the_taking_thread(width: int) -> None:
    jobs, told, seen = InOrder[int](width), list[int](), threading.Event()

    def job(report: Report) -> int:
        report(5)
        assert width == 1 or seen.wait(60)
        return 0

    def progress(done: int) -> None:
        told.append(done)
        assert threading.current_thread() is threading.main_thread()
        if done == 5 * width:
            seen.set()

    for _ in range(width):
        jobs.add(job)
    while len(jobs):
        jobs.take(progress)
    assert 5 * width in told


def test_a_job_that_nobody_waits_for_ends() -> None:
    jobs, ended, running = InOrder[int](2), threading.Event(), threading.Event()

    def job(report: Report) -> int:
        try:
            while True:
                report(1)
                running.set()
        except Cancelled:
            ended.set()
            raise

    jobs.add(job)
    assert running.wait(60)
    del jobs
    assert ended.wait(60)

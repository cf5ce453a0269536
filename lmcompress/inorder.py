"""Several jobs at once, their results in the order in which they were given.

Knows: threads, turns. Does not know: what the jobs do.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar, cast

T = TypeVar("T")
Report = Callable[[int], None]  # told now and then how much is done
Job = Callable[[Report], T]

PATIENCE = 0.1  # seconds between two reports of progress


class Cancelled(BaseException):
    """In a job that reports when nobody waits for it any more."""


class InOrder(Generic[T]):
    """At most `width` jobs at once, each in a thread of its own; where that is one, in the thread that takes its result.
    What is done twice must give the same twice: a job whose thread is lost, in a forked child or when the interpreter
    ends, is done again by who takes its result."""

    def __init__(self, width: int) -> None:
        self.width = width
        self._jobs: deque[_Running[T]] = deque()

    def __len__(self) -> int:
        return len(self._jobs)

    def __del__(self) -> None:
        self.cancel()

    @property
    def full(self) -> bool:
        return len(self._jobs) >= self.width

    @property
    def ready(self) -> bool:
        """Whether there is a job, and nobody to wait for."""
        return bool(self._jobs) and (self._jobs[0].alone or self._jobs[0].done.is_set())

    @property
    def reported(self) -> int:
        """What all jobs that wait to be taken have reported."""
        return sum(job.reported for job in self._jobs)

    def add(self, job: Job[T], alone: bool = False) -> None:
        """Starts a job; it is told whom to report to. To be called while not full. `alone`: as if the width were 1."""
        running = _Running(job, alone or self.width == 1 or sys.is_finalizing())  # then threads do not even begin
        if not running.alone:
            try:
                threading.Thread(target=running.run, daemon=True).start()
            except RuntimeError:  # the system has no more of them
                running.alone = True
        self._jobs.append(running)

    def take(self, progress: Report | None = None) -> T:
        """The result of the job added first, or what it raised; then the job stays the first. Meanwhile `progress` is told,
        in this thread, what all jobs have reported."""
        first = self._jobs[0]
        if first.alone or first.lost:
            first.progress = progress
            result = first.job(first.report)
        else:
            while not first.done.wait(PATIENCE):
                if progress is not None:
                    progress(self.reported)
            if first.error is not None:
                raise first.error
            result = cast(T, first.result)
        self._jobs.popleft()
        return result

    def cancel(self) -> None:
        """Forgets all jobs; those that run end with their next report."""
        for job in self._jobs:
            job.cancelled = True
        self._jobs.clear()


class _Running(Generic[T]):
    def __init__(self, job: Job[T], alone: bool) -> None:
        self.job, self.alone = job, alone
        self.process = os.getpid()
        self.done = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.reported = 0
        self.cancelled = False
        self.progress: Report | None = None

    @property
    def lost(self) -> bool:
        """Whether its thread will never be done with it."""
        return not self.done.is_set() and (self.process != os.getpid() or sys.is_finalizing())

    def report(self, done: int) -> None:
        if self.cancelled:
            raise Cancelled
        self.reported = done
        if self.progress is not None:
            self.progress(done)

    def run(self) -> None:
        try:
            self.result = self.job(self.report)
        except BaseException as error:  # whatever it is, it is for who takes the result
            self.error = error
        self.done.set()

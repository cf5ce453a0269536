"""Several jobs at once, their results in the order in which they were given.

Knows: threads, turns. Does not know: what the jobs do.
"""

from __future__ import annotations

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
    Threads do not outlive what waits for them: a job ends with its next report after cancel()."""

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

    def add(self, job: Job[T], alone: bool = False) -> None:
        """Starts a job; it is told whom to report to. To be called while not full. `alone`: as if the width were 1."""
        running = _Running(job, alone or self.width == 1)
        if not running.alone:
            threading.Thread(target=running.run, daemon=True).start()
        self._jobs.append(running)

    def take(self, progress: Report | None = None) -> T:
        """The result of the job added first, or what it raised. Meanwhile `progress` is told, in this thread, what all
        jobs have reported."""
        first = self._jobs[0]
        if first.alone:
            first.progress = progress
            first.run()
        while not first.done.wait(PATIENCE):
            if progress is not None:
                progress(sum(job.reported for job in self._jobs))
        self._jobs.popleft()
        if first.error is not None:
            raise first.error
        return cast(T, first.result)

    def cancel(self) -> None:
        """Forgets all jobs."""
        for job in self._jobs:
            job.cancelled = True
        self._jobs.clear()


class _Running(Generic[T]):
    def __init__(self, job: Job[T], alone: bool) -> None:
        self.job, self.alone = job, alone
        self.done = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None
        self.reported = 0
        self.cancelled = False
        self.progress: Report | None = None

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

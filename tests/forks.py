"""Forked children that tests wait for, but not for ever."""

from __future__ import annotations

import os
import signal
import time

import pytest


def status_of(child: int) -> int:
    """Its exit status, as os.waitpid gives it; the test fails if it takes more than a minute."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child waits for threads that it does not have")

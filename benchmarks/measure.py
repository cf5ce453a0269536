"""One codec on one file, both directions, both ways (in process and as a command), each in a fresh process: one Row.

Knows: how work is handed to workers and what can go wrong with them. Does not know: which codecs and files there are.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.codecs import Codec
from benchmarks.corpora import Source
from benchmarks.results import Row
from benchmarks.worker import Answer, Job, cut

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Effort:
    """How long a measurement may take."""

    repeats: int = 3
    budget: float = 3.0  # seconds for all runs of one way and direction, if the first does not take more
    timeout: float = 900.0  # seconds in one direction after which a codec has failed


class Failed(Exception):
    """A codec that did not do what it should."""


def measure(codec: Codec, source: Source, study: str, effort: Effort, threads: int = 1, piece: int = 0) -> Row:
    """Never raises for what a codec does wrong: the row says it. A codec is not run as a command where it took longer than the
    effort's budget in process, nor on pieces."""
    start = time.perf_counter()
    if piece:
        parts = cut(source.path.read_bytes(), piece)
        size, chars, sha256 = sum(map(len, parts)), None, hashlib.sha256(b"".join(parts)).hexdigest()
    else:
        size, chars, sha256 = source.size, source.chars, source.sha256
    ways = [how for how, there in (("module", codec.has_module()), ("tool", codec.has_tool() and not piece)) if there]
    found: dict[str, object] = {}
    error, around = "", circumstances()
    try:
        found |= {"version": codec.version(), "model_bytes": codec.model_bytes}
        with tempfile.TemporaryDirectory() as scratch:
            for how in ways:
                archive = str(Path(scratch) / how)
                answers = {}
                for direction in ("encode", "decode"):
                    job = Job(
                        codec=codec.name, threads=threads, direction=direction, how=how, source=str(source.path.resolve()),
                        archive=archive, sha256=sha256, piece=piece, repeats=effort.repeats, budget=effort.budget,
                    )  # fmt: skip
                    answers[direction] = run(job, effort.timeout)
                for direction, answer in answers.items():
                    found[f"{how}_{direction}_s"] = statistics.median(answer.seconds)
                    found[f"{how}_{direction}_memory"] = answer.peak_bytes
                    found["runs"] = len(answer.seconds)
                found.setdefault("coded_bytes", answers["encode"].coded_bytes)
                if max(min(answer.seconds) for answer in answers.values()) > effort.budget:
                    break
    except Exception as failure:
        error = str(failure) or type(failure).__name__
    coded = found.get("coded_bytes")
    if isinstance(coded, int) and not error:
        found["bpb"] = round(8 * coded / size, 4) if size else None
        found["bpc"] = round(8 * coded / chars, 4) if chars else None
    return Row(
        **around, study=study, codec=codec.name, threads=threads, file=source.name, kind=source.kind, sha256=source.sha256,
        bytes=size, chars=chars, piece=piece, ok=not error, error=error, took=round(time.perf_counter() - start, 3),
        **({"version": "unknown", "model_bytes": 0} | found),  # type: ignore[arg-type]
    )  # fmt: skip


def circumstances() -> dict[str, Any]:
    """What every record begins with."""
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    return {"date": now, "commit": commit(), "machine": machine(), "load": load}


def run(job: Job, timeout: float) -> Answer:
    command = [sys.executable, "-m", "benchmarks.worker", json.dumps(asdict(job))]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout, cwd=ROOT)
    except subprocess.TimeoutExpired:
        raise Failed(f"{job.direction}: longer than {timeout:.0f} s") from None
    lines = done.stdout.splitlines()
    try:
        answer = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise Failed(f"{job.direction}: the process ended with status {done.returncode}") from None
    if "error" in answer:
        raise Failed(f"{job.direction}: {answer['error']}")
    return Answer(**answer)


@lru_cache
def commit() -> str:
    """The commit, with + when the package differs from it; empty outside a repository."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(
            [*git, "status", "--porcelain", "lmcompress"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


@lru_cache
def machine() -> str:
    """Processor, cores, memory, system, Python."""
    processor = platform.processor() or platform.machine()
    memory = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                processor = line.split(":", 1)[1].strip()
                break
        memory = f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (OSError, ValueError):
        pass
    system = f"{platform.system()} {platform.machine()}"
    return f"{processor}, {os.cpu_count()} cores{memory}, {system}, Python {platform.python_version()}"

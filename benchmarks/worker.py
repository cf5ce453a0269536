"""One direction of one codec on one file, in a process of its own: `python -m benchmarks.worker JOB`.

Knows: clocks, peak memory. Does not know: what is compared with what. The job and the answer are JSON; the answer is the last
line on stdout. Decoded bytes are compared by digest, so that the source's copy does not count as the decoder's memory.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from benchmarks import codecs

T = TypeVar("T")

MOST_BYTES, MOST_PIECES = 64 << 10, 32  # of a file that is coded in pieces


@dataclass(frozen=True)
class Job:
    codec: str
    threads: int
    direction: str  # "encode", "decode"
    how: str  # "module": in process; "tool": as a command
    source: str  # path of the file to encode
    archive: str  # where the coded file goes, or is; for a module pieces with their lengths before them
    sha256: str  # of the pieces of the source, to verify decoding
    piece: int  # bytes per piece, 0: the file is one piece
    repeats: int
    budget: float  # seconds that all runs may take together


@dataclass(frozen=True)
class Answer:
    seconds: list[float]
    coded_bytes: int
    peak_bytes: int


def cut(data: bytes, piece: int) -> list[bytes]:
    """Some pieces of `piece` bytes, evenly spread, as many as are within MOST_BYTES, MOST_PIECES and the data, or one from the
    middle; 0: all of it."""
    if piece == 0 or piece >= len(data):
        return [data]
    count, rest = max(1, min(MOST_BYTES // piece, MOST_PIECES, len(data) // piece)), len(data) - piece
    starts = (i * rest // (count - 1) for i in range(count)) if count > 1 else (rest // 2,)
    return [data[start : start + piece] for start in starts]


def timed(action: Callable[[], T], job: Job) -> tuple[list[float], T]:
    """Seconds of each run, and what the last one returned."""
    seconds: list[float] = []
    while True:
        start = time.perf_counter()
        result = action()
        seconds.append(time.perf_counter() - start)
        if len(seconds) == job.repeats or sum(seconds) + seconds[-1] > job.budget:
            return seconds, result


def peak_bytes(children: bool) -> int:
    """Peak resident memory of this process since its start, or of the largest of its children."""
    if not children:
        try:  # ru_maxrss would include the process that started this one
            status = Path("/proc/self/status").read_text()
            return 1024 * int(status.split("VmHWM:")[1].split()[0])
        except (OSError, IndexError):
            pass
    usage = resource.getrusage(resource.RUSAGE_CHILDREN if children else resource.RUSAGE_SELF)
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_module(job: Job) -> Answer:
    codec = codecs.find(job.codec)
    codec.threads = job.threads
    codec.prepare()
    archive = Path(job.archive)
    if job.direction == "encode":
        pieces = cut(Path(job.source).read_bytes(), job.piece)
        seconds, coded = timed(lambda: [codec.encode(piece) for piece in pieces], job)
        archive.write_bytes(b"".join(struct.pack("<Q", len(piece)) + piece for piece in coded))
        return Answer(seconds, sum(map(len, coded)), peak_bytes(children=False))
    data, coded, at = archive.read_bytes(), [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        coded.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    seconds, decoded = timed(lambda: [codec.decode(piece) for piece in coded], job)
    peak = peak_bytes(children=False)
    digest = hashlib.sha256()
    for piece in decoded:
        digest.update(piece)
    verify(digest.hexdigest(), job)
    return Answer(seconds, sum(map(len, coded)), peak)


def run_tool(job: Job) -> Answer:
    codec = codecs.find(job.codec)
    codec.threads = job.threads
    archive, target = Path(job.archive), Path(job.archive + ".decoded")
    encoding = job.direction == "encode"
    command = codec.pack(Path(job.source), archive) if encoding else codec.unpack(archive, target)
    # Python programs run from bytecode that the first run, or their installer, has written
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def coded_files() -> list[Path]:  # archivers append their suffix
        return [path for path in archive.parent.glob(archive.name + "*") if path != target]

    def run() -> None:
        for path in coded_files() if encoding else [target]:  # an archiver would add to one, leave the other as it is
            path.unlink(missing_ok=True)
        with ExitStack() as stack:
            stdin = stack.enter_context(command.stdin.open("rb")) if command.stdin else subprocess.DEVNULL
            stdout = stack.enter_context(command.stdout.open("wb")) if command.stdout else subprocess.DEVNULL
            done = subprocess.run(command.argv, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, env=environment)
        if done.returncode != 0:
            message = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"exit status {done.returncode}: {' '.join(message)}")

    seconds, _ = timed(run, job)
    peak = peak_bytes(children=True)
    if not encoding:
        digest = hashlib.sha256(target.read_bytes()).hexdigest()
        target.unlink()
        verify(digest, job)
    return Answer(seconds, sum(path.stat().st_size for path in coded_files()), peak)


def verify(digest: str, job: Job) -> None:
    if digest != job.sha256:
        raise RuntimeError("what was decoded is not what was encoded")


def main() -> int:
    job = Job(**json.loads(sys.argv[1]))
    try:
        answer = run_module(job) if job.how == "module" else run_tool(job)
    except Exception as error:  # whatever a codec does wrong is a result too
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return 1
    print(json.dumps(asdict(answer)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

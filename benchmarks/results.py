"""Records of measurements, kept as JSON lines, a folder for each kind; rows of whole files as CSV too.

Knows: files of records, which record is about the same thing as another. Does not know: how one came to be.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, TypeVar

RESULTS = Path(__file__).with_name("results")


def processor_of(machine: str) -> str:
    return machine.split(",")[0]


@dataclass(frozen=True)
class Record:
    """A measurement and its circumstances."""

    folder: ClassVar[str] = "."  # below that of all results

    date: str
    commit: str
    machine: str
    load: float | None  # processes that wanted to run, on average over the minute before

    @property
    def processor(self) -> str:
        return processor_of(self.machine)

    def key(self) -> tuple[Any, ...]:
        """What is measured; a later record with the same key replaces this one."""
        raise NotImplementedError


R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Row(Record):
    """One codec on one file. Times are medians, in seconds, for all of `bytes`; memory is the peak, in bytes. `module`
    columns: in a Python process, without its start; `tool` columns: the command, from its start to its end."""

    study: str  # "files", "small", "scaling"
    codec: str
    version: str
    threads: int
    file: str
    kind: str
    sha256: str
    bytes: int  # coded, of all pieces
    chars: int | None  # Unicode characters; None where it is not UTF-8 or in pieces
    piece: int  # bytes per piece, 0: in one piece
    model_bytes: int  # needed to decode, beside the program and the coded bytes
    ok: bool  # coded, and decoded to the same bytes, in every way that was run
    error: str = ""
    coded_bytes: int | None = None
    bpb: float | None = None  # coded bits per byte
    bpc: float | None = None  # coded bits per character
    module_encode_s: float | None = None
    module_decode_s: float | None = None
    tool_encode_s: float | None = None
    tool_decode_s: float | None = None
    module_encode_memory: int | None = None
    module_decode_memory: int | None = None
    tool_encode_memory: int | None = None
    tool_decode_memory: int | None = None
    runs: int = 0
    took: float | None = None  # seconds in all: every run and every start of a process

    def key(self) -> tuple[Any, ...]:
        return (self.processor, self.study, self.codec, self.threads, self.sha256, self.piece)

    def speed(self, direction: str) -> float | None:
        """Bytes per second of "encode" or "decode": in process where that is known, else of the command."""
        seconds = getattr(self, f"module_{direction}_s") or getattr(self, f"tool_{direction}_s")
        return self.bytes / seconds if seconds else None


def append(path: Path, *records: Record) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(record), ensure_ascii=False) + "\n" for record in records)


def read(path: Path, kind: type[R]) -> list[R]:
    """All of a file, older records about the same thing too; nothing where there is no file."""
    if not path.exists():
        return []
    return [kind(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def latest(records: Iterable[R]) -> list[R]:
    """Of all records the latest about each thing."""
    return list({record.key(): record for record in sorted(records, key=lambda record: record.date)}.values())


def read_all(kind: type[R], results: Path = RESULTS) -> list[R]:
    """The latest of all files of that kind."""
    return latest(record for path in sorted((results / kind.folder).glob("*.jsonl")) for record in read(path, kind))


def home(records: Iterable[Record]) -> str:
    """The processor on which most was measured; speeds on others are not beside these."""
    counts = Counter(record.processor for record in records)
    return max(counts, key=counts.__getitem__, default="")


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)

"""Rows of measurements, kept as JSON lines and as CSV.

Knows: files of rows, which row is about the same thing as another. Does not know: how a row came to be.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True)
class Row:
    """One codec on one file. Times are medians, in seconds, for all of `bytes`; memory is the peak, in bytes. `module`
    columns: in a Python process, without its start; `tool` columns: the command, from its start to its end."""

    date: str
    commit: str
    machine: str
    load: float | None  # processes that wanted to run, on average over the minute before
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
    ok: bool  # coded, and decoded to the same bytes, in every way there is
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

    def key(self) -> tuple[Any, ...]:
        """What is measured; a later row with the same key replaces this one."""
        return (self.study, self.codec, self.threads, self.sha256, self.piece)

    def speed(self, direction: str) -> float | None:
        """Bytes per second of "encode" or "decode": in process where that is known, else of the command."""
        seconds = getattr(self, f"module_{direction}_s") or getattr(self, f"tool_{direction}_s")
        return self.bytes / seconds if seconds else None


def append(path: Path, row: Row) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row), ensure_ascii=False) + "\n")


def read(path: Path) -> list[Row]:
    if not path.exists():
        return []
    return [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def read_all(folder: Path = RESULTS) -> list[Row]:
    """Of all files' rows the latest about each thing."""
    rows = sorted((row for path in sorted(folder.glob("*.jsonl")) for row in read(path)), key=lambda row: row.date)
    return list({row.key(): row for row in rows}.values())


def write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)

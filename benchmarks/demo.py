"""`make demo`: the samples there and back through the command, beside what gzip, xz, zstd and brotli make of them.

Knows: where the samples are. Does not know: how anything is compressed.
"""

from __future__ import annotations

import filecmp
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import codecs
from benchmarks.corpora import CORPORA

RIVALS = ("gzip-9", "zstd-22", "brotli-11", "xz-9e")


def there_and_back(source: Path, folder: Path) -> tuple[int, float, float]:
    """(bytes of the archive, seconds to make it, seconds to read it), by the command. Exits if it comes back changed."""
    archive, copy = folder / f"{source.name}.lmc", folder / source.name
    command = [sys.executable, "-m", "lmcompress", "--quiet"]
    times = [time.perf_counter()]
    for arguments in (["-o", archive, source], ["-d", "-o", copy, archive]):
        subprocess.run([*command, *map(str, arguments)], check=True)
        times.append(time.perf_counter())
    if not filecmp.cmp(source, copy, shallow=False):
        sys.exit(f"{source.name} did not come back as it was")
    return archive.stat().st_size, times[1] - times[0], times[2] - times[1]


def main() -> None:
    """Prints the table; fails if a sample does not come back."""
    table = Table("sample", "bytes", *RIVALS, "lmcompress", "bits/byte", "KB/s", "KB/s back")
    for column in table.columns[1:]:
        column.justify = "right"
    with tempfile.TemporaryDirectory() as folder:
        for source in sorted(p for p in (CORPORA / "samples").iterdir() if not p.name.startswith("LICENSE")):
            data = source.read_bytes()
            size, there, back = there_and_back(source, Path(folder))
            rivals = [str(len(codecs.find(name).encode(data))) for name in RIVALS]
            speeds = [f"{len(data) / seconds / 1e3:.0f}" for seconds in (there, back)]
            table.add_row(source.name, str(len(data)), *rivals, str(size), f"{8 * size / len(data):.3f}", *speeds)
    Console(width=120).print(table)
    print("Every sample was compressed, decompressed and compared. KB/s: the whole command, start-up included.")


if __name__ == "__main__":
    main()

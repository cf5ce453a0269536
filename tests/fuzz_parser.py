"""Coverage-guided fuzzing of everything that reads an archive's frame: `python -m tests.fuzz_parser -runs=100000`; its options
are libFuzzer's. Needs atheris.

Every checksum is 0 here, so that what the fuzzer changes is not refused before it is read. Blocks are not decoded.
"""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lmcompress"]):
    from lmcompress import LMCompressError, bits, container
    from lmcompress.bits import Reader
    from lmcompress.container import Footer, Header, MemberParser, Skippable, read_members, scan
    from lmcompress.file import get_archive_info
from tests.test_container import member


def parse(data: bytes, step: int) -> list[object]:
    """What the parser gives when it is fed `step` bytes at a time, and the error that it ends with."""
    parser, items = MemberParser(1 << 20), list[object]()
    try:
        for start in range(0, len(data), step):
            parser.feed(data[start : start + step])
            while (item := parser.next()) is not None:
                items.append(item)
                if isinstance(item, Skippable) and item.kind == container.METADATA:
                    item.metadata()
    except LMCompressError as error:
        items.append(type(error))
    return items


def by_index(file: io.BytesIO) -> None:
    for found in read_members(file, mend=True):
        for i in range(min(9, len(found.raw_sizes))):
            found.read(file, i)


def one(data: bytes) -> None:
    """Raises whatever but LMCompressError a reader raises, and AssertionError when pieces of another size give something
    else."""
    assert parse(data, max(1, len(data))) == parse(data, 1) == parse(data, 13)
    file = io.BytesIO(data)
    for read in (get_archive_info, by_index, lambda file: list(scan(file))):
        try:
            read(file)
        except LMCompressError:
            pass
    for parser in (Footer.parse, lambda data: Header.parse(Reader(data))):
        try:
            parser(data)
        except LMCompressError:
            pass


def main() -> None:
    bits.crc32 = container.crc32 = lambda data, start=0: 0
    with tempfile.TemporaryDirectory() as folder:
        for n in (0, 1, 3):
            Path(folder, str(n)).write_bytes(member(blocks=n))
            one(member(blocks=n))
        atheris.Setup([*sys.argv, folder], one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""Damages archives at random: `python -m tests.fuzz --n 100000`. Every interface must give the right content or an
LMCompressError, in bounded time and memory; anything else is shown with the seed that makes it again.

Damage: bits, bytes, cuts, splices, swaps of places, and fields changed under a CRC that is made right again, so that the
checks behind the CRCs are met too. The lm blocks are the real codec's with the model of tests/golden, or tests.fakes'.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import random
import resource
import signal
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import lmcompress
from lmcompress import LMCompressError, LMCompressor, LMDecompressor, LMFile
from lmcompress.bits import Reader, Writer, crc32
from lmcompress.container import MAX_BLOCK_LOG, Block, Header, parse_record_header, scan
from tests import fakes

MEMORY = 64 << 20  # bytes that decoding a block may take
ADDRESS_SPACE = 4 << 30  # bytes; a wild allocation fails
SECONDS = 30  # for one archive
TOY = str(Path(__file__).parent / "golden" / "toy.lmm")


@dataclass(frozen=True)
class Case:
    """An archive, and the contents of its members."""

    name: str
    archive: bytes
    contents: tuple[bytes, ...]
    model: str | None = None

    def allows(self, content: bytes) -> bool:
        """True for the content, and for that of some members in their order: a cut at a member's end is not damage that
        anyone could see."""
        n = len(self.contents)
        return any(
            content == b"".join(c)
            for k in range(n, 0, -1)
            for c in itertools.product(self.contents, repeat=k)  # a splice may also move or repeat a whole member
        )


def cases(model: str | None = None) -> list[Case]:
    """Small archives of every kind; `model` None for the fake codec."""
    text, noise, same = fakes.text(200), fakes.noise(200), b"ab" * 300
    pieces = [fakes.text(1024, 1), fakes.noise(1024, 2), fakes.text(100, 3)]

    def made(name: str, *contents: bytes, **options: int | bool | dict[str, str]) -> Case:
        compressor = LMCompressor(**{"level": 3, "model": model, "threads": 1, **options})  # type: ignore[arg-type]
        coded = b"".join(compressor.compress(c, LMCompressor.FLUSH_FRAME) for c in contents)
        return Case(name, coded, contents, model)

    return [
        made("empty", b""),
        made("stored", noise),
        made("zstd", same),
        made("lm", text),
        made("metadata", text, metadata={"name": "a.txt", "by": "me"}),
        made("no digest", text, check=False),
        made("blocks", b"".join(pieces), block_size=1024),
        made(
            "repeats", b"".join([pieces[0], fakes.text(524, 9), pieces[0][:900], pieces[1], pieces[0]]), block_size=1024
        ),
        made("members", text, b"", same),
        made("without network", fakes.text(400), level=1),
        made("lanes", fakes.text(2100, 4)),
        made(
            "mixed",
            fakes.text(900) + fakes.noise(4300, 6) + base64.encodebytes(fakes.noise(1200, 7)) + fakes.text(300, 8),
        ),
        made("form", fakes.text(400, 5).upper().replace(b" ", b" \r\n").decode().encode("utf-16-le")),
    ]


def flip(data: bytearray, rng: random.Random) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def replace(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    size = rng.choice([1, 1, 2, 4, 8, 30])
    data[start : start + size] = rng.choice([rng.randbytes(size), bytes(size), b"\xff" * size])


def cut(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(data))
    del data[start : start + rng.choice([1, 2, 5, 100, len(data)])]


def splice(data: bytearray, rng: random.Random) -> None:
    start, size = rng.randrange(len(data)), rng.choice([1, 3, 20, 300])
    data[rng.randrange(len(data)) : 0] = data[start : start + size]


def swap(data: bytearray, rng: random.Random) -> None:
    size = rng.choice([1, 4, 32])
    a, b = (rng.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def forge(data: bytearray, rng: random.Random) -> None:
    """Changes a header, a record's header, a payload or the footer, and makes the CRC behind it right."""
    found = rng.choice(list(scan(io.BytesIO(data))) or [None])
    if found is None:
        return
    record = data[found.offset : found.offset + found.size]
    if isinstance(found.item, Block) and rng.random() < 0.5:  # the payload, and its own CRC
        reader = Reader(record)
        _, block = parse_record_header(reader, MAX_BLOCK_LOG)
        payload, raw_size = bytearray(record[reader.offset :]), block.raw_size
        what = rng.randrange(5)
        if what < 3:
            flip(payload, rng)
        elif what == 3:  # other numbers of tokens and lanes, and other decisions
            numbers = (
                Writer()
                .varint(rng.choice([1, raw_size, rng.randrange(2 * raw_size + 1)]))
                .varint(rng.choice([0, 1, 4, 5, 16, 31, 80, 300, 4800]))
            )
            payload = numbers.data + rng.randbytes(rng.randrange(2 * raw_size + 1))
        else:
            raw_size = rng.choice([max(0, raw_size - 1), raw_size + 1, 1 << 10, 1 << 12])
        out = Writer(record[:3]).varint(raw_size)
        if block.method:
            out.varint(len(payload)).uint(crc32(payload), 4)
        out.uint(block.raw_crc, 4).crc().put(payload)
        record = out.data
    else:
        end = len(record)
        if isinstance(found.item, Block):
            end = max(5, end - found.item.coded_size)
        elif not isinstance(found.item, Header):  # of a footer or a skippable record any length will do
            end = rng.randint(5, len(record))
        flip(part := record[: end - 4], rng)
        record[:end] = Writer(part).crc().data
    data[found.offset : found.offset + found.size] = record


DAMAGES: list[Callable[[bytearray, random.Random], None]] = [flip, replace, cut, splice, swap, forge, forge]


def read_whole(data: bytes, rng: random.Random, model: str | None) -> bytes:
    return lmcompress.decompress(data, model=model, memory=MEMORY)


def read_pieces(data: bytes, rng: random.Random, model: str | None) -> bytes:
    out, piece, limit = [], rng.choice([1, 13, 1000]), rng.choice([-1, 1, 50, 1000])
    decompressor, start = LMDecompressor(model=model, memory=MEMORY), 0
    while True:
        if decompressor.eof:
            rest = decompressor.unused_data + data[start:]
            if not rest:
                return b"".join(out)
            data, start, decompressor = rest, 0, LMDecompressor(model=model, memory=MEMORY)
        if not decompressor.needs_input:
            out.append(decompressor.decompress(b"", limit))
        elif start < len(data):
            out.append(decompressor.decompress(data[start : start + piece], limit))
            start += piece
        else:
            raise lmcompress.TruncatedError("no more pieces")


def read_from_places(data: bytes, rng: random.Random, model: str | None) -> bytes:
    """By the index, from the back. No SHA-256 is seen, so a forged index may show content of its own making."""
    with LMFile(io.BytesIO(data), model=model, memory=MEMORY) as file:
        middle = rng.randrange(file.seek(0, io.SEEK_END) + 1)
        end = file.read_range(middle, 1 << 20)
        return file.read_range(0, min(middle, 1 << 20)) + end


def look(data: bytes, rng: random.Random, model: str | None) -> None:
    lmcompress.get_archive_info(data)


def rescue(data: bytes, rng: random.Random, model: str | None) -> None:
    lmcompress.recover(io.BytesIO(data), io.BytesIO(), model=model, memory=MEMORY)


READERS = [read_whole, read_pieces, read_from_places, look, rescue]


def attempt(
    case: Case, data: bytes, rng: random.Random, readers: Iterable[Callable[..., bytes | None]] = READERS
) -> int:
    """Reads a damaged archive by every reader; returns how many refused it. Raises AssertionError for wrong content,
    and whatever but LMCompressError a reader raises."""
    refused = 0
    for reader in readers:
        try:
            content = reader(data, rng, case.model)
        except LMCompressError:
            refused += 1
            continue
        if content is not None and reader is not read_from_places:
            assert case.allows(content), f"{reader.__name__}: wrong content without an error"
    return refused


def run(n: int, seed: int, first: int = 0, model: str | None = None, readers: int = len(READERS)) -> tuple[int, int]:
    """(archives read, refusals) over `n` damaged archives, each read by so many of READERS."""
    archives, refused = cases(model), 0
    for i in range(first, first + n):
        rng = random.Random(f"{seed}/{i}")
        case = rng.choice(archives)
        data = bytearray(case.archive)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            if data:
                rng.choice(DAMAGES)(data, rng)
        if hasattr(signal, "alarm"):
            signal.alarm(SECONDS)
        try:
            refused += attempt(case, bytes(data), rng, rng.sample(READERS, readers))
        except BaseException:
            print(f"seed {seed}, archive {i} ({case.name}): {bytes(data).hex()}", file=sys.stderr)
            raise
        finally:
            if hasattr(signal, "alarm"):
                signal.alarm(0)
    return n * readers, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000, help="archives to damage")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first, to make one again")
    parser.add_argument("--readers", type=int, default=len(READERS), help="interfaces that read each, drawn at random")
    parser.add_argument("--fake", action="store_true", help="a codec that is quick and needs no model")
    given = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    if given.fake:
        fakes.install()
    read, refused = run(given.n, given.seed, given.first, None if given.fake else TOY, given.readers)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(
        f"{given.n} damaged archives, read {read} times: refused {refused} times, else right; at most {peak} MiB of memory"
    )


if __name__ == "__main__":
    main()

"""What comes again is copied: found, written, restored, over blocks, threads, seeks and damage."""

from __future__ import annotations

import io
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcompress
from lmcompress import methods, repeats
from lmcompress.bits import Writer, crc32
from lmcompress.container import LM, REPEATING, STORED, ZSTD, Block, Header
from lmcompress.errors import CorruptError, LimitError
from lmcompress.file import LMFile, recover
from lmcompress.repeats import LEAST, NEAR, Copy, Finder, History

REACH = 1 << 26


def text(size: int, seed: int) -> bytes:
    return bytes(random.Random(seed).choices(b"etaoin shrdlu", k=size))


def there_and_back(contents: list[bytes], reach: int = REACH, independent: bool = False) -> list[list[Copy]]:
    """The copies of each block, which were written, read and followed."""
    finder, history, found = Finder(reach, independent), History(reach), []
    for content in contents:
        copies, literal = finder.split(content)
        assert sum(copy.size for copy in copies) + len(literal) == len(content)
        assert repeats.parse(repeats.pack(copies), len(copies), len(content)) == (copies, len(literal))
        assert repeats.join(copies, literal, history.source) == content
        history.add(literal)
        found.append(copies)
    return found


PIECES = [text(size, seed) for seed, size in enumerate([5, 64, 300, 700, 1500, 5000])]
PIECES += [b"\0" * 3000, b"ab" * 900, b"key: value\n" * 200]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join), max_size=5), st.booleans())
def test_every_content_comes_back(contents: list[bytes], independent: bool) -> None:
    there_and_back(contents, independent=independent)
    there_and_back(contents, reach=4096)


def test_what_a_block_repeats_of_itself() -> None:
    a, b, c = text(9000, 1), text(4000, 2), text(3000, 3)
    assert there_and_back([a + b + a[1000:8000] + c]) == [[Copy(13_000, 7000, 0, 1000)]]
    assert there_and_back([a + b + a + c + a[:2000]]) == [[Copy(13_000, 9000, 0, 0), Copy(16_000, 2000, 0, 0)]]
    assert there_and_back([a + b + a[: NEAR - 1] + c]) == [[]]  # what learns on the way will know it


def test_what_a_block_repeats_of_others() -> None:
    a, b, c = text(9000, 1), text(4000, 2), text(3000, 3)
    assert there_and_back([a, b + a[2000:5000] + c]) == [[], [Copy(4000, 3000, 1, 2000)]]
    assert there_and_back([a, b, c + a]) == [[], [], [Copy(3000, 9000, 2, 0)]]
    assert there_and_back([a, b, c + a], independent=True) == [[], [], []]
    rare = there_and_back([a, b + a[2000:2700] + c])
    assert rare == [[], [Copy(4000, 700, 1, 2000)]]
    often = there_and_back([a, b"".join(a[2000:2700] + text(200, i) for i in range(99))])
    assert often == [[], []]  # learned at once


def test_copies_are_of_literals_only() -> None:
    a, b = text(9000, 1), text(4000, 2)
    assert there_and_back([a, a + b, b + a]) == [[], [Copy(0, 9000, 1, 0)], [Copy(0, 4000, 1, 0), Copy(0, 9000, 2, 0)]]
    within = there_and_back([a, a + b + a])
    assert within[1] == [Copy(0, 9000, 1, 0), Copy(4000, 9000, 1, 0)]


def test_a_block_copies_no_farther_than_all_readers_remember() -> None:
    a, b, c = text(9000, 1), text(9000, 2), text(9000, 3)
    assert there_and_back([a, b, a], reach=18_000)[2] == [Copy(0, 9000, 2, 0)]
    assert there_and_back([a, b, a], reach=17_999)[2] == []
    assert there_and_back([a, b, b, b, c, a], reach=27_000)[5] == [Copy(0, 9000, 5, 0)]  # literals count, not content
    assert [repeats.reach(log) for log in (10, 20, 23, 30)] == [1 << 13, 1 << 23, 1 << 26, 1 << 26]


def test_the_table_as_the_format_says() -> None:
    copies = [Copy(5, 256, 1, 7), Copy(5, 300, 1, 260), Copy(9, 1000, 0, 4)]
    table = bytes([5, 0, 4]) + bytes([0, 44, 0xE8, 5]) + bytes([1, 1, 0]) + bytes([4, 5, 0])
    assert repeats.pack(copies) == table and repeats.parse(table, 3, 1600) == (copies, 44)


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"\0\0\0",  # an offset is missing
        b"\0\0\0\0\0",  # one number too many
        b"\1\0\0\0",  # a gap longer than the literal
        b"\0\1\0\0",  # more than the content
        b"\0\0\0\1",  # before the literal
    ],
)
def test_a_table_that_does_not_fit_is_refused(table: bytes) -> None:
    with pytest.raises(lmcompress.LMCompressError):
        repeats.parse(table, 1, LEAST)
    assert repeats.parse(b"\0\0\0\0", 1, LEAST) == ([Copy(0, LEAST, 0, 0)], 0)


def test_copies_of_what_is_not_there_are_refused() -> None:
    history = History(100)
    for copy in (Copy(0, 300, 0, 1), Copy(0, 300, 1, 0)):
        with pytest.raises(CorruptError):
            repeats.join([copy], b"x" * 300, history.source)
    history.add(b"y" * 101)
    history.add(None)
    for back in (1, 2, 3):
        with pytest.raises(CorruptError, match="lost, or too far"):
            history.source(back)
    history.add(b"z")
    assert history.source(1) == b"z"


BLOCK = 1 << 16
A, B, C = (text(BLOCK, seed) for seed in range(3))
CONTENT = A + B + A[:30_000] + C[:20_000] + B[:15_536] + C + text(5000, 9) + A[:60_000]


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("threads", [1, 3])
def test_archives_that_repeat_come_back(level: int, threads: int) -> None:
    archive = lmcompress.compress(CONTENT, level, threads=threads, block_size=BLOCK)
    assert archive == lmcompress.compress(CONTENT, level, threads=1, block_size=BLOCK)
    assert lmcompress.decompress(archive, threads=threads) == CONTENT
    alone = lmcompress.compress(CONTENT, level, threads=threads, block_size=BLOCK, independent=True)
    assert lmcompress.decompress(alone, threads=threads) == CONTENT
    assert len(archive) < 0.7 * len(alone)


def test_random_access_decodes_what_is_repeated_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    archive = lmcompress.compress(CONTENT, 1, block_size=BLOCK)
    decoded, literal = [], methods.BlockDecoder.literal
    monkeypatch.setattr(methods.BlockDecoder, "literal", lambda self, *a: decoded.append(a) or literal(self, *a))
    with LMFile(io.BytesIO(archive)) as file:
        assert file.read_range(4 * BLOCK + 9000, 1000) == CONTENT[4 * BLOCK + 9000 : 4 * BLOCK + 10_000]
        assert len(decoded) == 2  # the last block, and the first
        assert file.read_range(2 * BLOCK + 40_000, 99) == CONTENT[2 * BLOCK + 40_000 : 2 * BLOCK + 40_099]
        assert len(decoded) == 4  # the third and the second; the first is still there
        for start in range(len(CONTENT) - 100, 0, -7001):
            assert file.read_range(start, 100) == CONTENT[start : start + 100]


def test_damage_spreads_to_what_repeats_it_and_no_farther() -> None:
    archive = bytearray(lmcompress.compress(CONTENT, 1, block_size=BLOCK))
    blocks = lmcompress.get_archive_info(bytes(archive)).members[0].blocks
    assert [block.method for block in blocks[2:]] == ["repeating"] * 3
    archive[blocks[1].offset + 100] ^= 1
    for tail in (b"", b"no index"):
        out = io.BytesIO()
        recovery = recover(bytes(archive) + tail, out)
        assert out.getvalue() == A + CONTENT[3 * BLOCK :]
        assert [loss.raw_offset for loss in recovery.lost][:2] == [BLOCK, 2 * BLOCK]
        assert "repeats another one that is lost" in recovery.lost[1].reason
    with pytest.raises(CorruptError), LMFile(io.BytesIO(archive)) as file:
        file.read_range(2 * BLOCK, 10)
    with LMFile(io.BytesIO(archive)) as file:
        assert file.read_range(4 * BLOCK, 10) == CONTENT[4 * BLOCK : 4 * BLOCK + 10]


def repeating(
    number: int, table: bytes, rest: bytes, raw_size: int, plain: Callable[[bytes], bytes] | None = None
) -> Block:
    coded = bytes([STORED]) + bytes(Writer().varint(len(table))) + table if plain is None else plain(table)
    payload = bytes(Writer().varint(number).varint(len(table)).put(coded).put(rest))
    return Block(REPEATING, raw_size, len(payload), crc32(bytes(raw_size)), crc32(payload), payload)


def decoded(block: Block, memory: int = 1 << 26) -> bytes:
    return methods.BlockDecoder(Header(20), None, 1, memory).decode(block, History(0))


def test_repeating_blocks_that_are_not_as_they_should_be_are_refused() -> None:
    table, zeros = b"\0\0\0\0", bytes(LEAST)
    assert decoded(repeating(1, table, bytes([STORED]) + zeros, 2 * LEAST)) == bytes(2 * LEAST)
    for wrong in (
        repeating(0, b"", bytes([STORED]) + zeros, LEAST),
        repeating(1, table, bytes([STORED]) + zeros[1:], 2 * LEAST),
        repeating(1, table, bytes([STORED]) + zeros, 2 * LEAST + 1),
        repeating(1, table, bytes([REPEATING]) + zeros, 2 * LEAST),
        repeating(1, table, bytes([0x3F]) + zeros, 2 * LEAST),
        repeating(1, table, bytes([LM]) + zeros, 2 * LEAST),  # without a codec
        repeating(1, table, bytes([ZSTD]) + b"\0\1\0\0", LEAST),  # nothing, by zstd
        repeating(2, table, bytes([STORED]) + zeros, 3 * LEAST),
        repeating(1, b"\0\0\1\0", bytes([STORED]) + zeros, 2 * LEAST),  # of a block that there is not
        repeating(1, table, b"", 2 * LEAST),
    ):
        with pytest.raises(lmcompress.LMCompressError):
            decoded(wrong)


def test_many_copies_are_memory() -> None:
    number = 100_000
    table = bytes(3 * number + 1) + (number - 1) * b"\xff\3"  # each of the same
    block = repeating(number, table, bytes([STORED]) + bytes(LEAST), (number + 1) * LEAST)
    with pytest.raises(LimitError):
        decoded(block, 2 * block.raw_size + block.coded_size + number * repeats.COPY_MEMORY - 1)
    assert len(decoded(block, 1 << 30)) == block.raw_size

"""Reader and Writer are inverses, and no byte beyond the end is read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcompress.bits import MAX_VARINT, Reader, Writer, crc32, write_varint
from lmcompress.errors import CorruptError, TruncatedError


@given(st.lists(st.integers(0, MAX_VARINT)))
def test_varints_come_back(numbers):
    writer = Writer()
    for number in numbers:
        writer.varint(number)
    reader = Reader(bytes(writer))
    assert [reader.varint() for _ in numbers] == numbers
    assert reader.remaining == 0


@pytest.mark.parametrize(
    ("number", "coded"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (1 << 14, "808001")]
)
def test_varint_bytes(number, coded):
    assert write_varint(number).hex() == coded


def test_negative_varint():
    with pytest.raises(ValueError):
        write_varint(-1)


@pytest.mark.parametrize("coded", ["8000", "ff00", "80808000"])
def test_only_the_shortest_varint_is_valid(coded):
    with pytest.raises(CorruptError, match="more bytes"):
        Reader(bytes.fromhex(coded)).varint()


@pytest.mark.parametrize("limit", [0, 1, 127, 128, 5000, MAX_VARINT])
def test_varint_limit(limit):
    assert Reader(write_varint(limit)).varint(limit) == limit
    with pytest.raises(CorruptError, match="limit"):
        Reader(write_varint(limit + 1)).varint(limit)
    with pytest.raises(CorruptError):
        Reader(b"\xff" * 40).varint(limit)


@given(st.binary(max_size=8), st.integers(0, 12))
def test_nothing_is_read_past_the_end(data, size):
    reader = Reader(data)
    if size <= len(data):
        assert reader.take(size) == data[:size]
        assert reader.rest() == data[size:]
    else:
        with pytest.raises(TruncatedError):
            reader.take(size)
        assert reader.offset == 0


def test_integers_are_little_endian():
    assert bytes(Writer().uint(0x0102, 2).uint(3, 4)).hex() == "020103000000"
    assert Reader(bytes.fromhex("0201")).uint(2) == 0x0102
    with pytest.raises(OverflowError):
        Writer().uint(256, 1)


def test_crc32_is_the_usual_one():
    assert crc32(b"123456789") == 0xCBF43926
    assert bytes(Writer(b"x123456789").crc(1))[-4:] == (0xCBF43926).to_bytes(4, "little")

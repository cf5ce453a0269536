"""The frame: what it costs, what it refuses, that bytes in any pieces give the same."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcompress.bits import Reader, Writer
from lmcompress.container import (
    LM,
    MAGIC,
    METADATA,
    STORED,
    SYNC,
    ZSTD,
    Block,
    Header,
    MemberParser,
    MemberWriter,
    Skippable,
    pack_skippable,
    parse_record,
    read_members,
)
from lmcompress.errors import CorruptError, TruncatedError, UnsupportedError

DIGEST = bytes(range(32))
PLAIN = Header(12)
HEADERS = st.builds(Header, st.integers(10, 30)) | st.builds(
    Header,
    st.integers(10, 30),
    st.binary(max_size=64),
    st.none() | st.binary(min_size=32, max_size=32),
).map(lambda h: Header(h.block_log, h.codec, h.model_digest, "fast" if h.model_digest else ""))


def member(header: Header = PLAIN, blocks: int = 3) -> bytes:
    """A member of `blocks` blocks, with metadata; payloads mean nothing here."""
    writer = MemberWriter(header)
    parts = [writer.start(), writer.metadata({"name": "letters.txt", "who": "me"})]
    for i in range(blocks):
        raw = bytes([i]) * (100 + i)
        parts.append(writer.block((STORED, ZSTD, LM)[i % 3], raw, raw if i % 3 == 0 else b"payload"))
    return b"".join(parts) + writer.finish(DIGEST)


def parse(data: bytes, piece: int) -> list[object]:
    parser, items = MemberParser(), []
    for start in range(0, len(data), piece):
        parser.feed(data[start : start + piece])
        while (item := parser.next()) is not None:
            items.append(item)
    assert parser.finished
    return items


@given(HEADERS)
def test_headers_come_back(header):
    reader = Reader(bytes(header) + b"more")
    assert Header.parse(reader) == header
    assert reader.rest() == b"more"


def test_a_name_that_does_not_print_is_no_damage():
    """Which characters print depends on the version of Python."""
    coded = bytes(Header(20, b"abc", bytes(32), "model A"))[:-4].replace(b"l A", b"l\n\x07")
    assert Header.parse(Reader(bytes(Writer(coded).crc()))) == Header(20, b"abc", bytes(32), "model")


def test_no_text_begins_like_an_archive():
    assert MAGIC[0] >= 0x80
    assert {0x0D, 0x0A, 0x1A} <= set(MAGIC)
    with pytest.raises(UnicodeDecodeError):
        MAGIC.decode()


def test_a_later_version_is_named():
    data = bytes(Header(20))
    later = bytes(Writer(data[:7] + b"\x02" + data[8:-4]).crc())
    with pytest.raises(UnsupportedError, match="version 2"):
        Header.parse(Reader(later))
    with pytest.raises(CorruptError):  # a damaged version byte is damage, not the future
        Header.parse(Reader(data[:7] + b"\x02" + data[8:]))


@pytest.mark.parametrize("bit", range(2, 8))
def test_reserved_flags_are_refused(bit):
    data = bytes(Header(20))
    flagged = bytes(Writer(data[:9] + bytes([data[9] | 1 << bit]) + data[10:-4]).crc())
    with pytest.raises(UnsupportedError, match="reserved"):
        Header.parse(Reader(flagged))


@pytest.mark.parametrize("kind", [7, 0x3F])
def test_reserved_methods_are_refused(kind):
    data = bytes(Writer(SYNC).uint(kind, 1).varint(9).varint(1).uint(0, 4).uint(0, 4).crc())
    with pytest.raises(UnsupportedError, match=f"method {kind}"):
        parse_record(Reader(data), 20)


@pytest.mark.parametrize("kind", [0x80, 0x81, 0xFF])
def test_reserved_kinds_are_refused(kind):
    with pytest.raises(CorruptError, match="unknown kind"):
        parse_record(Reader(SYNC + bytes([kind]) + bytes(40)), 20)


def test_unknown_records_without_content_are_skipped():
    writer = MemberWriter(Header(12))
    start, block = writer.start(), writer._record(pack_skippable(0x7F, b"from the future"), 0)
    data = start + block + writer.finish(DIGEST)
    header, record, digest = parse(data, 7)
    assert record == Skippable(0x7F, b"from the future")
    assert digest == DIGEST


@pytest.mark.parametrize("piece", [1, 2, 3, 17, 1000])
@pytest.mark.parametrize("blocks", [0, 1, 2, 7])
def test_pieces_of_any_size(piece, blocks):
    items = parse(member(blocks=blocks), piece)
    assert [type(i) for i in items] == [Header, Skippable, *[Block] * blocks, *[Skippable] * (blocks > 1), bytes]
    assert isinstance(items[1], Skippable) and items[1].kind == METADATA
    assert items[1].metadata() == {"name": "letters.txt", "who": "me"}


def test_what_follows_is_left():
    parser = MemberParser()
    parser.feed(member() + b"follows")
    while parser.next() is not None:
        pass
    assert parser.finished and parser.unused == b"follows"


def test_members_are_found_from_the_end():
    data = member(blocks=2) + member(blocks=0) + member(Header(20, b"abc", DIGEST, "fast"), blocks=5)
    file = io.BytesIO(b"prefix" + data)
    members = read_members(file, start=6)
    assert [len(m.raw_sizes) for m in members] == [4, 1, 7]
    assert members[0].start == 6 and members[-1].end == 6 + len(data)
    assert members[2].header.model_name == "fast" and members[2].digest == DIGEST
    third = members[2].read(file, 3)
    assert isinstance(third, Block) and third.raw_size == 102
    assert [members[2].find(i) for i in (0, 99, 100, 200, 201)] == [1, 1, 2, 2, 3]


def test_a_header_that_is_lost_is_taken_from_its_copy():
    data = bytearray(member(Header(20, b"abc", DIGEST, "fast")))
    data[20] ^= 1
    with pytest.raises(CorruptError, match="header"):
        read_members(io.BytesIO(data))
    (mended,) = read_members(io.BytesIO(data), mend=True)
    assert mended.header == Header(20, b"abc", DIGEST, "fast")


def test_an_index_takes_no_more_memory_than_its_file_could_need():
    header = bytes(PLAIN)
    footer = Writer(SYNC).uint(0x80, 1).uint(0, 1).varint(len(header)).varint(1000).put(bytes(2000)).crc().data
    data = header + footer + bytes(reversed(bytes(Writer().varint(len(footer))))) + b"\x1a\x8d"
    with pytest.raises(CorruptError, match="contradicts"):
        read_members(io.BytesIO(data))


@pytest.mark.parametrize("junk", [b"x", b"\0" * 30, MAGIC])
def test_nothing_may_follow_an_archive(junk):
    with pytest.raises(CorruptError):
        read_members(io.BytesIO(member() + junk))


def test_an_empty_file_is_no_archive():
    with pytest.raises(TruncatedError):
        read_members(io.BytesIO())


def test_sizes_are_checked_before_anything_is_read():
    record = bytes(Writer(SYNC).uint(STORED, 1).varint((1 << 20) + 1).uint(0, 4).crc())
    with pytest.raises(CorruptError, match="limit"):
        parse_record(Reader(record), 20)
    longer_coded = bytes(Writer(SYNC).uint(LM, 1).varint(100).varint(100).uint(0, 4).uint(0, 4).crc())
    with pytest.raises(CorruptError, match="limit"):
        parse_record(Reader(longer_coded), 20)


def test_metadata_has_a_limit():
    with pytest.raises(ValueError, match="metadata"):
        MemberWriter(Header(12)).metadata({"k": "v" * 70000})


def test_any_file_name_is_metadata():
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    record = MemberWriter(Header(12)).metadata({"name": name})
    parsed = parse_record(Reader(record), 12)
    assert isinstance(parsed, Skippable) and parsed.metadata() == {"name": name}


def test_fixed_costs():
    """Bytes beside the payload, of which every one counts on a short text."""
    small = MemberWriter(Header(10))
    assert len(small.start()) == 15
    assert len(small.block(STORED, b"x" * 100, b"x" * 100)) - 100 == 12
    assert len(small.finish(b"8 bytes.")) == 23
    model = Header(10, b"abc", DIGEST, "fast")
    assert len(bytes(model)) == 15 + 4 + 32 + 5

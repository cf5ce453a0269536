"""The archive's frame, field by field as docs/FORMAT.md says: header, blocks, metadata, footer with the index.

Knows: sizes, checksums, offsets. Does not know: models, codecs, how a payload becomes text; it moves method and payload.
An archive is one member or several, one after the other. MemberWriter and MemberParser are inverses and do no I/O;
`read_members` finds the members of a seekable file from its end, `scan` whatever is sound in a damaged one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from lmcompress.bits import CRC_SIZE, Buffer, Reader, Writer, crc32
from lmcompress.errors import CorruptError, LimitError, TruncatedError, UnsupportedError

VERSION = 1
MAGIC = b"\x8dLMC\r\n\x1a"  # no text begins so: invalid in ASCII and UTF-8, and CR LF and ^Z show a mangled transfer
SYNC = b"\x8d\xb1"  # before every record
END = b"\x1a\x8d"  # the last bytes of a member

STORED, ZSTD, LM, MIXED, LEARNED, MIXED_LEARNED, REPEATING = range(
    7
)  # record kinds of blocks; up to LAST_METHOD reserved
METHODS = {
    STORED: "stored", ZSTD: "zstd", LM: "lm", MIXED: "mixed", LEARNED: "learned", MIXED_LEARNED: "mixed, learned",
    REPEATING: "repeating",
}  # fmt: skip
NEED_CODEC = (LM, MIXED, LEARNED, MIXED_LEARNED)  # and those of REPEATING whose literal has one of them
LAST_METHOD = 0x3F
METADATA, HEADER_COPY = 0x40, 0x41  # records without content; up to LAST_SKIPPABLE readers skip what they do not know
LAST_SKIPPABLE = 0x7F
FOOTER = 0x80

HAS_CODEC, HAS_MODEL = 0x01, 0x02  # header flags; the others are reserved and zero

MIN_BLOCK_LOG, MAX_BLOCK_LOG = 10, 30
MAX_NAME = MAX_CODEC = 64  # bytes of a model's name, of a codec's parameters
MAX_METADATA = 1 << 16  # bytes of a record without content
MAX_FOOTER = 1 << 26  # bytes
MAX_TOTAL = (1 << 63) - 1
DIGEST = 32  # bytes of SHA-256
_SHORTEST_RECORD = len(SYNC) + 2 + 2 * CRC_SIZE
_LONGEST_RECORD_HEADER = len(SYNC) + 1 + 2 * 5 + 3 * CRC_SIZE
_SCAN_STEP = 1 << 20  # bytes read at a time when searching a damaged file


@dataclass(frozen=True)
class Header:
    """What holds for a whole member. Model and codec parameters are there when a block may have method lm or mixed."""

    block_log: int  # no block's content is longer than 2^block_log bytes
    codec: bytes | None = None  # parameters of the codec, opaque here
    model_digest: bytes | None = None  # SHA-256 of the model's file; a codec may also do without a model
    model_name: str = ""  # for messages only; nothing is looked up by it

    def __bytes__(self) -> bytes:
        flags = (HAS_CODEC if self.codec is not None else 0) | (HAS_MODEL if self.model_digest is not None else 0)
        body = Writer().uint(flags, 1).uint(self.block_log, 1)
        if self.codec is not None:
            body.uint(len(self.codec), 1).put(self.codec)
        if self.model_digest is not None:
            name = _printable(self.model_name).encode("utf-8", "ignore")[:MAX_NAME]
            name = name.decode("utf-8", "ignore").encode()  # no part of a character
            body.put(self.model_digest).uint(len(name), 1).put(name)
        return bytes(Writer(MAGIC).uint(VERSION, 1).uint(len(body.data), 1).put(body.data).crc())

    @staticmethod
    def parse(reader: Reader) -> Header:
        """The header at the reader's place. Raises TruncatedError while there is too little of it."""
        start = reader.offset
        magic = bytes(reader.data[start : start + len(MAGIC)])
        if magic != MAGIC[: len(magic)]:
            raise CorruptError("not an lmcompress archive (the magic bytes are missing)")
        reader.take(len(MAGIC))
        version = reader.uint(1)
        body = Reader(reader.take(reader.uint(1)))
        _check_crc(reader, start, "header")
        if version != VERSION:
            raise UnsupportedError(
                f"the archive needs format version {version}; this lmcompress reads version {VERSION}"
            )
        try:
            flags = body.uint(1)
            if flags & ~(HAS_CODEC | HAS_MODEL):
                raise UnsupportedError(f"flags {flags:#04x} are reserved in version {VERSION}; a later one is needed")
            block_log = body.uint(1)
            codec = body.take(_at_most(body.uint(1), MAX_CODEC)) if flags & HAS_CODEC else None
            digest = body.take(DIGEST) if flags & HAS_MODEL else None
            name = body.take(_at_most(body.uint(1), MAX_NAME)).decode() if flags & HAS_MODEL else ""
        except (TruncatedError, UnicodeDecodeError):
            raise CorruptError("the header contradicts itself") from None
        if body.remaining or not MIN_BLOCK_LOG <= block_log <= MAX_BLOCK_LOG or (codec is None and digest is not None):
            raise CorruptError("the header contradicts itself")
        return Header(block_log, codec, digest, _printable(name))


@dataclass(frozen=True)
class Block:
    """A piece of content as it stands in the archive. `payload` is empty when only the record's header was read."""

    method: int
    raw_size: int
    coded_size: int
    raw_crc: int
    coded_crc: int
    payload: bytes = b""

    def check(self) -> None:
        """Raises CorruptError unless the payload is what was written."""
        if len(self.payload) != self.coded_size or crc32(self.payload) != self.coded_crc:
            raise CorruptError("a block's coded bytes are damaged (CRC-32)")

    def check_raw(self, data: Buffer) -> None:
        """Raises CorruptError unless `data` is the content that was coded."""
        if len(data) != self.raw_size or crc32(data) != self.raw_crc:
            raise CorruptError("a block decodes to something other than what was written (CRC-32)")


@dataclass(frozen=True)
class Skippable:
    """A record without content: metadata, a copy of the header, or what a later version may add."""

    kind: int
    payload: bytes

    def metadata(self) -> dict[str, str]:
        """The key = value pairs of a METADATA record."""
        return _unpack_metadata(self.payload)


@dataclass(frozen=True)
class Footer:
    """The end of a member: what its records are and what the content hashes to."""

    header_size: int  # bytes
    record_sizes: array[int]  # uint64: bytes of each record between header and footer
    raw_sizes: array[int]  # uint64: content of each, 0 for those without
    digest: bytes  # the first bytes of the content's SHA-256, 0 to 32 of them

    @staticmethod
    def parse(data: Buffer) -> Footer:
        """The footer in `data`, all of it up to and with its CRC."""
        if crc32(data[:-CRC_SIZE]) != int.from_bytes(data[-CRC_SIZE:], "little"):
            raise CorruptError("the footer is damaged (CRC-32)")
        reader = Reader(data[:-CRC_SIZE])
        try:
            if reader.take(len(SYNC)) != SYNC or reader.uint(1) != FOOTER:
                raise CorruptError("no footer where it should be")
            digest = reader.take(_at_most(reader.uint(1), DIGEST))
            header_size = reader.varint(MAX_FOOTER)
            count = reader.varint(len(data))
            record_sizes, raw_sizes = array("Q"), array("Q")
            for _ in range(count):
                record_sizes.append(reader.varint((1 << MAX_BLOCK_LOG) + _LONGEST_RECORD_HEADER))
                raw_sizes.append(reader.varint(1 << MAX_BLOCK_LOG))
                if record_sizes[-1] < _SHORTEST_RECORD:  # so that the index takes memory in proportion to the file
                    raise CorruptError("the footer contradicts itself")
        except TruncatedError:
            raise CorruptError("the footer contradicts itself") from None
        if reader.remaining:
            raise CorruptError("the footer contradicts itself")
        return Footer(header_size, record_sizes, raw_sizes, digest)


def _printable(name: str) -> str:
    """A name without what this version of Python, or another one, would not print."""
    return "".join(c for c in name if c.isprintable())


def _check_crc(reader: Reader, start: int, what: str) -> None:
    expected = crc32(reader.data[start : reader.offset])
    if reader.uint(CRC_SIZE) != expected:
        raise CorruptError(f"the {what} is damaged (CRC-32)")


def _at_most(value: int, limit: int) -> int:
    if value > limit:
        raise CorruptError(f"a size of {value} where at most {limit} is allowed")
    return value


def _pack_metadata(pairs: Mapping[str, str]) -> bytes:
    out = Writer()
    for text in (text for pair in pairs.items() for text in pair):
        data = text.encode("utf-8", "surrogateescape")  # a file's name need not be UTF-8
        out.varint(len(data)).put(data)
    return bytes(out)


def _unpack_metadata(payload: bytes) -> dict[str, str]:
    reader, texts = Reader(payload), []
    try:
        while reader.remaining:
            texts.append(reader.take(reader.varint(MAX_METADATA)).decode("utf-8", "surrogateescape"))
    except TruncatedError:
        raise CorruptError("a metadata record contradicts itself") from None
    if len(texts) % 2:
        raise CorruptError("a metadata record contradicts itself")
    return dict(zip(texts[::2], texts[1::2], strict=True))


def pack_block(method: int, raw: Buffer, payload: Buffer) -> bytes:
    """A block's whole record. A stored block's payload is its content, whose size and CRC are not repeated."""
    out = Writer(SYNC).uint(method, 1).varint(len(raw))
    if method != STORED:
        out.varint(len(payload)).uint(crc32(payload), CRC_SIZE)
    return bytes(out.uint(crc32(raw), CRC_SIZE).crc().put(payload))


def pack_skippable(kind: int, payload: bytes) -> bytes:
    """A whole record without content. Raises ValueError when it is too long."""
    if len(payload) > MAX_METADATA:
        raise ValueError(f"{len(payload)} bytes of metadata; at most {MAX_METADATA} fit into one record")
    return bytes(Writer(SYNC).uint(kind, 1).varint(len(payload)).uint(crc32(payload), CRC_SIZE).crc().put(payload))


def parse_record_header(reader: Reader, block_log: int) -> tuple[int, Block]:
    """(kind, sizes and checksums) of the record at the reader's place; a record without content comes as a block
    of raw_size 0. Raises TruncatedError while there is too little of it."""
    start = reader.offset
    if reader.take(len(SYNC)) != SYNC:
        raise CorruptError("no record where one should be (the sync mark is missing)")
    kind = reader.uint(1)
    if kind > LAST_SKIPPABLE:
        raise CorruptError(f"a record of unknown kind {kind:#04x}")
    if kind <= LAST_METHOD:
        raw_size = reader.varint(1 << block_log)
        coded_size = raw_size if kind == STORED else reader.varint(raw_size - 1)
    else:
        raw_size, coded_size = 0, reader.varint(MAX_METADATA)
    coded_crc = reader.uint(CRC_SIZE)
    raw_crc = reader.uint(CRC_SIZE) if STORED < kind <= LAST_METHOD else coded_crc
    _check_crc(reader, start, "record's header")
    if kind <= LAST_METHOD and raw_size == 0:
        raise CorruptError("an empty block")
    if REPEATING < kind <= LAST_METHOD:
        raise UnsupportedError(f"block method {kind} is reserved in version {VERSION}; a later one is needed")
    return kind, Block(kind, raw_size, coded_size, raw_crc, coded_crc)


def parse_record(reader: Reader, block_log: int, memory: int | None = None) -> Block | Skippable:
    """The whole record at the reader's place, its payload checked. Raises TruncatedError while there is too little,
    LimitError as soon as it is clear that content and payload together have more than `memory` bytes."""
    kind, block = parse_record_header(reader, block_log)
    if memory is not None and block.raw_size + block.coded_size > memory:
        raise LimitError(f"a block of {block.raw_size} bytes needs more than the {memory} bytes of memory allowed")
    block = Block(kind, block.raw_size, block.coded_size, block.raw_crc, block.coded_crc, reader.take(block.coded_size))
    block.check()
    return block if kind <= LAST_METHOD else Skippable(kind, block.payload)


class _Index:
    """The records so far, kept as the footer will have them, so that a reader's memory stays within what it has read."""

    def __init__(self, header_size: int) -> None:
        self.header_size = header_size
        self.count = 0
        self.blocks = 0
        self._entries = Writer()

    def add(self, record_size: int, raw_size: int) -> None:
        self._entries.varint(record_size).varint(raw_size)
        self.count += 1
        self.blocks += raw_size > 0

    def footer(self, digest: bytes) -> bytes:
        """The footer of a member of these records; the size at its end reads from the end backwards."""
        out = Writer(SYNC).uint(FOOTER, 1).uint(len(digest), 1).put(digest)
        out.varint(self.header_size).varint(self.count).put(self._entries.data).crc()
        return bytes(out) + bytes(reversed(bytes(Writer().varint(len(out.data))))) + END


class MemberWriter:
    """Makes one member; every method returns the bytes to write next."""

    def __init__(self, header: Header) -> None:
        self._header = bytes(header)
        self._index = _Index(len(self._header))

    def start(self) -> bytes:
        return self._header

    def block(self, method: int, raw: Buffer, payload: Buffer) -> bytes:
        """`payload` is shorter than `raw`, or `method` is STORED and it is `raw` itself."""
        assert len(payload) < len(raw) if method != STORED else len(payload) == len(raw) > 0
        return self._record(pack_block(method, raw, payload), len(raw))

    def metadata(self, pairs: Mapping[str, str]) -> bytes:
        """Raises ValueError when the pairs are longer than MAX_METADATA together."""
        return self._record(pack_skippable(METADATA, _pack_metadata(pairs)), 0)

    def finish(self, digest: bytes) -> bytes:
        """The end; `digest` is SHA-256 of the content, or its first bytes. A member of many blocks gets a second copy
        of its header, so that losing the first does not lose them all."""
        copy = self._record(pack_skippable(HEADER_COPY, self._header), 0) if self._index.blocks > 1 else b""
        return copy + self._index.footer(digest)

    def _record(self, record: bytes, raw_size: int) -> bytes:
        self._index.add(len(record), raw_size)
        return record


class MemberParser:
    """Reads one member from bytes in pieces of any size; holds no more than one record and the index. `memory`: bytes
    that a block's content and payload may have together."""

    def __init__(self, memory: int | None = None) -> None:
        self._memory = memory
        self.header: Header | None = None
        self.finished = False
        self._buffer = bytearray()
        self._index = _Index(0)

    def feed(self, data: Buffer) -> None:
        self._buffer += data

    @property
    def unused(self) -> bytes:
        """What was fed and not yet parsed; after the end, what follows the member."""
        return bytes(self._buffer)

    def next(self) -> Header | Block | Skippable | bytes | None:
        """What comes next, or None until more is fed: the header, then blocks and skippable records, then the
        digest (bytes) in the footer, which has been checked against the records that came."""
        if self.finished:
            return None
        reader = Reader(self._buffer)
        result: Header | Block | Skippable | bytes
        try:
            if self.header is None:
                result = self.header = Header.parse(reader)
                self._index.header_size = reader.offset
            elif self._buffer.startswith(SYNC + bytes([FOOTER])):
                result = self._footer(reader)
            else:
                result = parse_record(reader, self.header.block_log, self._memory)
                self._index.add(reader.offset, result.raw_size if isinstance(result, Block) else 0)
        except TruncatedError:
            return None
        finally:
            size = reader.offset
            reader.data.release()
        del self._buffer[:size]
        return result

    def _footer(self, reader: Reader) -> bytes:
        """The records read say what the footer must be, all but the digest: nothing of it needs to be believed."""
        reader.take(len(SYNC) + 1)
        digest = reader.take(_at_most(reader.uint(1), DIGEST))
        expected = self._index.footer(digest)
        if not expected.startswith(reader.data[: len(expected)]):
            raise CorruptError("the footer is damaged, or does not belong to these blocks")
        if len(reader.data) < len(expected):
            raise TruncatedError("the footer is not all there")
        reader.offset = len(expected)
        self.finished = True
        return digest


def read_exactly(file: BinaryIO, size: int) -> bytes:
    """`size` bytes, fewer only at the end of the file, also of a raw file that gives less at a time."""
    data = file.read(size)
    while len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


class Member:
    """Where everything in one member of a seekable file is."""

    def __init__(self, start: int, header: Header, footer: Footer, end: int) -> None:
        self.start, self.header, self.end = start, header, end  # file offsets; end is behind the member
        self.digest, self.header_size = footer.digest, footer.header_size
        self.record_sizes, self.raw_sizes = footer.record_sizes, footer.raw_sizes
        self.offsets, self.raw_offsets = array("Q"), array("Q")  # of each record: in the file, in the member's content
        offset, raw_offset = start + footer.header_size, 0
        for record_size, raw_size in zip(self.record_sizes, self.raw_sizes, strict=True):
            self.offsets.append(offset)
            self.raw_offsets.append(raw_offset)
            offset += record_size
            raw_offset += raw_size
        self.raw_size = raw_offset  # bytes of content
        self._blocks = array("Q", (i for i, size in enumerate(self.raw_sizes) if size))  # records that are blocks

    def find(self, raw_offset: int) -> int:
        """The record that holds this byte of the member's content (0 <= raw_offset < raw_size)."""
        # records without content share their offset with the next block and come before it
        return bisect_right(self.raw_offsets, raw_offset) - 1

    def before(self, i: int, back: int) -> int:
        """The record whose block is so many blocks before record `i`. Raises CorruptError where there is none."""
        number = bisect_left(self._blocks, i) - back
        if number < 0:
            raise CorruptError("a block repeats one that there is not")
        return self._blocks[number]

    def read(self, file: BinaryIO, i: int) -> Block | Skippable:
        """Record `i`, its payload checked. Raises CorruptError when it is damaged or not what the index says."""
        file.seek(self.offsets[i])
        reader = Reader(read_exactly(file, self.record_sizes[i]))
        try:
            record = parse_record(reader, self.header.block_log)
        except TruncatedError:
            raise CorruptError("a record is longer than the index says") from None
        raw_size = record.raw_size if isinstance(record, Block) else 0
        if reader.remaining or raw_size != self.raw_sizes[i]:
            raise CorruptError("a record is not what the index says")
        return record


def read_members(file: BinaryIO, *, start: int = 0, mend: bool = False) -> list[Member]:
    """The members of a seekable file from offset `start` on, found from its end, without reading any block. Raises CorruptError where the
    file does not end in a footer: damage, truncation, or something appended. With `mend`, a header that is lost is
    replaced by its copy."""
    end = file.seek(0, 2)
    if end <= start:
        raise TruncatedError("the archive is empty")
    members: list[Member] = []
    while end > start:
        members.append(_read_member(file, start, end, mend))
        end = members[-1].start
    return members[::-1]


def _read_member(file: BinaryIO, lowest: int, end: int, mend: bool) -> Member:
    tail_start = max(lowest, end - 16)
    file.seek(tail_start)
    tail = read_exactly(file, end - tail_start)
    if not tail.endswith(END):
        file.seek(lowest)
        if read_exactly(file, len(MAGIC)) != MAGIC:
            raise CorruptError("not an lmcompress archive (neither magic bytes nor a footer)")
        raise TruncatedError("the archive does not end in a footer: cut short, damaged, or something follows it")
    backwards = Reader(tail[: -len(END)][::-1])
    try:
        size = backwards.varint(MAX_FOOTER)
    except TruncatedError:
        raise CorruptError("the footer's size is damaged") from None
    footer_start = end - len(END) - backwards.offset - size
    if footer_start < lowest or size < CRC_SIZE:
        raise CorruptError("the footer's size is damaged")
    file.seek(footer_start)
    footer = Footer.parse(read_exactly(file, size))
    start = footer_start - sum(footer.record_sizes) - footer.header_size
    if start < lowest:
        raise CorruptError("the index is larger than the file")
    try:
        file.seek(start)
        header = _whole_header(read_exactly(file, footer.header_size))
    except CorruptError:
        if not mend or not footer.record_sizes:
            raise
        file.seek(footer_start - footer.record_sizes[-1])
        header = copied_header(parse_record(Reader(read_exactly(file, footer.record_sizes[-1])), MAX_BLOCK_LOG))
    return Member(start, header, footer, end)


def _whole_header(data: bytes) -> Header:
    reader = Reader(data)
    header = Header.parse(reader)
    if reader.remaining:
        raise CorruptError("the header is not what the footer says")
    return header


def copied_header(record: Block | Skippable) -> Header:
    """What a HEADER_COPY record repeats."""
    if not isinstance(record, Skippable) or record.kind != HEADER_COPY:
        raise CorruptError("the header is damaged, and there is no copy")
    return _whole_header(record.payload)


@dataclass(frozen=True)
class Found:
    """Something sound in a damaged file, or a block whose header is sound and whose payload is not."""

    offset: int  # in the file
    size: int  # bytes of the whole record
    item: Header | Block | Skippable | Footer
    damaged: bool = False


def scan(file: BinaryIO) -> Iterator[Found]:
    """Everything in a seekable file that its own checksums vouch for, in order, without trusting any index. A file
    that pretends to be full of damaged records is searched less thoroughly, in time proportional to its size."""
    end = file.seek(0, 2)
    offset, patience = 0, 16 * end + MAX_FOOTER  # bytes that may be looked at in vain
    while offset < end:
        found, wasted = _probe(file, offset, end, thorough=patience > 0)
        patience -= wasted
        if found is None:
            offset = _next_mark(file, offset + 1, end)
        else:
            yield found
            offset += found.size


def _next_mark(file: BinaryIO, offset: int, end: int) -> int:
    """The next place from `offset` on where a header or a record may begin."""
    step = 1 << 10
    while offset < end:
        file.seek(offset)
        window = read_exactly(file, step + len(MAGIC))
        hits = [i for i in (window.find(SYNC), window.find(MAGIC)) if i >= 0]
        if hits:
            return offset + min(hits)
        offset += step
        step = min(4 * step, _SCAN_STEP)
    return end


def _probe(file: BinaryIO, offset: int, end: int, thorough: bool) -> tuple[Found | None, int]:
    """What begins at `offset`, if anything sound does, and how many bytes were read in vain."""
    file.seek(offset)
    reader = Reader(read_exactly(file, len(MAGIC) + 2 + 255 + CRC_SIZE))
    try:
        if reader.data[: len(MAGIC)] == MAGIC:
            header = Header.parse(reader)
            return Found(offset, reader.offset, header), 0
        if reader.data[: len(SYNC) + 1] == SYNC + bytes([FOOTER]):
            return _probe_footer(file, offset, end) if thorough else (None, 0)
        _, block = parse_record_header(reader, MAX_BLOCK_LOG)
    except (CorruptError, UnsupportedError):
        return None, 0
    size = reader.offset + block.coded_size
    if offset + size <= end:
        file.seek(offset)
        record = read_exactly(file, size)
        try:
            return Found(offset, size, parse_record(Reader(record), MAX_BLOCK_LOG)), 0
        except CorruptError:
            if not thorough or read_exactly(file, len(SYNC)) == SYNC:
                return Found(offset, size, block, damaged=True), size
    # bytes are missing inside, or too many: what follows is searched for from the payload's start
    return Found(offset, reader.offset, block, damaged=True), min(size, end - offset)


def _probe_footer(file: BinaryIO, offset: int, end: int) -> tuple[Found | None, int]:
    """A footer says its size at its end only, so every end mark behind `offset` is tried, within bounds."""
    file.seek(offset)
    window = read_exactly(file, min(end - offset, MAX_FOOTER))
    at = -1
    for _ in range(64):
        at = window.find(END, at + 1)
        if at < 0:
            break
        backwards = Reader(window[max(0, at - 5) : at][::-1])
        try:
            size = backwards.varint(MAX_FOOTER)
            if size == at - backwards.offset:
                return Found(offset, at + len(END), Footer.parse(window[:size])), 0
        except CorruptError:
            continue
    return None, len(window)

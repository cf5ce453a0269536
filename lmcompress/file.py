"""Archives as files, in the shape of lzma and compression.zstd.

Knows: file objects, where in an archive a byte of content is, how to save what a damaged archive still holds. Does not
know: paths' meaning, terminals, models.
"""

from __future__ import annotations

import builtins
import contextlib
import errno
import hashlib
import io
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, cast, overload

from lmcompress.bits import Buffer, Reader
from lmcompress.container import (
    HEADER_COPY,
    LAST_METHOD,
    MAGIC,
    MAX_BLOCK_LOG,
    METADATA,
    METHODS,
    VERSION,
    Block,
    Footer,
    Header,
    Member,
    Skippable,
    copied_header,
    parse_record_header,
    read_exactly,
    read_members,
    scan,
)
from lmcompress.errors import (
    CorruptError,
    LimitError,
    LMCompressError,
    MissingModelError,
    TruncatedError,
    UnsupportedError,
)
from lmcompress.methods import DEFAULT_LEVEL, DEFAULT_MEMORY, BlockDecoder
from lmcompress.repeats import History, reach
from lmcompress.stream import LMCompressor, MemberDecoder, within

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

_CHUNK = 1 << 18  # bytes read from a file at a time


def compress(
    data: Buffer,
    level: int = DEFAULT_LEVEL,
    *,
    model: Model | str | Path | None = None,
    threads: int = 0,
    block_size: int | None = None,
    independent: bool = False,
    check: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """An archive of `data`. Arguments and errors as for LMCompressor."""
    compressor = LMCompressor(
        level, model=model, threads=threads, block_size=block_size, size=memoryview(data).nbytes,
        independent=independent, check=check, metadata=metadata,
    )  # fmt: skip
    return compressor.compress(data, LMCompressor.FLUSH_FRAME)


def decompress(
    data: Buffer,
    *,
    model: Model | str | Path | None = None,
    threads: int = 0,
    memory: int = DEFAULT_MEMORY,
    max_output: int | None = None,
) -> bytes:
    """The content of an archive of one or several members. Arguments as for LMDecompressor; raises LMCompressError."""
    raw = _ContentReader(io.BytesIO(data), model, threads, memory, max_output)
    return b"".join(iter(raw.next_block, b""))


def _write(file: BinaryIO, data: Buffer) -> None:
    """Writes all of it, also to a raw file that takes less at a time. Raises BlockingIOError where that takes nothing."""
    rest = data
    while len(rest) > 0:
        taken = file.write(rest)
        if taken is None and not isinstance(file, io.RawIOBase):  # one of those that say nothing and take everything
            return
        if not taken:
            raise BlockingIOError(errno.EAGAIN, "the file takes nothing now")
        rest = memoryview(rest)[taken:]


class _ContentReader(io.RawIOBase):
    """An archive's content as a raw stream: in order with every digest checked, or by the index wherever asked."""

    def __init__(
        self,
        file: BinaryIO,
        model: Model | str | Path | None,
        threads: int,
        memory: int,
        max_output: int | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._file, self._options, self._progress = file, (model, threads, memory), progress
        self._max_output = max_output  # bytes of content in order
        self._seekable = bool(getattr(file, "seekable", lambda: False)())
        self._ahead = self._seekable  # nobody has looked for a certain place: all will be read, several blocks at once
        self._base = file.tell() if self._seekable else 0  # where the archive begins in the file
        self._position = 0  # in the content
        self._block, self._block_start = b"", 0  # the block decoded last, and where in the content it begins
        self._next_start = 0  # where in the content the next block in order begins
        self._taken = 0  # bytes of the file that were read in order
        self._member = MemberDecoder(*self._options)
        self.engine_name: str | None = None
        self._failure: LMCompressError | None = None  # what ended the reading in order
        self._members: tuple[list[Member], list[int]] | None = None  # and where in the content each begins, and its end
        self._literals: dict[tuple[int, int], bytes] = {}  # by member and record, of blocks that others repeat
        self._literals_size = 0  # bytes of them all

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Raises io.UnsupportedOperation where the file cannot, CorruptError without a good index."""
        if not self._seekable:
            raise io.UnsupportedOperation("the archive is a stream and its index at its end")
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            offset += self._index()[1][-1]
        elif whence != io.SEEK_SET:
            raise ValueError(f"invalid value for whence: {whence}")
        if offset < 0:
            raise ValueError(f"negative seek position {offset}")
        self._position = offset
        self._ahead, self._member.ahead = False, 1
        return offset

    def close(self) -> None:
        if hasattr(self, "_member"):  # not where the arguments were wrong
            self._member.cancel()
        super().close()

    def readinto(self, buffer: Any) -> int:
        while not self._block_start <= self._position < self._block_start + len(self._block):
            if not self._load():
                return 0
        start = self._position - self._block_start
        view = memoryview(buffer).cast("B")
        data = self._block[start : start + len(view)]
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def next_block(self) -> bytes:
        """The next block in order, empty at the end of the archive, which is then found whole and right. Raises
        LimitError, and decodes nothing, when it ends behind `max_output`."""
        if self._failure is not None:
            raise self._failure
        try:
            block = self._next_block()
        except LMCompressError as error:
            self._failure = error
            raise
        self._block, self._block_start = block, self._next_start
        self._next_start += len(block)
        self.engine_name = self._member.engine_name or self.engine_name
        return block

    def _next_block(self) -> bytes:
        if self._seekable:
            self._file.seek(self._base + self._taken)
        limit = None if self._max_output is None else self._max_output - self._next_start
        progress, start = self._progress, self._next_start
        within_block = None if progress is None else lambda done: progress(start + done)
        more = self._ahead  # a stream's next bytes may be long in coming
        while (block := self._member.next(limit, within_block, more)) is None:
            chunk = self._member.unused if self._member.finished else b""
            if not chunk:  # so that many small members do not gather the rest of the file
                chunk = self._file.read(_CHUNK)
                if cast("bytes | None", chunk) is None:
                    raise BlockingIOError(errno.EAGAIN, "the file gives nothing now")
                self._taken += len(chunk)
            if self._member.finished:
                if not chunk:
                    return b""
                if not MAGIC.startswith(chunk[: len(MAGIC)]):
                    whole = self._taken - len(chunk)
                    raise CorruptError(f"behind {whole} bytes of archive follows something that is no archive")
                self._member = MemberDecoder(*self._options)
                if not self._ahead:
                    self._member.ahead = 1
            elif not chunk and more:
                more = False
            elif not chunk:
                raise TruncatedError(f"the archive ends too early, after {self._next_start} bytes of content")
            self._member.feed(chunk)
        return block

    def _load(self) -> bool:
        """Loads the block that holds `_position`, or one before it; False at the end."""
        if not self._seekable or self._position == self._next_start:
            return bool(self.next_block())
        members, starts = self._index()
        if self._position >= starts[-1]:
            return False
        number = bisect_right(starts, self._position) - 1
        member, start = members[number], starts[number]
        i = member.find(self._position - start)
        self._block, self._block_start = self._block_at(member, i), start + member.raw_offsets[i]
        return True

    def _block_at(self, member: Member, i: int) -> bytes:
        """The content of the block that is record `i`, and for that the literals of those that it repeats."""
        decoder = BlockDecoder(member.header, *self._options)
        opened = decoder.open(_block(member, self._file, i))
        sources, most, needed = dict[int, bytes](), reach(member.header.block_log), 0
        for back in {copy.back for copy in opened.copies} - {0}:
            key = member.start, member.before(i, back)
            if key not in self._literals:
                self._literals[key] = decoder.literal(decoder.open(_block(member, self._file, key[1])))
                self._literals_size += len(self._literals[key])
            sources[back] = self._literals[key]
            needed += len(sources[back])
            if needed > most:
                raise CorruptError("a block repeats one that is too far away")
            while self._literals_size > most:
                self._literals_size -= len(self._literals.pop(next(iter(self._literals))))
        content = decoder.content(opened, decoder.literal(opened), sources.__getitem__)
        self.engine_name = decoder.engine_name or self.engine_name
        return content

    def _index(self) -> tuple[list[Member], list[int]]:
        if self._members is None:
            members = read_members(self._file, start=self._base)
            self._members = members, [0, *accumulate(member.raw_size for member in members)]
        return self._members


def _block(member: Member, file: BinaryIO, i: int) -> Block:
    record = member.read(file, i)
    assert isinstance(record, Block)
    return record


class LMFile(io.BufferedIOBase):
    """An archive as a binary file of its content; see `open`. Reading may seek: only the blocks needed are decoded."""

    def __init__(
        self,
        filename: str | bytes | os.PathLike[str] | IO[bytes],
        mode: str = "r",
        *,
        level: int = DEFAULT_LEVEL,
        model: Model | str | Path | None = None,
        threads: int = 0,
        memory: int = DEFAULT_MEMORY,
        max_output: int | None = None,
        block_size: int | None = None,
        independent: bool = False,
        check: bool = True,
        metadata: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """mode: r, w (replace), x (must not exist) or a (another member behind those there are), with b or without.
        progress: told now and then how many bytes of content are coded, or decoded in order. max_output: bytes of content
        that are read in order at most; wherever else something is read, there is no limit. The other arguments as for
        LMCompressor and LMDecompressor."""
        self._file: BinaryIO | None = None
        self._owned = False
        self._content: _ContentReader | None = None
        self._compressor: LMCompressor | None = None
        self._reader: io.BufferedReader | None = None
        self._written = 0
        self._lock = threading.RLock()  # between what moves the place where reading goes on and what reads there
        if mode not in ("r", "rb", "w", "wb", "x", "xb", "a", "ab"):
            raise ValueError(f"invalid mode: {mode!r}")
        self.mode = mode[0]
        if self.mode != "r":
            self._compressor = LMCompressor(
                level, model=model, threads=threads, block_size=block_size, independent=independent, memory=memory,
                check=check, metadata=metadata, progress=progress,
            )  # fmt: skip
        if isinstance(filename, (str, bytes, os.PathLike)):
            self._file = cast(BinaryIO, builtins.open(filename, self.mode + "b"))
            self._owned = True
        elif hasattr(filename, "read" if self.mode == "r" else "write"):
            self._file = cast(BinaryIO, filename)
        else:
            raise TypeError("filename must be a path or a binary file object")
        if self.mode == "r":
            self._content = _ContentReader(self._file, model, threads, memory, max_output, progress)
            self._reader = io.BufferedReader(self._content, _CHUNK)

    def close(self) -> None:
        """Writing: ends the member. Closes the file if it was opened by path."""
        file, self._file = self._file, None
        if file is None:
            return
        try:
            if self._compressor is not None:
                _write(file, self._compressor.flush())
            if self._reader is not None:
                self._reader.close()
        finally:
            self._compressor = self._reader = None
            if self._owned:
                file.close()

    @property
    def closed(self) -> bool:
        return self._file is None

    @property
    def engine_name(self) -> str | None:
        """The engine that coded or decoded, or None if no block needed one so far."""
        if self._compressor is not None:
            return self._compressor.engine_name
        return None if self._content is None else self._content.engine_name

    @property
    def name(self) -> str:
        return cast(str, self._open_file().name)

    def fileno(self) -> int:
        return self._open_file().fileno()

    def readable(self) -> bool:
        self._open_file()
        return self._reader is not None

    def writable(self) -> bool:
        self._open_file()
        return self._compressor is not None

    def seekable(self) -> bool:
        return self.readable() and self._to_read().seekable()

    def read(self, size: int | None = -1) -> bytes:
        with self._lock:
            return self._to_read().read(size)

    def read1(self, size: int = -1) -> bytes:
        with self._lock:
            return self._to_read().read1(size)

    def readinto(self, buffer: Any) -> int:
        with self._lock:
            return self._to_read().readinto(buffer)

    def readline(self, size: int | None = -1) -> bytes:
        with self._lock:
            return self._to_read().readline(-1 if size is None else size)

    def peek(self, size: int = 0) -> bytes:
        """Content ahead without moving on, at least one byte unless at the end."""
        with self._lock:
            return self._to_read().peek(size)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Decodes nothing yet. Where the file cannot seek, forwards only, by reading."""
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"invalid value for whence: {whence}")
        with self._lock:
            reader = self._to_read()
            if reader.seekable() or whence == io.SEEK_END:
                return reader.seek(offset, whence)
            skipped = offset - (reader.tell() if whence == io.SEEK_SET else 0)
            if skipped < 0:
                raise io.UnsupportedOperation("a stream cannot be read backwards")
            while skipped and (piece := reader.read(min(skipped, _CHUNK))):
                skipped -= len(piece)
            return reader.tell()

    def tell(self) -> int:
        self._open_file()
        return self._written if self._reader is None else self._reader.tell()

    def read_range(self, offset: int, size: int) -> bytes:
        """`size` bytes of content from `offset` on, fewer at the end; decodes only the blocks they are in. May be
        called from several threads, of which one at a time reads."""
        with self._lock:
            self.seek(offset)
            return self.read(size)

    def write(self, data: Any) -> int:
        if self._compressor is None:
            self._open_file()
            raise io.UnsupportedOperation("the file was not opened for writing")
        size = memoryview(data).nbytes
        self._put(self._compressor.compress(data))
        self._written += size
        return size

    def _put(self, data: bytes) -> None:
        """Writes what the compressor gave. What cannot be written is missing in the archive, which is none then."""
        assert self._compressor is not None
        try:
            _write(self._open_file(), data)
        except BaseException as error:
            self._compressor.abandon(error)
            raise

    def flush(self, mode: int = LMCompressor.CONTINUE) -> None:
        """Hands on what has been coded; with LMCompressor.FLUSH_BLOCK or FLUSH_FRAME after ending that. The default
        ends nothing, as text files flush whenever they please and every end costs bytes."""
        file = self._file
        if file is not None and self._compressor is not None:
            self._put(self._compressor.compress(b"", mode))
            file.flush()

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise ValueError("I/O operation on closed file")
        return self._file

    def _to_read(self) -> io.BufferedReader:
        if self._reader is None:
            self._open_file()
            raise io.UnsupportedOperation("the file was not opened for reading")
        return self._reader


@overload
def open(
    filename: str | bytes | os.PathLike[str] | IO[bytes],
    mode: Literal["r", "rb", "w", "wb", "x", "xb", "a", "ab"] = "rb",
    **options: Any,
) -> LMFile: ...
@overload
def open(
    filename: str | bytes | os.PathLike[str] | IO[bytes],
    mode: Literal["rt", "wt", "xt", "at"],
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **options: Any,
) -> io.TextIOWrapper: ...
@overload
def open(
    filename: str | bytes | os.PathLike[str] | IO[bytes],
    mode: str,
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **options: Any,
) -> LMFile | io.TextIOWrapper: ...
def open(
    filename: str | bytes | os.PathLike[str] | IO[bytes],
    mode: str = "rb",
    *,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
    **options: Any,
) -> LMFile | io.TextIOWrapper:
    """An archive as a file of its content: binary (rb, wb, xb, ab) or text (rt, wt, xt, at). `options` as for LMFile."""
    if "t" in mode and mode not in ("rt", "wt", "xt", "at"):
        raise ValueError(f"invalid mode: {mode!r}")
    if "t" not in mode and (encoding, errors, newline) != (None, None, None):
        raise ValueError("encoding, errors and newline are for text modes")
    file = LMFile(filename, mode.replace("t", ""), **options)
    return io.TextIOWrapper(file, encoding, errors, newline) if "t" in mode else file


@dataclass(frozen=True)
class BlockInfo:
    """One block: where its record is in the file, and what its content was."""

    method: str
    offset: int  # of the record, in the file
    coded_size: int  # bytes of the record
    raw_offset: int  # of its content in the whole archive's
    raw_size: int


@dataclass(frozen=True)
class MemberInfo:
    """One member of an archive."""

    version: int
    offset: int  # in the file
    coded_size: int
    raw_size: int
    blocks: list[BlockInfo]
    model_name: str | None
    model_digest: str | None  # SHA-256 of the model's file, hex
    digest: str  # the content's SHA-256 in hex, or its beginning, or nothing
    metadata: dict[str, str]


@dataclass(frozen=True)
class ArchiveInfo:
    """What an archive says of itself. Sizes in bytes."""

    raw_size: int
    coded_size: int
    members: list[MemberInfo]


def get_archive_info(archive: Buffer | str | os.PathLike[str] | BinaryIO) -> ArchiveInfo:
    """Reads headers, index and metadata; no content is decoded, and no model needed. `archive`: the bytes, a path, or
    a seekable file, which is read from its beginning. Raises CorruptError, UnsupportedError."""
    if isinstance(archive, (str, os.PathLike)):
        with builtins.open(archive, "rb") as file:
            return get_archive_info(file)
    if isinstance(archive, (bytes, bytearray, memoryview)):
        return get_archive_info(io.BytesIO(archive))
    members, raw_start = [], 0
    for member in read_members(archive):
        members.append(_member_info(archive, member, raw_start))
        raw_start += member.raw_size
    return ArchiveInfo(raw_start, sum(m.coded_size for m in members), members)


def _member_info(file: BinaryIO, member: Member, raw_start: int) -> MemberInfo:
    blocks, metadata = [], dict[str, str]()
    for i, raw_size in enumerate(member.raw_sizes):
        file.seek(member.offsets[i])
        kind, _ = parse_record_header(
            Reader(read_exactly(file, min(64, member.record_sizes[i]))), member.header.block_log
        )
        if kind <= LAST_METHOD:
            raw_offset = raw_start + member.raw_offsets[i]
            blocks.append(BlockInfo(METHODS[kind], member.offsets[i], member.record_sizes[i], raw_offset, raw_size))
        elif kind == METADATA:
            record = member.read(file, i)
            assert isinstance(record, Skippable)
            metadata |= record.metadata()
    header = member.header
    digest = None if header.model_digest is None else header.model_digest.hex()
    return MemberInfo(
        VERSION, member.start, member.end - member.start, member.raw_size, blocks, header.model_name or None, digest,
        member.digest.hex(), metadata,
    )  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """Content that cannot be had back. Unknown numbers are None."""

    offset: int  # in the file, where the damage was met
    raw_offset: int | None  # in the whole content
    raw_size: int | None  # bytes of content
    reason: str

    def __str__(self) -> str:
        if self.raw_size is None:
            where = "an unknown amount of content"
        elif self.raw_offset is None:
            where = f"{self.raw_size} bytes of the content"
        else:
            where = f"bytes {self.raw_offset} to {self.raw_offset + self.raw_size - 1} of the content"
        return f"{where} (at {self.offset} in the archive): {self.reason}"


@dataclass
class Recovery:
    """What `recover` found."""

    recovered: int = 0  # bytes of content that are intact
    lost: list[Loss] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # damage that costs no content

    @property
    def intact(self) -> bool:
        return not self.lost and not self.notes


def recover(
    archive: Buffer | str | os.PathLike[str] | BinaryIO,
    output: BinaryIO | None,
    *,
    model: Model | str | Path | None = None,
    threads: int = 0,
    memory: int = DEFAULT_MEMORY,
    max_output: int | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Writes every intact block of an archive, the bytes, a path or a seekable file from its beginning on, to `output`
    (None: only looks), one behind the other, and says what is lost. The index is used where it is sound; otherwise the
    whole file is searched for blocks. `progress` is told now and then how many bytes of content are behind. Raises LimitError, as that is no damage,
    and where nothing can be had for that reason alone MissingModelError, UnsupportedError."""
    if isinstance(archive, (str, os.PathLike)):
        with builtins.open(archive, "rb") as opened:
            return recover(
                opened, output, model=model, threads=threads, memory=memory, max_output=max_output, progress=progress
            )
    file = io.BytesIO(archive) if isinstance(archive, (bytes, bytearray, memoryview)) else archive
    result = Recovery()
    options = (model, threads, memory)
    unread: list[LMCompressError] = []  # what is not damage, and yet the reason of a loss
    unknown = False  # a header is what cannot be read, and no loss for another reason then
    try:
        blocks = _indexed_blocks(file, read_members(file, mend=True), options, result, progress, unread)
    except (CorruptError, UnsupportedError) as error:
        if unknown := isinstance(error, UnsupportedError):
            unread.append(error)
        result.notes.append(f"no sound index, searched for blocks: {error}")
        blocks = _scanned_blocks(file, options, result, progress, unread)
    for block in blocks:
        result.recovered += len(block)
        if max_output is not None and result.recovered > max_output:
            raise LimitError("the content is longer than allowed (--max-output, max_output=)")
        if output is not None:
            _write(output, block)
    if not result.recovered and unread and (unknown or len(unread) == len(result.lost)):
        raise unread[0]
    return result


Progress = Callable[[int], None]  # told bytes of content
_Options = tuple["Model | str | Path | None", int, int]


def _indexed_blocks(
    file: BinaryIO,
    members: list[Member],
    options: _Options,
    result: Recovery,
    progress: Progress | None,
    unread: list[LMCompressError],
) -> Iterator[bytes]:
    """The intact blocks of members whose index is sound."""
    raw_start = 0
    for member in members:
        file.seek(member.start)
        try:
            Header.parse(Reader(read_exactly(file, member.header_size)))
        except CorruptError as error:
            result.notes.append(f"at {member.start}: {error}; its copy is used")
        decoder = BlockDecoder(member.header, *options)
        digest, lost, history = hashlib.sha256(), len(result.lost), History(reach(member.header.block_log))
        for i, raw_size in enumerate(member.raw_sizes):
            number = history.number
            try:
                record = member.read(file, i)
                if isinstance(record, Block):
                    told = within(progress, raw_start + member.raw_offsets[i], raw_size)
                    data = decoder.decode(record, history, told)
                    digest.update(data)
                    yield data
            except (CorruptError, UnsupportedError, MissingModelError) as error:
                if not isinstance(error, CorruptError):
                    unread.append(error)
                if raw_size:
                    result.lost.append(Loss(member.offsets[i], raw_start + member.raw_offsets[i], raw_size, str(error)))
                    if history.number == number:
                        history.add(None)
                else:
                    result.notes.append(f"a record without content at {member.offsets[i]}: {error}")
        if len(result.lost) == lost and member.digest != digest.digest()[: len(member.digest)]:
            result.notes.append(f"every block of the member at {member.start} is sound, but not its SHA-256")
        raw_start += member.raw_size


def _scanned_blocks(
    file: BinaryIO,
    options: _Options,
    result: Recovery,
    progress: Progress | None,
    unread: list[LMCompressError],
) -> Iterator[bytes]:
    """The intact blocks that a search finds, whatever has become of headers and index."""
    header = _first_header(file)
    decoder, history = BlockDecoder(header, *options), History(reach(header.block_log))
    expected, raw_offset, known = 0, 0, True  # where the next record should begin, in the file and in the content
    mangled = False  # the last block was damaged: what is left of it makes no sense either
    start, losses = 0, 0  # where in the content the member began, how many losses there were before
    ended = False  # the last thing found was a footer
    for found in scan(file):
        if found.offset != expected and not mangled:
            result.lost.append(Loss(expected, None, None, f"{found.offset - expected} bytes that make no sense"))
            known = False  # from here on, blocks may be missing
        expected, mangled, ended = found.offset + found.size, found.damaged, isinstance(found.item, Footer)
        if isinstance(found.item, Header):
            decoder, history = BlockDecoder(found.item, *options), History(reach(found.item.block_log))
        elif isinstance(found.item, Footer):
            missing = sum(found.item.raw_sizes) - (raw_offset - start)
            if missing and losses == len(result.lost):
                result.lost.append(Loss(found.offset, None, max(missing, 0), "blocks are not those of the index"))
                known = False
            start, losses = raw_offset, len(result.lost)
        elif isinstance(found.item, Block) and found.item.raw_size:
            try:
                if found.damaged:
                    history.add(None)
                    raise CorruptError("a block's coded bytes are damaged (CRC-32), or missing")
                yield decoder.decode(found.item, history, within(progress, raw_offset, found.item.raw_size))
            except (CorruptError, UnsupportedError, MissingModelError) as error:
                if not isinstance(error, CorruptError):
                    unread.append(error)
                offset = raw_offset if known else None
                result.lost.append(Loss(found.offset, offset, found.item.raw_size, str(error)))
            raw_offset += found.item.raw_size
        elif found.damaged:
            result.notes.append(f"a record without content at {found.offset} is damaged")
    end = file.seek(0, io.SEEK_END)
    if not expected:
        result.notes[-1:] = ["not an lmcompress archive, or nothing of it is left"]
    elif expected != end and not mangled:
        result.lost.append(Loss(expected, None, None, f"{end - expected} bytes at the end that make no sense"))
    elif not ended and not mangled:
        result.lost.append(Loss(end, None, None, "the archive ends without a footer"))


def _first_header(file: BinaryIO) -> Header:
    """The first header in a damaged file, or the first copy of one where that comes earlier."""
    for found in scan(file):
        if isinstance(found.item, Header):
            return found.item
        if isinstance(found.item, Skippable) and found.item.kind == HEADER_COPY:
            with contextlib.suppress(CorruptError, UnsupportedError):
                return copied_header(found.item)
    return Header(MAX_BLOCK_LOG)

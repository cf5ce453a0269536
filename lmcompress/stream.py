"""Content to an archive and back in pieces of any size, in the shape of PEP 784's compression.zstd.

Knows: where a member's content is cut into blocks, what its digest is. Does not know: files.
Memory is bounded by the blocks that are coded at once (a few times their size), whatever the sizes of the pieces.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING

from lmcompress.bits import Buffer
from lmcompress.container import (
    DIGEST,
    MAX_BLOCK_LOG,
    METADATA,
    MIN_BLOCK_LOG,
    Block,
    Header,
    MemberParser,
    MemberWriter,
    Skippable,
)
from lmcompress.errors import CorruptError, LimitError, LMCompressError
from lmcompress.inorder import InOrder, Report
from lmcompress.methods import DEFAULT_LEVEL, DEFAULT_MEMORY, BlockDecoder, BlockEncoder, Coded, Opened, Repeated, count
from lmcompress.repeats import Finder, History, reach

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

BLOCK_SIZE = 8 << 20  # bytes of content, at most, where nobody says how many
LEAST_PART = 1 << 20  # bytes of content that is told to be shorter, and may grow
SMALL_CONTENT, SMALL_DIGEST = 1 << 16, 8  # bytes: below, the content's digest is cut, as it would outweigh the text
LM_HEADER = 40  # bytes, about: a header is longer by a model's digest and name and the codec's parameters


class LMCompressor:
    """Makes an archive of what `compress` is given.

    level: 1 (fast) to 9 (small). model: a shipped model's name, a file, or a Model, instead of the level's own.
    threads: 0 for as many as the machine has; they share blocks, and where these are fewer, the lanes of one.
    block_size: bytes of content coded together, from 1 KiB to 1 GiB; None: 8 MiB, or of content whose `size` is told in
    advance equal parts no larger. independent: no block copies from others, which each can be read without any other, and
    archives of what repeats itself over long distances are larger. memory: bytes that blocks coded at once may take; one at a
    time always is.
    check: end with the content's SHA-256 (blocks have their checksums in any case). metadata: key = value pairs that
    every member starts with. progress: told now and then how many bytes of the member's content are coded. `last_mode` is the
    mode of the last call of `compress`. Raises MissingModelError (also later, when the model is first needed), ValueError.
    """

    CONTINUE, FLUSH_BLOCK, FLUSH_FRAME = 0, 1, 2

    def __init__(
        self,
        level: int = DEFAULT_LEVEL,
        *,
        model: Model | str | Path | None = None,
        threads: int = 0,
        block_size: int | None = None,
        size: int | None = None,
        independent: bool = False,
        memory: int = DEFAULT_MEMORY,
        check: bool = True,
        metadata: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if size is not None and size < 0:
            raise ValueError(f"a size of {size}")
        if block_size is None:
            whole = size or BLOCK_SIZE
            block_size = max(LEAST_PART, -(-whole // -(-whole // BLOCK_SIZE)))
        if not all(isinstance(text, str) for pair in (metadata or {}).items() for text in pair):
            raise TypeError("keys and values of metadata are str")
        if not 1 << MIN_BLOCK_LOG <= index(block_size) <= 1 << MAX_BLOCK_LOG:
            raise ValueError(f"a block size of {block_size} is not in 2^{MIN_BLOCK_LOG}..2^{MAX_BLOCK_LOG}")
        self.last_mode = self.FLUSH_FRAME
        self._encoder = BlockEncoder(level, model, threads)
        self._block_size, self._blocks_expected = block_size, None if not size else -(-size // block_size)
        self._threads, self._memory, self._independent = count(threads), memory, independent
        self._check, self._metadata, self._progress = check, dict(metadata or {}), progress
        self._failure: BaseException | None = None  # what went wrong, as content was lost then
        self._begin()

    def _begin(self) -> None:
        self._pending = bytearray()
        self._writer: MemberWriter | None = None  # made with the first block, when it is known what the header must say
        self._digest = hashlib.sha256()
        self._size = self._coded = 0  # bytes of content, those of them that are in what was returned
        self._repeats = Finder(reach(_log(self._block_size)), self._independent)
        self._blocks: InOrder[tuple[bytes, Coded]] = InOrder(1)  # with their content

    def compress(self, data: Buffer, mode: int = CONTINUE) -> bytes:
        """Takes `data`; returns what can be written so far. FLUSH_BLOCK: everything given can be decoded from what
        was returned; FLUSH_FRAME: and the member ends, more data begins another. What it raises, it raises again and again:
        no archive is made that lacks something."""
        if mode not in (self.CONTINUE, self.FLUSH_BLOCK, self.FLUSH_FRAME):
            raise ValueError(f"mode {mode} is none of CONTINUE, FLUSH_BLOCK, FLUSH_FRAME")
        if self._failure is not None:
            raise self._failure
        view = memoryview(data).cast("B")
        try:
            return self._compress(view, mode)
        except BaseException as error:
            self.abandon(error)
            raise

    def abandon(self, error: BaseException) -> None:
        """For who could not write what was returned: from now on everything raises this error, as no archive can be made."""
        self._failure = error
        self._blocks.cancel()

    def _compress(self, view: memoryview, mode: int) -> bytes:
        out = []
        while len(view) > 0:
            # a full block waits for more, as the last block of a member may be coded otherwise
            if len(self._pending) == self._block_size:
                out.append(self._block(last=False))
            taken = self._block_size - len(self._pending)
            self._pending += view[:taken]
            view = view[taken:]
        if mode == self.FLUSH_BLOCK:
            if self._pending:
                out.append(self._block(last=False))
            while self._blocks:
                out.append(self._take())
        if mode == self.FLUSH_FRAME:
            out.append(self._finish())
        while self._blocks.ready:
            out.append(self._take())
        self.last_mode = mode
        return b"".join(out)

    def flush(self, mode: int = FLUSH_FRAME) -> bytes:
        """Ends the block or the member. A member without content is valid."""
        if mode not in (self.FLUSH_BLOCK, self.FLUSH_FRAME):
            raise ValueError(f"mode {mode} is neither FLUSH_BLOCK nor FLUSH_FRAME")
        return self.compress(b"", mode)

    @property
    def engine_name(self) -> str | None:
        """The engine that coded, or None if no block was given to one."""
        return self._encoder.engine_name

    def _start(self, header: Header) -> bytes:
        self._writer = MemberWriter(header)
        return self._writer.start() + (self._writer.metadata(self._metadata) if self._metadata else b"")

    def _block(self, last: bool) -> bytes:
        """Begins to code what is pending; returns what of the archive has to be written first."""
        raw = bytes(self._pending)
        self._pending.clear()
        self._digest.update(raw)
        self._size += len(raw)
        if last and self._writer is None:
            return self._sole(raw)
        out = b""
        if self._writer is None:
            loaded = self._encoder.loaded  # blocks to come may need it
            out = self._start(Header(_log(self._block_size), loaded.parameters, loaded.model_digest, loaded.model_name))
            most = min(self._threads, max(1, self._memory // self._encoder.memory(self._block_size)))
            self._blocks = InOrder(min(most, self._blocks_expected or most))
        while self._blocks.full:
            out += self._take()
        repeated = self._repeats.split(raw, last)
        self._blocks.add(partial(_encode, self._encoder, raw, repeated, max(1, self._threads // self._blocks.width)))
        return out

    def _sole(self, raw: bytes) -> bytes:
        """All of an archive of one block but its end."""
        repeated = self._repeats.split(raw, last=True)
        coded = self._encoder.encode(raw, repeated, LM_HEADER, within(self._progress, 0, len(raw)))
        block_log = _log(len(raw))
        if coded.needs_codec:
            loaded = self._encoder.loaded
            header = Header(block_log, loaded.parameters, loaded.model_digest, loaded.model_name)
        else:
            header = Header(block_log)
        return self._start(header) + self._record(raw, coded)

    def _take(self) -> bytes:
        """The next of the blocks that are being coded."""
        progress, start = self._progress, self._coded
        return self._record(*self._blocks.take(None if progress is None else lambda done: progress(start + done)))

    def _record(self, raw: bytes, coded: Coded) -> bytes:
        assert self._writer is not None
        self._coded += len(raw)
        if self._progress is not None:
            self._progress(self._coded + self._blocks.reported)
        return self._writer.block(coded.method, raw, coded.payload)

    def _finish(self) -> bytes:
        out = self._block(last=True) if self._pending else b""
        while self._blocks:
            out += self._take()
        if self._writer is None:
            out += self._start(Header(MIN_BLOCK_LOG))
        assert self._writer is not None
        size = 0 if not self._check else SMALL_DIGEST if self._size < SMALL_CONTENT else DIGEST
        out += self._writer.finish(self._digest.digest()[:size])
        self._begin()
        return out


def _log(block_size: int) -> int:
    return max(MIN_BLOCK_LOG, (block_size - 1).bit_length())


def _encode(encoder: BlockEncoder, raw: bytes, repeated: Repeated, threads: int, report: Report) -> tuple[bytes, Coded]:
    return raw, encoder.encode(raw, repeated, 0, within(report, 0, len(raw)), threads)


def within(progress: Callable[[int], None] | None, start: int, size: int) -> Callable[[float], None] | None:
    """Bytes for one who asks for bytes, of shares of the `size` bytes that follow `start`."""
    return None if progress is None else lambda share: progress(start + int(share * size))


class MemberDecoder:
    """One member's content, block by block, from bytes in pieces of any size. As many blocks are decoded at once as
    there are threads, as `memory` holds, and as were fed."""

    def __init__(self, model: Model | str | Path | None = None, threads: int = 0, memory: int = DEFAULT_MEMORY) -> None:
        if memory < 0:
            raise ValueError(f"a memory of {memory} bytes")
        self._model, self._threads, self._memory = model, count(threads), memory
        self._parser = MemberParser(memory)
        self._decoder: BlockDecoder | None = None
        self._digest = hashlib.sha256()
        self._expected: bytes | None = None  # what the member says of its digest, once it is read
        self.ahead = self._threads  # blocks that are read and begun before they are asked for, at most
        self._read: deque[Opened] = deque()
        self._blocks: InOrder[bytes] = InOrder(self._threads)  # literals of the first of them
        self._history: History | None = None
        self._failure: BaseException | None = None  # what is behind the last of them
        self.finished = False  # the member has ended, and its digest is right
        self.feed = self._parser.feed
        self.metadata: dict[str, str] = {}  # of the records that came so far

    @property
    def engine_name(self) -> str | None:
        """The engine that decoded, or None if no block needed one so far."""
        return None if self._decoder is None else self._decoder.engine_name

    @property
    def unused(self) -> bytes:
        """What was fed and not used; after the end, what follows the member."""
        return self._parser.unused

    def next(
        self, limit: int | None = None, progress: Callable[[int], None] | None = None, more: bool = False
    ) -> bytes | None:
        """The next block's content, or None when more must be fed or the member is finished (and its digest right).
        `progress` is told now and then how much of it, and of blocks behind it, is decoded. `more`: more can be fed
        without waiting, and is asked for while there are threads without a block. Raises LimitError when the block is
        longer than `limit`, and any LMCompressError."""
        if not self._fill(limit) and more and not self._parser.finished:
            return None
        self._begin()
        if self._blocks:
            assert self._decoder is not None and self._history is not None
            literal = self._blocks.take(progress)  # what fails here may be tried again
            try:
                data = self._decoder.content(self._read.popleft(), literal, self._history.source)
                self._history.add(literal)
                self._digest.update(data)
                return data
            except BaseException as error:
                self._failure = error
                self._read.clear()
                self._blocks.cancel()
                raise
        if self._failure is not None:
            raise self._failure
        if self._expected is not None and self._expected != self._digest.digest()[: len(self._expected)]:
            raise CorruptError("the content is not what was written (SHA-256)")
        self.finished = self._parser.finished
        return None

    def cancel(self) -> None:
        """Ends what is going on in threads; of no use afterwards."""
        self._blocks.cancel()

    def _fill(self, limit: int | None) -> bool:
        """Reads records until there are blocks enough, or memory is full, or something is wrong. False: more must be fed."""
        try:
            while (
                self._failure is None
                and len(self._read) < self.ahead
                and sum(opened.memory for opened in self._read) <= self._memory
            ):
                item = self._parser.next()
                if item is None:
                    return False
                if isinstance(item, Header):
                    self._decoder = BlockDecoder(item, self._model, self._threads, self._memory)
                    self._history = History(reach(item.block_log))
                elif isinstance(item, Block):
                    assert self._decoder is not None
                    opened = self._decoder.open(item)
                    if limit is not None and sum(o.block.raw_size for o in self._read) + item.raw_size > limit:
                        raise LimitError("the content is longer than allowed (--max-output, max_output=)")
                    self._read.append(opened)
                elif isinstance(item, Skippable):
                    if item.kind == METADATA:
                        self.metadata |= item.metadata()
                else:
                    self._expected = item
        except LMCompressError as error:
            self._failure = error
        return True

    def _begin(self) -> None:
        """Begins to decode what was read, as far as memory allows, but one block in any case."""
        begun, most, needed = len(self._blocks), 0, 0
        for opened in self._read:
            needed += opened.memory
            if most and needed > self._memory:
                break
            most += 1
        for opened in list(islice(self._read, begun, most)):
            assert self._decoder is not None
            job = partial(_decode, self._decoder, opened, max(1, self._threads // most))
            self._blocks.add(job, alone=most == 1)


def _decode(decoder: BlockDecoder, opened: Opened, threads: int, report: Report) -> bytes:
    return decoder.literal(opened, within(report, 0, opened.block.raw_size), threads)


class LMDecompressor:
    """Reads one member of an archive. model, threads: as for LMCompressor; a model given is used where its digest is
    the archive's. memory: bytes that blocks decoded at once may take. max_output: bytes of content at most."""

    def __init__(
        self,
        *,
        model: Model | str | Path | None = None,
        threads: int = 0,
        memory: int = DEFAULT_MEMORY,
        max_output: int | None = None,
    ) -> None:
        self._member = MemberDecoder(model, threads, memory)
        self._ready = memoryview(b"")  # content decoded and not yet returned
        self._left = max_output
        self._eof = False
        self._starving = True  # the last attempt at a block found too few bytes
        self._failure: BaseException | None = None  # what went wrong, as content was lost then

    @property
    def eof(self) -> bool:
        """True when the member has ended, everything in it was right, and all of it was returned."""
        return self._eof

    @property
    def needs_input(self) -> bool:
        """False when `decompress` can give more content without being given more bytes."""
        return not self._eof and not self._ready and self._starving

    @property
    def unused_data(self) -> bytes:
        """What follows the member; empty before its end."""
        return self._member.unused if self._eof else b""

    @property
    def metadata(self) -> dict[str, str]:
        """The member's key = value pairs, as far as they were read."""
        return self._member.metadata

    def decompress(self, data: Buffer, max_length: int = -1) -> bytes:
        """Content that `data` completes, at most `max_length` bytes if that is not negative; the rest comes with the
        next calls. Raises EOFError after the end, and any LMCompressError. What it raises, it raises again and again:
        nothing is left out."""
        if self._eof:
            raise EOFError("the member has ended")
        if self._failure is not None:
            raise self._failure
        try:
            return self._decompress(data, max_length)
        except BaseException as error:
            self._failure = error
            raise

    def _decompress(self, data: Buffer, max_length: int) -> bytes:
        self._member.feed(data)
        self._starving = False
        out = bytearray()
        while max_length < 0 or len(out) < max_length:
            if not self._ready:
                block = self._member.next(self._left)
                self._starving = block is None
                if block is None:
                    break
                if self._left is not None:
                    self._left -= len(block)
                self._ready = memoryview(block)
            taken = len(self._ready) if max_length < 0 else max_length - len(out)
            out += self._ready[:taken]
            self._ready = self._ready[taken:]
        self._eof = not self._ready and self._member.finished
        return bytes(out)

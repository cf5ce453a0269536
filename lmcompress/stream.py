"""Content to an archive and back in pieces of any size, in the shape of PEP 784's compression.zstd.

Knows: where a member's content is cut into blocks, what its digest is. Does not know: files.
Memory is bounded by one block in and out (a few times its size while it is coded), whatever the sizes of the pieces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lmcompress.bits import Buffer
from lmcompress.container import (
    DIGEST,
    LM,
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
from lmcompress.methods import DEFAULT_LEVEL, DEFAULT_MEMORY, BlockDecoder, BlockEncoder

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

BLOCK_SIZE = 8 << 20  # bytes of content
SMALL_CONTENT, SMALL_DIGEST = 1 << 16, 8  # bytes: below, the content's digest is cut, as it would outweigh the text
LM_HEADER = 40  # bytes, about: a header is longer by a model's digest and name and the codec's parameters


class LMCompressor:
    """Makes an archive of what `compress` is given.

    level: 1 (fast) to 9 (small). model: a shipped model's name, a file, or a Model, instead of the level's own.
    threads: 0 for as many as the machine has. block_size: bytes of content coded together, from 1 KiB to 1 GiB.
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
        block_size: int = BLOCK_SIZE,
        check: bool = True,
        metadata: Mapping[str, str] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        if not 1 << MIN_BLOCK_LOG <= block_size <= 1 << MAX_BLOCK_LOG:
            raise ValueError(f"a block size of {block_size} is not in 2^{MIN_BLOCK_LOG}..2^{MAX_BLOCK_LOG}")
        self.last_mode = self.FLUSH_FRAME
        self._encoder = BlockEncoder(level, model, threads)
        self._block_size, self._check, self._metadata = block_size, check, dict(metadata or {})
        self._progress = progress
        self._begin()

    def _begin(self) -> None:
        self._pending = bytearray()
        self._writer: MemberWriter | None = None  # made with the first block, when it is known what the header must say
        self._digest = hashlib.sha256()
        self._size = 0

    def compress(self, data: Buffer, mode: int = CONTINUE) -> bytes:
        """Takes `data`; returns what can be written so far. FLUSH_BLOCK: everything given can be decoded from what
        was returned; FLUSH_FRAME: and the member ends, more data begins another."""
        if mode not in (self.CONTINUE, self.FLUSH_BLOCK, self.FLUSH_FRAME):
            raise ValueError(f"mode {mode} is none of CONTINUE, FLUSH_BLOCK, FLUSH_FRAME")
        out = []
        view = memoryview(data).cast("B")
        while len(view) > 0:
            # a full block waits for more, as the last block of a member may be coded otherwise
            if len(self._pending) == self._block_size:
                out.append(self._block(last=False))
            taken = self._block_size - len(self._pending)
            self._pending += view[:taken]
            view = view[taken:]
        if mode == self.FLUSH_BLOCK and self._pending:
            out.append(self._block(last=False))
        if mode == self.FLUSH_FRAME:
            out.append(self._finish())
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
        raw = bytes(self._pending)
        self._pending.clear()
        self._digest.update(raw)
        start, sole = b"", last and self._writer is None
        method, payload = self._encoder.encode(
            raw, LM_HEADER if sole else 0, within(self._progress, self._size, len(raw))
        )
        self._size += len(raw)
        if self._progress is not None:
            self._progress(self._size)
        if self._writer is None:
            block_log = max(MIN_BLOCK_LOG, ((len(raw) if sole else self._block_size) - 1).bit_length())
            if sole and method != LM:
                header = Header(block_log)
            else:  # blocks to come may need the codec
                loaded = self._encoder.loaded
                header = Header(block_log, loaded.parameters, loaded.model_digest, loaded.model_name)
            start = self._start(header)
        assert self._writer is not None
        return start + self._writer.block(method, raw, payload)

    def _finish(self) -> bytes:
        out = self._block(last=True) if self._pending else b""
        if self._writer is None:
            out += self._start(Header(MIN_BLOCK_LOG))
        assert self._writer is not None
        size = 0 if not self._check else SMALL_DIGEST if self._size < SMALL_CONTENT else DIGEST
        out += self._writer.finish(self._digest.digest()[:size])
        self._begin()
        return out


def within(progress: Callable[[int], None] | None, start: int, size: int) -> Callable[[float], None] | None:
    """Bytes for one who asks for bytes, of shares of the `size` bytes that follow `start`."""
    return None if progress is None else lambda share: progress(start + int(share * size))


class MemberDecoder:
    """One member's content, block by block, from bytes in pieces of any size."""

    def __init__(self, model: Model | str | Path | None = None, threads: int = 0, memory: int = DEFAULT_MEMORY) -> None:
        self._model, self._threads, self._memory = model, threads, memory
        self._parser = MemberParser(memory)
        self._decoder: BlockDecoder | None = None
        self._digest = hashlib.sha256()
        self.feed = self._parser.feed
        self.metadata: dict[str, str] = {}  # of the records that came so far

    @property
    def engine_name(self) -> str | None:
        """The engine that decoded, or None if no block needed one so far."""
        return None if self._decoder is None else self._decoder.engine_name

    @property
    def finished(self) -> bool:
        return self._parser.finished

    @property
    def unused(self) -> bytes:
        """What was fed and not used; after the end, what follows the member."""
        return self._parser.unused

    def next(self, limit: int | None = None, progress: Callable[[int], None] | None = None) -> bytes | None:
        """The next block's content, or None when more must be fed or the member is finished (and its digest right).
        `progress` is told now and then how much of it is decoded. Raises LimitError when the block is longer than
        `limit`, and any LMCompressError."""
        while (item := self._parser.next()) is not None:
            if isinstance(item, Header):
                self._decoder = BlockDecoder(item, self._model, self._threads, self._memory)
            elif isinstance(item, Block):
                if limit is not None and item.raw_size > limit:
                    raise LimitError("the content is longer than allowed (max_output)")
                assert self._decoder is not None
                data = self._decoder.decode(item, within(progress, 0, item.raw_size))
                self._digest.update(data)
                return data
            elif isinstance(item, Skippable):
                if item.kind == METADATA:
                    self.metadata |= item.metadata()
            elif item != self._digest.digest()[: len(item)]:
                raise CorruptError("the content is not what was written (SHA-256)")
        return None


class LMDecompressor:
    """Reads one member of an archive. model, threads: as for LMCompressor; a model given is used where its digest is
    the archive's. memory: bytes that decoding one block may take. max_output: bytes of content at most."""

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
        self._failure: LMCompressError | None = None

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
        next calls. Raises EOFError after the end, and any LMCompressError, again and again: nothing is left out."""
        if self._eof:
            raise EOFError("the member has ended")
        if self._failure is not None:
            raise self._failure
        self._member.feed(data)
        self._starving = False
        out = bytearray()
        while max_length < 0 or len(out) < max_length:
            if not self._ready:
                try:
                    block = self._member.next(self._left)
                except LMCompressError as error:
                    self._failure = error
                    raise
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

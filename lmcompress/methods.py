"""One block's content <-> method and payload: the smallest of lm, with the network or without, zstd and stored, or lm
with noise put aside; of its literal where it repeats something.

Knows: levels, zstd, noise, repeats, where codecs and models come from (and imports them only when a block needs them). Does not know:
archives' layout, files. Nothing here falls back in silence: a model that is asked for and missing is MissingModelError.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from lmcompress import noise, repeats
from lmcompress.bits import Reader, Writer
from lmcompress.config import CodecConfig
from lmcompress.container import (
    LEARNED,
    LM,
    MIXED,
    MIXED_LEARNED,
    NEED_CODEC,
    REPEATING,
    STORED,
    ZSTD,
    Block,
    Header,
)
from lmcompress.errors import CorruptError, LimitError, MissingModelError

if TYPE_CHECKING:
    from lmcompress.codec import Progress
    from lmcompress.modelfile import Model


@dataclass(frozen=True)
class Level:
    """A point on the front of speed against size."""

    model: str  # name of a shipped model
    network: bool  # False: only the model's vocabulary is used, and what the text itself teaches
    mixer_bits: int  # log2 of the bytes of the mixer's tables; 0: the network alone
    lane_unit: int  # a block of n such units, in bytes of content, has sqrt(n) lanes; a power of two
    light: bool = False  # the mixer has fewer parts

    def codec(self) -> CodecConfig:
        return CodecConfig(self.lane_unit, self.mixer_bits, self.network, self.light)


LEVELS = {
    1: Level("fast", False, 26, 1 << 16, light=True),
    2: Level("fast", False, 27, 1 << 18),
    3: Level("fast", True, 25, 1 << 10),
    4: Level("fast", True, 26, 1 << 11),
    5: Level("fast", True, 27, 1 << 13),
    6: Level("default", True, 27, 1 << 12),
    7: Level("default", True, 27, 1 << 15),
    8: Level("default", True, 27, 1 << 18),
    9: Level("default", True, 28, 1 << 22),
}
DEFAULT_LEVEL = 6
DEFAULT_MEMORY = 1 << 30  # bytes that blocks coded at once may take
LM_FIXED = 7 << 23  # bytes that a model and what goes with it take

PROBE_LEVEL, BEST_LEVEL = 3, 19  # of zstd
MOST_WINDOW_LOG = 27  # what every zstd decoder allows
MAX_WINDOW = 1 << 31  # what is read
NOISE = 0.97  # a block whose probe leaves more than this is noise to every model
VOID = 0.0005  # a block whose probe leaves less than this is all repetition: a model takes minutes to save a few bytes
NOISE_SIZE = 1 << 16  # bytes; on less, trying everything is cheap
CODED_COST = 6  # bytes at least by which the record of a block that is not stored is longer: its size, its CRC
CLEAR_WIN = 0.72  # of the probe's size; where zstd's best is below this, the model is far below


class BlockCodec(Protocol):
    """What this module asks of codec.Codec."""

    engine_name: str

    def encode(self, data: bytes, progress: Progress | None = None, threads: int = 0) -> tuple[bool, bytes]: ...

    def decode(
        self, payload: bytes, raw_size: int, learned: bool = False, progress: Progress | None = None, threads: int = 0
    ) -> bytes: ...

    def memory(self, raw_size: int) -> int: ...


@dataclass(frozen=True)
class Loaded:
    """A codec and how a header names it."""

    codec: BlockCodec
    parameters: bytes
    model_digest: bytes | None
    model_name: str


@lru_cache(maxsize=2)
def load_for_writing(level: int, model: Model | str | Path | None, threads: int) -> Loaded:
    """The codec of a level, with another model if one is given. Raises MissingModelError, CorruptError."""
    from lmcompress import codec, modelfile

    point = LEVELS[level]
    chosen = point.model if model is None else model
    loaded = modelfile.given(chosen)
    config = point.codec()
    return Loaded(codec.Codec(loaded, config, threads), codec.pack(config), loaded.digest, loaded.name)


def load_for_reading(header: Header, model: Model | str | Path | None, threads: int, memory: int) -> BlockCodec:
    """The codec that a header names; its model is the given one if the digest fits, or one of the shipped. Raises
    LimitError when the codec alone takes more than `memory` bytes, MissingModelError, and CorruptError for a header that
    names no codec or a network without a model."""
    if header.codec is None:
        raise CorruptError("a block needs a codec, but the header names none")
    codec = _load_for_reading(header.codec, header.model_digest, model, threads, memory)
    if codec is None:
        assert header.model_digest is not None
        raise MissingModelError(
            f"the archive needs the model {header.model_name!r} with SHA-256 {header.model_digest.hex()}, "
            "which is not shipped with this version; give its file with --model (model=)"
        )
    return codec


@lru_cache(maxsize=2)
def _load_for_reading(
    parameters: bytes, digest: bytes | None, model: Model | str | Path | None, threads: int, memory: int
) -> BlockCodec | None:
    """None where the model is not here."""
    from lmcompress import codec, modelfile

    config = codec.unpack(parameters)
    if config.network and digest is None:
        raise CorruptError("the header names a network, but no model")
    needed = LM_FIXED + (5 << config.mixer_bits) // 4
    if needed > memory:
        raise LimitError(f"the archive needs {needed} bytes of memory, more than the {memory} allowed")
    loaded = None
    if digest is not None:
        given = None if model is None else modelfile.given(model)
        try:
            loaded = given if given is not None and given.digest == digest else modelfile.find(digest)
        except MissingModelError:
            return None
    return codec.Codec(loaded, config, threads)


def _forget() -> None:
    load_for_writing.cache_clear()
    _load_for_reading.cache_clear()


if hasattr(os, "register_at_fork"):  # a forked child must not wait for an engine that a thread of its parent was using
    os.register_at_fork(after_in_child=_forget)


def count(threads: int) -> int:
    """0 stands for as many as this process may use. Raises ValueError below."""
    if threads < 0:
        raise ValueError(f"{threads} threads")
    if threads:
        return threads
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Coded(NamedTuple):
    """A block as it will be written; its payload is shorter than its content unless that is stored."""

    method: int
    payload: bytes
    needs_codec: bool = False


Repeated = tuple[list[repeats.Copy], bytes]  # copies and literal of a content


class BlockEncoder:
    """Blocks of content to the smallest method's payload, several at once if called from several threads."""

    def __init__(self, level: int, model: Model | str | Path | None, threads: int) -> None:
        if level not in LEVELS:
            raise ValueError(f"level {level} is not in {min(LEVELS)}..{max(LEVELS)}")
        import zstandard  # noqa: F401  # what coding needs cannot be imported any more when the interpreter ends,

        from lmcompress import codec  # noqa: F401  # as it does when a file is closed then

        self._level, self._model, self._threads = level, model, count(threads)
        self.engine_name: str | None = None  # what ran, once something did

    @property
    def loaded(self) -> Loaded:
        return load_for_writing(self._level, self._model, self._threads)

    def memory(self, size: int) -> int:
        """Bytes that coding a block of that size takes at most, the model aside."""
        return 2 * size + self.loaded.codec.memory(size)

    def encode(
        self,
        content: bytes,
        repeated: Repeated | None = None,
        lm_cost: int = 0,
        progress: Progress | None = None,
        threads: int = 0,
    ) -> Coded:
        """A content; `repeated`: the copies and the literal that it is made of. `lm_cost`: bytes that the archive grows
        by elsewhere when a codec is needed. `progress` is told now and then what share is done. threads: 0 for all."""
        copies, literal = repeated or ([], content)
        coded = self._encode(literal, lm_cost, progress, threads) if literal else Coded(STORED, b"")
        if not copies:
            return coded
        table = repeats.pack(copies)
        head = Writer().varint(len(copies)).varint(len(table))
        payload = bytes(_put_plain(head, table).uint(coded.method, 1).put(coded.payload))
        if len(payload) + CODED_COST >= len(content):
            return Coded(STORED, content)
        return Coded(REPEATING, payload, coded.needs_codec)

    def _encode(self, data: bytes, lm_cost: int, progress: Progress | None, threads: int) -> Coded:
        probe = _zstd_compress(data, PROBE_LEVEL)
        clear = len(data) >= NOISE_SIZE and not VOID <= len(probe) / len(data) <= NOISE
        candidates = [(0, STORED, data), (CODED_COST, ZSTD, probe)]
        if not clear and len(data) > CODED_COST + lm_cost:
            candidates.append((CODED_COST + lm_cost, *self._by_model(data, progress, threads)))
        if len(candidates[-1][2]) > CLEAR_WIN * len(probe):
            candidates.append((CODED_COST, ZSTD, _zstd_compress(data, BEST_LEVEL)))
        _, method, payload = min(candidates, key=lambda c: c[0] + len(c[2]))  # the first of equals: it decodes fastest
        return Coded(method, payload, method in NEED_CODEC)

    def _by_model(self, data: bytes, progress: Progress | None, threads: int) -> tuple[int, bytes]:
        """LM, or MIXED where there is noise, or one of the two without the network, and the payload."""
        codec = self.loaded.codec
        self.engine_name = codec.engine_name
        parts, apart, rest = noise.split(data)
        learned, payload = codec.encode(rest, progress, threads)
        if not parts:
            return LEARNED if learned else LM, payload
        head = _put_plain(Writer(noise.pack(parts)), apart)
        return MIXED_LEARNED if learned else MIXED, bytes(head.put(payload))


@dataclass(frozen=True)
class Opened:
    """A block of which it is known what decoding it takes."""

    block: Block
    method: int  # of its literal, which is all of the content unless the block repeats something
    payload: bytes
    size: int  # bytes of the literal
    copies: list[repeats.Copy]
    memory: int  # bytes that decoding it takes at most, the model and other blocks' literals aside


class BlockDecoder:
    """Blocks back to content, of one header, several at once if called from several threads. `memory`: bytes that
    decoding one block may take, other blocks' literals aside."""

    def __init__(self, header: Header, model: Model | str | Path | None, threads: int, memory: int) -> None:
        self._header, self._model, self._threads, self._memory = header, model, count(threads), memory
        self.engine_name: str | None = None  # what ran, once something did

    @property
    def _codec(self) -> BlockCodec:
        return load_for_reading(self._header, self._model, self._threads, self._memory)

    def open(self, block: Block) -> Opened:
        """Raises CorruptError, LimitError, MissingModelError where it is clear at once that it cannot be decoded."""
        needed = 2 * block.raw_size + block.coded_size
        self._allow(needed)
        method, payload, size, copies = block.method, block.payload, block.raw_size, list[repeats.Copy]()
        if method == REPEATING:
            reader = Reader(payload)
            number = reader.varint(block.raw_size // repeats.LEAST)
            needed += number * repeats.COPY_MEMORY
            self._allow(needed)
            table = self._take_plain(reader, reader.varint(number * repeats.LONGEST), "repeats are")
            copies, size = repeats.parse(table, number, block.raw_size)
            method, payload = reader.uint(1), reader.rest()
            plain = method == STORED and len(payload) == size
            if number == 0 or not (plain or size and method in (ZSTD, *NEED_CODEC)):
                raise CorruptError("a block's literal is in a form that there is not")
        if method in NEED_CODEC:
            needed += self._codec.memory(size) - 2 * size
        else:
            needed += _window_memory(method, payload)
        self._allow(needed)
        return Opened(block, method, payload, size, copies, needed)

    def literal(self, opened: Opened, progress: Progress | None = None, threads: int = 0) -> bytes:
        """The block's literal; its content, checked, unless it repeats something. `threads` 0: with all. Raises
        CorruptError, MissingModelError, LimitError."""
        if opened.method in (STORED, ZSTD):
            data = _plain(opened.method, opened.payload, opened.size)
        else:
            codec = self._codec
            self.engine_name = codec.engine_name
            learned = opened.method in (LEARNED, MIXED_LEARNED)
            if opened.method in (LM, LEARNED):
                data = codec.decode(opened.payload, opened.size, learned, progress, threads)
            else:
                reader = Reader(opened.payload)
                parts, size = noise.parse(reader, opened.size)
                apart = self._take_plain(reader, sum(part.size for part in parts), "noise is")
                data = noise.join(parts, apart, codec.decode(reader.rest(), size, learned, progress, threads))
        if opened.block.method != REPEATING:
            opened.block.check_raw(data)
        return data

    def content(self, opened: Opened, literal: bytes, source: repeats.Source) -> bytes:
        """The block's content, checked, of its literal and those of blocks before it. Raises CorruptError."""
        if opened.block.method != REPEATING:
            return literal
        data = repeats.join(opened.copies, literal, source)
        opened.block.check_raw(data)
        return data

    def decode(self, block: Block, history: repeats.History, progress: Progress | None = None) -> bytes:
        """The block's content, checked; `history` is told of it, or that it is lost. Raises as the three above."""
        literal = None
        try:
            opened = self.open(block)
            literal = self.literal(opened, progress)
            return self.content(opened, literal, history.source)
        finally:
            history.add(literal)

    def _take_plain(self, reader: Reader, size: int, what: str) -> bytes:
        """What _put_plain() wrote, `size` bytes."""
        method = reader.uint(1)
        coded = reader.take(reader.varint(size))
        if method not in (STORED, ZSTD) or not coded or method == STORED and len(coded) != size:
            raise CorruptError(f"a block's {what} not what its parts say")
        self._allow(2 * size + len(coded) + _window_memory(method, coded))
        return _plain(method, coded, size)

    def _allow(self, needed: int) -> None:
        if needed > self._memory:
            raise LimitError(f"a block needs {needed} bytes of memory, more than the {self._memory} allowed")


def _put_plain(out: Writer, data: bytes) -> Writer:
    """A method, the size of what it gives, and that: zstd's or, where it is no longer, the data itself."""
    coded = _zstd_compress(data, PROBE_LEVEL)
    method, coded = (ZSTD, coded) if len(coded) < len(data) else (STORED, data)
    return out.uint(method, 1).varint(len(coded)).put(coded)


def _zstd_compress(data: bytes, level: int) -> bytes:
    """One frame (RFC 8878) without magic number, content size and checksum, which the block's record has, and without
    the frame header's descriptor, which is then always 0. Repeats are found at any distance (`zstd --long`)."""
    import zstandard

    parameters = zstandard.ZstdCompressionParameters.from_level(
        level,
        source_size=len(data),
        window_log=min(max((len(data) - 1).bit_length(), zstandard.WINDOWLOG_MIN), MOST_WINDOW_LOG),
        enable_ldm=True,
        format=zstandard.FORMAT_ZSTD1_MAGICLESS,
        write_content_size=False,
        write_checksum=False,
        write_dict_id=False,
    )
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(data)
    assert frame[:1] == b"\0"
    return frame[1:]


def _plain(method: int, payload: bytes, raw_size: int) -> bytes:
    return payload if method == STORED else _zstd_decompress(payload, raw_size)


def _zstd_decompress(payload: bytes, raw_size: int) -> bytes:
    import zstandard

    # without a content size in the frame, zstandard allocates raw_size bytes and what the window takes
    decompressor = zstandard.ZstdDecompressor(format=zstandard.FORMAT_ZSTD1_MAGICLESS, max_window_size=MAX_WINDOW)
    try:
        return decompressor.decompress(b"\0" + payload, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        if "not enough memory" in str(error):
            raise MemoryError(f"a zstd block needs {raw_size + _window(payload)} bytes of memory") from None
        raise CorruptError(f"a zstd block does not decode: {error}") from None


def _window_memory(method: int, payload: bytes) -> int:
    """Bytes that a block's or noise's window takes; 0 where there is none, or one that is refused."""
    window = _window(payload) if method == ZSTD and payload else 0
    return window if window <= MAX_WINDOW else 0


def _window(payload: bytes) -> int:
    """Bytes of a zstd block's window, by the descriptor that the payload begins with (RFC 8878, 3.1.1.1.2)."""
    exponent, mantissa = divmod(payload[0], 8)
    return (1 << 10 + exponent) // 8 * (8 + mantissa)

"""A codec to test the archive with: the interface of codec.Codec, zlib with a dictionary inside.

Knows nothing of models; it wins against zstd on text made of WORDS, as a model does on language.
"""

from __future__ import annotations

import hashlib
import random
import zlib
from typing import TYPE_CHECKING

from lmcompress import methods
from lmcompress.container import Header
from lmcompress.errors import CorruptError, MissingModelError

if TYPE_CHECKING:
    from lmcompress.codec import Progress

WORDS = (
    b"the quick brown fox jumps over a lazy dog while seven wizards of language quietly mix bowls of punctuation, "
    b"and nobody in the house remembers which of the old letters was written first; it is said that every archive "
)
DIGESTS = {"fake": hashlib.sha256(b"fake").digest(), "other": hashlib.sha256(b"other").digest()}


class FakeCodec:
    """codec.Codec's two functions. `decoded` counts blocks."""

    engine_name = "fake"
    decoded = 0

    def encode(self, data: bytes, progress: Progress | None = None, threads: int = 0) -> tuple[bool, bytes]:
        if progress is not None:
            progress(0.5)
        compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, WORDS)
        return False, compressor.compress(data) + compressor.flush()

    def decode(
        self, payload: bytes, raw_size: int, learned: bool = False, progress: Progress | None = None, threads: int = 0
    ) -> bytes:
        FakeCodec.decoded += 1
        if progress is not None:
            progress(0.5)
        decompressor = zlib.decompressobj(-15, WORDS)
        try:
            data = decompressor.decompress(payload, raw_size + 1)
        except zlib.error as error:
            raise CorruptError(str(error)) from None
        if len(data) != raw_size or not decompressor.eof:
            raise CorruptError("wrong size")
        return data

    def memory(self, raw_size: int) -> int:
        return 20 * raw_size


def load_for_writing(level: int, model: object, threads: int) -> methods.Loaded:
    chosen = methods.LEVELS[level].model if model is None else str(model)
    name = "fake" if chosen in {point.model for point in methods.LEVELS.values()} else chosen
    if name not in DIGESTS:
        raise MissingModelError(f"no model {model}")
    return methods.Loaded(FakeCodec(), b"\1\2\3", DIGESTS[name], name)


def load_for_reading(header: Header, model: object, threads: int, memory: int) -> FakeCodec:
    if header.codec is None:
        raise CorruptError("no codec")
    if header.codec != b"\1\2\3":
        raise CorruptError("unknown parameters")
    if header.model_digest not in (None, DIGESTS["fake"]) and header.model_digest != DIGESTS.get(str(model)):
        raise MissingModelError(f"needs the model {header.model_name!r}")
    return FakeCodec()


def install() -> None:
    """Replaces the real codec in this process, for commands started by tests."""
    methods.load_for_writing = load_for_writing  # type: ignore[assignment]
    methods.load_for_reading = load_for_reading  # type: ignore[assignment]


def text(size: int, seed: int = 0) -> bytes:
    """`size` bytes of words in a random order."""
    rng = random.Random(seed)
    words = WORDS.split(b" ")
    out = bytearray()
    while len(out) < size:
        out += b" ".join(rng.choices(words, k=64)) + b"\n"
    return bytes(out[:size])


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


if __name__ == "__main__":  # python -m tests.fakes ARGUMENTS is the command lmcompress with this codec
    import sys

    from lmcompress.cli import main

    install()
    main(sys.argv[1:])

"""Binary decisions and their exact probabilities to bytes and back: a range coder.

Knows: decisions, each a bit with P(bit = 1) = k / 2^24. Does not know: what is decided, how many decisions there are.

The bytes are one number in [0, 1), written in base 256, most significant digit first, without trailing zeros. Coding
narrows an interval [low, low + range), at first [0, 1 - 2^-64), once for each decision; the number is the one of fewest
digits in the last interval. It has no end mark: zeros follow it, and what else follows is never noticed. In units of 2^-64, before every decision range >= 2^32:

    scale = range >> 24                        # at least 256
    f0 = 2^24 - k - (1 if k < 2^23 else 0)     # the share of bit 0, in 2^-24; bit 1 has the rest: k, or k + 1 below a half
    bit 0: range = scale * f0
    bit 1: low += scale * f0; range = scale * (2^24 - f0)
    while range < 2^32: the unit becomes 2^-32 of what it was     # once at most, since scale * f >= 256

That is what constriction's RangeEncoder makes of Bernoulli(perfect=False) with p = k / 2^24, in float64: it gives bit 0
floor((1 - p) * (2^24 - 2)) + 1 shares, where nothing is rounded but the floor. Its words of 32 bits are the digits. Three backends
write and read these bytes: constriction; the C extension, whose loops decode whole steps with the compiled mixer and take it
where they run; and plain Python, which is the definition.

References: Martin, "Range encoding" (1979); constriction's src/stream/queue.rs for its state and what it does at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from lmcompress.errors import CorruptError

try:
    import constriction
except ImportError:
    constriction = None
try:
    from lmcompress import _native
except ImportError:
    _native = None  # type: ignore[assignment]

PRECISION = 24
ONE = 1 << PRECISION
MASK = (1 << 64) - 1
WORD = 1 << 32
IMPOSSIBLE = "no encoder writes this data"

BACKENDS: tuple[str, ...] = tuple(
    name for name, found in (("constriction", constriction), ("native", _native), ("plain", True)) if found
)  # those that work here, the default first


class _Encoder(Protocol):
    def encode(self, bits: np.ndarray, k: np.ndarray) -> None: ...

    def finish(self) -> bytes: ...


class _Decoder(Protocol):
    def decode(self, k: np.ndarray) -> np.ndarray: ...


class Encoder:
    """Codes decisions into one string of bytes. `backend` is one of BACKENDS; the bytes don't depend on it."""

    def __init__(self, backend: str = BACKENDS[0]) -> None:
        self.backend = backend
        self._coder: _Encoder = _ENCODERS[backend]()

    def encode(self, bits: np.ndarray, k: np.ndarray) -> None:
        """Code bits (uint8 [n], 0 or 1) with P(bit = 1) = k / 2^24 (uint32 [n], 1 to 2^24 - 1)."""
        self._coder.encode(bits, k)

    def finish(self) -> bytes:
        """What decodes to all decisions coded so far; nothing for no decisions. More may be coded after it."""
        return self._coder.finish()


class Decoder:
    """Reads what an Encoder wrote, given the same k in the same order, in calls of any size."""

    def __init__(self, data: bytes, backend: str = BACKENDS[0]) -> None:
        self.backend = backend
        self._coder: _Decoder = _DECODERS[backend](data)

    def decode(self, k: np.ndarray) -> np.ndarray:
        """The next decisions, uint8 [n], for k (uint32 [n], 1 to 2^24 - 1).

        Data that is wrong or too short gives wrong bits, or CorruptError where no encoder could have written it; after
        that error the decoder is of no use."""
        return self._coder.decode(k)

    @property
    def capsule(self) -> Any:
        """What the C extension's own loops read decisions with; None for other backends."""
        return self._coder.coder if isinstance(self._coder, _NativeDecoder) else None


def _number(words: bytes, low: int, width: int, carried: bool = False) -> bytes:
    """The shortest number in the interval [low, low + width), whose unit is the 8th byte after `words`.

    `carried`: the words already hold the carry that low + 2^32 - 1 >= 2^64 makes."""
    for digits in range(5):  # width >= 2^32, so 4 are enough
        step = 1 << (64 - 8 * digits)
        tail = -(-low // step) * step
        if tail < low + width:
            break
    if tail > MASK and not carried:
        kept = len(words.rstrip(b"\xff"))
        words = words[: kept - 1] + bytes([words[kept - 1] + 1]) + bytes(len(words) - kept)
    return (words + (tail & MASK).to_bytes(8, "big")).rstrip(b"\0")


class _PlainEncoder:
    def __init__(self) -> None:
        self.words: list[int] = []
        self.low = 0
        self.range = MASK  # >= 2^32 between decisions

    def encode(self, bits: np.ndarray, k: np.ndarray) -> None:
        for bit, k1 in zip(bits.tolist(), k.tolist(), strict=True):
            scale = self.range >> PRECISION
            split = scale * (ONE - k1 - (k1 < ONE // 2))
            if bit:
                self.low += split
                self.range = (scale << PRECISION) - split
            else:
                self.range = split
            if self.low > MASK:
                self.low &= MASK
                i = len(self.words) - 1
                while self.words[i] == WORD - 1:
                    self.words[i] = 0
                    i -= 1
                self.words[i] += 1
            if self.range < WORD:
                self.words.append(self.low >> 32)
                self.low = self.low % WORD << 32
                self.range <<= 32

    def finish(self) -> bytes:
        return _number(np.array(self.words, ">u4").tobytes(), self.low, self.range)


class _PlainDecoder:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 8  # next byte to read; zeros follow the data
        self.offset = int.from_bytes(data[:8].ljust(8, b"\0"), "big")  # number - low, < range for data of an encoder
        self.range = MASK

    def decode(self, k: np.ndarray) -> np.ndarray:
        bits = np.empty(len(k), np.uint8)
        for i, k1 in enumerate(k.tolist()):
            scale = self.range >> PRECISION
            split = scale * (ONE - k1 - (k1 < ONE // 2))
            if self.offset >= scale << PRECISION:
                raise CorruptError(IMPOSSIBLE)
            bits[i] = self.offset >= split
            if bits[i]:
                self.offset -= split
                self.range = (scale << PRECISION) - split
            else:
                self.range = split
            if self.range < WORD:
                word = int.from_bytes(self.data[self.at : self.at + 4].ljust(4, b"\0"), "big")
                self.at += 4
                self.offset = self.offset << 32 | word
                self.range <<= 32
        return bits


class _NativeEncoder:
    def __init__(self) -> None:
        self.coder = _native.range_encoder()

    def encode(self, bits: np.ndarray, k: np.ndarray) -> None:
        _native.range_encode(self.coder, bits, k)

    def finish(self) -> bytes:
        return _number(*_native.range_state(self.coder))


class _NativeDecoder:
    def __init__(self, data: bytes) -> None:
        self.coder = _native.range_decoder(data)

    def decode(self, k: np.ndarray) -> np.ndarray:
        bits = np.empty(len(k), np.uint8)
        if not _native.range_decode(self.coder, k, bits):
            raise CorruptError(IMPOSSIBLE)
        return bits


class _ConstrictionEncoder:
    def __init__(self) -> None:
        self.coder = constriction.stream.queue.RangeEncoder()
        self.model = constriction.stream.model.Bernoulli(perfect=False)

    def encode(self, bits: np.ndarray, k: np.ndarray) -> None:
        self.coder.encode(bits.astype(np.int32), self.model, k * (1 / ONE))

    def finish(self) -> bytes:
        n, (low, width) = self.coder.pos()
        words = self.coder.get_compressed()[:n].astype(">u4").tobytes()
        # get_compressed() ends the stream at low + 2^32 - 1 and carries accordingly
        return _number(words, low, width, carried=low + WORD - 1 > MASK)


class _ConstrictionDecoder:
    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + bytes(-len(data) % 4), ">u4").astype(np.uint32)
        self.coder = constriction.stream.queue.RangeDecoder(words)
        self.model = constriction.stream.model.Bernoulli(perfect=False)

    def decode(self, k: np.ndarray) -> np.ndarray:
        try:
            return self.coder.decode(self.model, k * (1 / ONE)).astype(np.uint8)
        except AssertionError as error:
            raise CorruptError(IMPOSSIBLE) from error


_ENCODERS: dict[str, type[_Encoder]] = {
    "constriction": _ConstrictionEncoder,
    "native": _NativeEncoder,
    "plain": _PlainEncoder,
}
_DECODERS: dict[str, Callable[[bytes], _Decoder]] = {
    "constriction": _ConstrictionDecoder,
    "native": _NativeDecoder,
    "plain": _PlainDecoder,
}

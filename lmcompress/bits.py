"""Integers, varints and checksums in bytes, every bound checked. Knows nothing of what they mean.

Integers are little-endian. A varint is LEB128: seven bits a byte, least significant first, the top bit set on every byte
but the last; only the shortest form is valid, so that every number has one encoding.
"""

from __future__ import annotations

import zlib

from lmcompress.errors import CorruptError, TruncatedError

Buffer = bytes | bytearray | memoryview

CRC_SIZE = 4  # bytes
MAX_VARINT = (1 << 63) - 1


def crc32(data: Buffer, start: int = 0) -> int:
    """CRC-32 as in gzip and PNG (ISO-HDLC), of `data` after what gave `start`."""
    return zlib.crc32(data, start)


def write_varint(value: int) -> bytes:
    """Raises ValueError if negative."""
    if value < 0:
        raise ValueError("varints are not negative")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Reader:
    """Reads from the front of `data`; `offset` bytes have been read. Raises TruncatedError past the end."""

    def __init__(self, data: Buffer, offset: int = 0) -> None:
        self.data = memoryview(data)
        self.offset = offset

    @property
    def remaining(self) -> int:
        return len(self.data) - self.offset

    def take(self, n: int) -> bytes:
        """The next `n` bytes."""
        if n > self.remaining:
            raise TruncatedError(f"{n} bytes expected, {self.remaining} left")
        self.offset += n
        return bytes(self.data[self.offset - n : self.offset])

    def uint(self, width: int) -> int:
        """An unsigned integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(self.remaining)

    def varint(self, limit: int = MAX_VARINT) -> int:
        """A varint of at most `limit`. Raises CorruptError above it, or when a shorter form exists."""
        value = shift = 0
        while True:
            byte = self.uint(1)
            value |= (byte & 0x7F) << shift
            if value > limit:
                raise CorruptError(f"a number above its limit of {limit}")
            if byte < 0x80:
                if byte == 0 and shift:
                    raise CorruptError("a number in more bytes than it needs")
                return value
            shift += 7
            if shift > limit.bit_length():
                raise CorruptError(f"a number above its limit of {limit}")


class Writer:
    """Appends to `data`, a bytearray."""

    def __init__(self, data: Buffer = b"") -> None:
        self.data = bytearray(data)

    def put(self, data: Buffer) -> Writer:
        self.data += data
        return self

    def uint(self, value: int, width: int) -> Writer:
        """An unsigned integer of `width` bytes. Raises OverflowError if it does not fit."""
        self.data += value.to_bytes(width, "little")
        return self

    def varint(self, value: int) -> Writer:
        """A varint. Raises ValueError if negative."""
        return self.put(write_varint(value))

    def crc(self, start: int = 0) -> Writer:
        """The CRC-32 of everything from `start` on."""
        return self.uint(crc32(memoryview(self.data)[start:]), CRC_SIZE)

    def __bytes__(self) -> bytes:
        return bytes(self.data)

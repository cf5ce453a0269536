"""Archives that must be refused: what is wrong with each, and the error it gives.

Made of the tests' fake codec's blocks; each starts from a sound archive and does one thing to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from lmcompress.bits import Writer, crc32
from lmcompress.container import (
    END,
    FOOTER,
    LEARNED,
    LM,
    MIXED,
    REPEATING,
    STORED,
    SYNC,
    ZSTD,
    Header,
    MemberWriter,
    pack_block,
)
from lmcompress.errors import (
    CorruptError,
    LimitError,
    LMCompressError,
    MissingModelError,
    TruncatedError,
    UnsupportedError,
)
from tests.fakes import DIGESTS

CONTENT = b"nothing but the truth "
DIGEST8 = hashlib.sha256(CONTENT).digest()[:8]


@dataclass(frozen=True)
class Bad:
    """One archive that must be refused with exactly this error."""

    name: str
    why: str
    data: bytes
    error: type[LMCompressError]


def sound(header: Header = Header(10)) -> tuple[bytes, bytes, bytes]:  # noqa: B008 - frozen
    """Header, one stored block, footer."""
    writer = MemberWriter(header)
    return writer.start(), writer.block(STORED, CONTENT, CONTENT), writer.finish(DIGEST8)


def one_block(kind: int, raw_size: int, payload: bytes, raw: bytes, header: Header = Header(10)) -> bytes:  # noqa: B008
    """A member of one block whose record says whatever it is told to, with CRCs that are right."""
    record = Writer(SYNC).uint(kind, 1).varint(raw_size)
    if kind != STORED:
        record.varint(len(payload)).uint(crc32(payload), 4)
    record.uint(crc32(raw), 4).crc().put(payload)
    writer = MemberWriter(header)
    return writer.start() + writer._record(bytes(record), raw_size) + writer.finish(b"")


def header_of(version: int, body: bytes) -> bytes:
    return bytes(Writer(bytes(Header(10))[:7]).uint(version, 1).uint(len(body), 1).put(body).crc())


def archives() -> Iterator[Bad]:
    """Every bad archive, in the order of the format's fields."""
    header, block, footer = sound()
    good = header + block + footer
    lm = Header(10, b"\1\2\3", bytes(32), "lost")
    yield Bad("nothing", "an empty file", b"", TruncatedError)
    yield Bad("text", "text instead of an archive", CONTENT * 9, CorruptError)
    yield Bad("magic-only", "the file ends in the magic bytes", header[:5], TruncatedError)
    yield Bad("mangled-crlf", "a transfer in text mode dropped the CR", good.replace(b"\r\n", b"\n"), CorruptError)
    yield Bad("version-2", "made by a later version", header_of(2, b"\0\12") + block + footer, UnsupportedError)
    yield Bad("flag-2", "a reserved flag is set", header_of(1, b"\4\12") + block + footer, UnsupportedError)
    yield Bad("block-log-9", "blocks smaller than allowed", header_of(1, b"\0\11") + block + footer, CorruptError)
    yield Bad("block-log-31", "blocks larger than allowed", header_of(1, b"\0\37") + block + footer, CorruptError)
    yield Bad("header-long", "a header with a field too many", header_of(1, b"\0\12\0") + block + footer, CorruptError)
    yield Bad("header-short", "a header without its block size", header_of(1, b"\0") + block + footer, CorruptError)
    yield Bad(
        "model-without-codec", "a model for no codec", header_of(1, b"\2\12" + bytes(32) + b"\0") + block, CorruptError
    )
    yield Bad(
        "escape-in-name", "a model's name that plays with the terminal",
        header_of(1, b"\3\12\0" + bytes(32) + b"\4\33[2J") + block + footer, CorruptError,
    )  # fmt: skip
    yield Bad(
        "header-crc", "one bit of the header", header[:-1] + bytes([header[-1] ^ 1]) + block + footer, CorruptError
    )
    yield Bad("no-sync", "something between header and block", header + b"\0" + block + footer, CorruptError)
    yield Bad("kind-129", "a record of a reserved kind", header + SYNC + b"\x81" + block[3:] + footer, CorruptError)
    yield Bad("method-7", "a block of a method to come", one_block(7, 22, b"x", CONTENT), UnsupportedError)
    yield Bad("empty-block", "a block of no content", one_block(STORED, 0, b"", b""), CorruptError)
    yield Bad(
        "oversized-block",
        "longer than the header allows",
        one_block(STORED, 1025, bytes(1025), bytes(1025)),
        CorruptError,
    )
    yield Bad(
        "coded-not-smaller", "a payload as long as its content", one_block(ZSTD, 22, CONTENT, CONTENT), CorruptError
    )
    yield Bad(
        "varint-long", "a size in more bytes than it needs",
        header + bytes(Writer(SYNC).uint(STORED, 1).put(b"\x96\0").uint(crc32(CONTENT), 4).crc().put(CONTENT)), CorruptError,
    )  # fmt: skip
    yield Bad(
        "record-crc", "one bit of a record's header", header + block[:4] + b"\1" + block[5:] + footer, CorruptError
    )
    yield Bad("payload", "one bit of a payload", header + block[:-1] + b"!" + footer, CorruptError)
    yield Bad("payload-cut", "the file ends in a payload", header + block[:-3], TruncatedError)
    yield Bad("zstd-garbage", "a zstd payload that is none", one_block(ZSTD, 22, b"garbage", CONTENT), CorruptError)
    yield Bad(
        "zstd-window",
        "a zstd payload with a window of 3 TiB",
        one_block(ZSTD, 22, b"\xff\1\0\0", CONTENT),
        CorruptError,
    )
    yield Bad(
        "zstd-bomb", "a zstd payload with more content than stated",
        one_block(ZSTD, 22, bytes.fromhex("00 4b 00 00 41"), CONTENT), CorruptError,
    )  # fmt: skip
    yield Bad(
        "zstd-wrong", "a zstd payload of other content",
        one_block(ZSTD, 22, bytes.fromhex("00 b3 00 00 41"), CONTENT), CorruptError,
    )  # fmt: skip
    yield Bad(
        "lm-without-codec", "an lm block, but no codec parameters", one_block(LM, 22, b"x", CONTENT), CorruptError
    )
    yield Bad(
        "lm-without-model", "made with a model nobody has", one_block(LM, 22, b"x", CONTENT, lm), MissingModelError
    )
    fake = Header(10, b"\1\2\3", DIGESTS["fake"], "fake")
    yield Bad("mixed-without-codec", "as an lm block", one_block(MIXED, 22, b"x", CONTENT), CorruptError)
    yield Bad("learned-without-codec", "as an lm block", one_block(LEARNED, 22, b"x", CONTENT), CorruptError)
    yield Bad("learned-without-model", "as an lm block", one_block(LEARNED, 22, b"x", CONTENT, lm), MissingModelError)
    yield Bad(
        "mixed-too-long", "noise of more bytes than the block has",
        one_block(MIXED, 22, b"\1\0\x17\0\0\1x", CONTENT, fake), CorruptError,
    )  # fmt: skip
    yield Bad(
        "mixed-short", "less noise than its part has",
        one_block(MIXED, 22, b"\1\0\x15\0\0\1x", CONTENT, fake), CorruptError,
    )  # fmt: skip
    again = 600 * b"x"
    for name, why, payload in (
        ("none", "a repeating block without copies", b"\0\0\0\0\0" + again[9:]),
        ("itself", "a repeating block whose literal repeats something", b"\1\4\0\4\0\0\0\0\6" + again[256:]),
        ("far", "a copy of a block that there is not", b"\1\4\0\4\0\0\1\0\0" + again[256:]),
        ("more", "a copy of more than there is", b"\1\5\0\5\0\x90\1\0\0\0" + again[400:]),
        ("late", "a copy behind the end of the literal", b"\1\5\0\5\x64\x90\2\0\0\0" + again[528:]),
        ("codec", "a literal that needs a codec, but there are no parameters", b"\1\4\0\4\0\0\0\0\2x"),
    ):
        yield Bad(f"repeating-{name}", why, one_block(REPEATING, len(again), payload, again), CorruptError)
    yield Bad(
        "block-of-1-GiB", "a block for which more memory is needed than allowed",
        bytes(Header(30)) + pack_block(ZSTD, bytes(1 << 25), b"x"), LimitError,
    )  # fmt: skip
    yield Bad("no-footer", "the file ends behind a block", header + block, TruncatedError)
    yield Bad("footer-cut", "the file ends in the footer", good[:-1], TruncatedError)
    yield Bad("footer-crc", "one bit of the digest", header + block + footer[:5] + b"!" + footer[6:], CorruptError)
    yield Bad("other-footer", "the footer of another archive", header + block + sound(lm)[2], CorruptError)
    writer = MemberWriter(Header(10))
    parts = writer.start() + writer.block(STORED, CONTENT, CONTENT)
    yield Bad("digest", "the SHA-256 of other content", parts + writer.finish(bytes(8)), CorruptError)
    yield Bad(
        "digest-33",
        "a digest longer than SHA-256",
        header + block + SYNC + bytes([FOOTER, 33]) + bytes(60),
        CorruptError,
    )
    yield Bad("block-missing", "a block was taken out", header + footer, CorruptError)
    yield Bad("block-twice", "a block was put in twice", header + block + block + footer, CorruptError)
    yield Bad("garbage-behind", "something follows the archive", good + b"\0", CorruptError)
    yield Bad("magic-behind", "a second member that ends in its magic", good + header[:7], TruncatedError)
    yield Bad("end-marks-behind", "end marks without a footer", good + END * 9, CorruptError)

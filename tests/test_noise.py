"""Noise apart from the rest: what is found, that it comes back, and blocks that have some."""

from __future__ import annotations

import base64
import random
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lmcompress
from lmcompress import methods, noise
from lmcompress.bits import Reader, Writer, crc32
from lmcompress.container import MIXED, MIXED_LEARNED, STORED, ZSTD, Block, Header
from lmcompress.errors import CorruptError, LimitError
from lmcompress.noise import Part
from lmcompress.repeats import History

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
PROSE = (SAMPLES / "alice29.txt").read_bytes()[20_000:50_000]
CHINESE = (SAMPLES / "chinese_classic.txt").read_bytes()[:30_000].decode("utf-8", "ignore")
NOISE = random.Random(0).randbytes(20_000)
CRLF = b"\r\n"

WRITTEN = {  # ways to write noise, with what they look like in parts
    "as it is": (lambda data: data, None, False),
    "lines": (base64.encodebytes, 76, False),
    "lines with CR LF": (lambda data: base64.encodebytes(data).replace(b"\n", CRLF), 76, True),
    "lines of 64": (lambda data: b"".join(base64.b64encode(data[i : i + 48]) + b"\n" for i in range(0, len(data), 48)), 64, False),
    "one run": (base64.b64encode, 0, False),
}  # fmt: skip


def there_and_back(content: bytes) -> tuple[list[Part], bytes, bytes]:
    parts, apart, rest = noise.split(content)
    assert noise.join(parts, apart, rest) == content
    assert noise.parse(Reader(noise.pack(parts)), len(content)) == (parts, len(rest))
    return parts, apart, rest


@pytest.mark.parametrize("how", WRITTEN)
@pytest.mark.parametrize("size", [20_000, 19_999, 19_998, 9_000])
def test_noise_in_text_is_found(how: str, size: int) -> None:
    write, line, crlf = WRITTEN[how]
    data = NOISE[:size]
    parts, apart, rest = there_and_back(PROSE[:5000] + b"\n" + write(data) + b"\n" + PROSE[5000:9000])
    assert [(part.line, part.crlf) for part in parts] == [(line, crlf)]
    if line is None:  # but for its ends
        assert abs(len(data) - len(apart)) < 2 * noise.STEP and apart[noise.STEP : -noise.STEP] in data
    else:
        assert apart == data and rest == PROSE[:5000] + b"\n\n" + PROSE[5000:9000]


def test_several_parts() -> None:
    png = base64.b64encode(NOISE[:3001])
    content = b'{"a": "' + png + b'\\n",\n"b": "' + png + b'"}\n' + NOISE[:9000] + PROSE + zlib.compress(PROSE, 9)
    parts, apart, rest = there_and_back(content)
    assert [part.line for part in parts] == [0, 0, None, None] and len(apart) > 6002 + 9000 + 9000
    assert rest.startswith(b'{"a": "\\n",\n"b": ""}\n') and len(rest) < len(PROSE) + 4 * noise.WINDOW


@pytest.mark.parametrize(
    "content",
    [
        b"", b"a", NOISE[:500], PROSE, CHINESE.encode(), CHINESE.encode("gbk", "ignore"), CHINESE.encode("utf-16-le"),
        base64.encodebytes(PROSE), base64.b64encode(CHINESE.encode()), bytes(range(256)) * 100, b"A" * 9000,
        base64.b64encode(NOISE)[:1000], base64.b64encode(NOISE)[:5001], NOISE.hex().encode(), b"A" * 76 + b"\n",
        base64.b64encode(NOISE).replace(b"A", b"-").replace(b"B", b"_"),
    ],
    ids=range(16),
)  # fmt: skip
def test_what_is_no_noise_is_left(content: bytes) -> None:
    assert there_and_back(content) == ([], b"", content)


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from([*WRITTEN, "text", "breaks"]), st.integers(0, 9000), st.integers(0, 4000)), max_size=6
    )
)
def test_anything_comes_back(pieces: list[tuple[str, int, int]]) -> None:
    content = b""
    for how, size, start in pieces:
        if how in WRITTEN:
            content += WRITTEN[how][0](NOISE[start : start + size])
        else:
            content += PROSE[start : start + size] if how == "text" else b"\n\r\n="
    there_and_back(content)


@pytest.mark.parametrize(
    "numbers",
    [
        (1, 0, 0, 0),  # of nothing
        (1, 0, 10_001, 0),  # longer than the block
        (1, 6000, 5000, 0),
        (2, 0, 5000, 0, 0, 5001, 0),
        (2, 3000, 5000, 0, 3000, 1, 0),  # begins behind the rest
        (1, 0, 7501, 1),  # 10,004 letters
        (1, 0, 7500, 1 + 2 * 76),  # 10,000 letters and their line ends
        (1, 0, 3000, 2),  # CR LF without lines
        (1, 0, 3000, 1 + 2 * 59),  # lines too short to be any
        (1 << 40,),
        (3, 0, 1, 0),  # fewer than it says
        (10, *(0, 1, 0) * 10),  # more than a content of that size can have
    ],
)
def test_parts_that_cannot_be_are_refused(numbers: tuple[int, ...]) -> None:
    out = Writer()
    for number in numbers:
        out.varint(number)
    with pytest.raises(CorruptError):
        noise.parse(Reader(out.data), 10_000)


CONTENT = PROSE + NOISE + base64.encodebytes(NOISE[:9000]) + PROSE[:3000]


def coded(content: bytes) -> tuple[int, bytes]:
    return methods.BlockEncoder(1, None, 1).encode(content)[:2]


def test_a_block_with_noise_is_mixed() -> None:
    method, payload = coded(CONTENT)
    assert method == MIXED
    assert len(payload) < len(coded(PROSE + PROSE[:3000])[1]) + len(NOISE) + 9000 + 2 * noise.STEP
    archive = lmcompress.compress(CONTENT, 1)
    assert lmcompress.decompress(archive) == CONTENT
    assert coded(PROSE)[0] != MIXED != coded(NOISE)[0]


def test_what_is_between_noise_may_do_without_the_network() -> None:
    numbers = random.Random(1)
    content = b"".join(b"%.9f\n" % numbers.random() for _ in range(900)) + NOISE
    method, payload, _ = methods.BlockEncoder(3, None, 1).encode(content)
    assert method == MIXED_LEARNED
    block = Block(method, len(content), len(payload), crc32(content), 0, payload)
    assert decoded(block, 1 << 28, 3) == content
    with pytest.raises(CorruptError):
        decoded(replace(block, method=MIXED), 1 << 28, 3)


def test_noise_that_comes_again_is_coded_once() -> None:
    once, twice = (len(coded(n * (PROSE[:9000] + NOISE))[1]) for n in (1, 2))
    assert twice - once < 1000


def decoded(block: Block, memory: int, level: int = 1) -> bytes:
    loaded = methods.load_for_writing(level, None, 1)
    header = Header(20, loaded.parameters, loaded.model_digest, loaded.model_name)
    return methods.BlockDecoder(header, None, 1, memory).decode(block, History(0))


def test_mixed_blocks_keep_to_the_memory_allowed() -> None:
    method, payload = coded(PROSE + 2 * NOISE)
    with pytest.raises(LimitError):  # as lm blocks do
        decoded(Block(method, len(PROSE + 2 * NOISE), len(payload), 0, 0, payload), 1 << 20)
    head = noise.pack([Part(0, 9000)]) + bytes([ZSTD, 2]) + b"\x88\0"  # a window of 128 MiB
    with pytest.raises(LimitError, match="1342"):
        decoded(Block(MIXED, 10_000, len(head), 0, 0, head), 1 << 27)


@pytest.mark.parametrize(
    "head",
    [
        noise.pack([Part(0, 9000)]) + b"\2\1x",  # by no method that noise has
        noise.pack([Part(0, 9000)]) + bytes([STORED]) + b"\1x",  # shorter than its part
        noise.pack([Part(0, 9000)]) + bytes([ZSTD]) + b"\0",
        noise.pack([Part(0, 9000)]) + bytes([ZSTD]) + b"\4\0\0\0\0",
        noise.pack([Part(0, 9000)]) + bytes([STORED]),
        noise.pack([Part(0, 10_000)]) + bytes([STORED]) + bytes(Writer().varint(10_000).put(NOISE[:10_000])) + b"rest",
    ],
    ids=range(6),
)
def test_noise_that_is_not_as_its_parts_say_is_refused(head: bytes) -> None:
    with pytest.raises(CorruptError):
        decoded(Block(MIXED, 10_000, len(head), 0, 0, head), 1 << 28)

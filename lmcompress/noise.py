"""Content that has parts which no model can predict: these apart, and the rest.

Knows: what looks like noise (compressed images and documents, keys), as it is or in base64. Does not know: models, methods.
Noise goes past the model: it would only be slower to write, and its bytes would stand between the text's.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

from lmcompress import base64lines
from lmcompress.base64lines import LETTERS, LONG, end_of
from lmcompress.bits import Reader, Writer
from lmcompress.errors import CorruptError

WINDOW, STEP = 4096, 512  # bytes that are looked at together; by which ends are found
INCOMPRESSIBLE = 0.97  # of its size, from which on what zlib leaves says noise
VARIED = 190  # different bytes in 512 of noise, at least (it has about 221, prose 50)
SHORTEST = 1024  # letters of base64; of other noise a window

_BASE64 = re.compile(base64lines.LINES + rb"|(?<!%b)%b{%d,}={0,2}" % (LETTERS, LETTERS, SHORTEST))
_AS_A = re.sub(rb"(?s)%b|[=\r\n]|(.)" % LETTERS, lambda byte: b" " if byte[1] else b"A", bytes(range(256)))

Place = tuple[int, int, int | None, bool, bytes]  # where it begins and ends in a content, line, crlf, the noise


@dataclass(frozen=True)
class Part:
    """Noise in a content. `line`: of base64, letters in a line, 0 for one run of them without an end; None where the noise
    stands as it is."""

    start: int  # in what of the content is not noise
    size: int  # bytes of noise
    line: int | None = None
    crlf: bool = False

    @property
    def end(self) -> bytes:
        """What is behind each line."""
        return b"" if not self.line else b"\r\n" if self.crlf else b"\n"

    @property
    def content_size(self) -> int:
        """Bytes of the content that it makes."""
        return self.size if self.line is None else base64lines.size(self.size, self.line, self.end)

    def content(self, noise: bytes) -> bytes:
        """What the content has for it."""
        if self.line is None:
            return noise
        return base64lines.write(noise, self.line, self.end)


def split(content: bytes) -> tuple[list[Part], bytes, bytes]:
    """The parts that are noise, their noise, the rest."""
    parts: list[Part] = []
    noise, rest, done, left = [], [], 0, 0
    for start, end, line, crlf, found in sorted(_as_it_is(content) + _in_base64(content), key=lambda place: place[0]):
        if start >= done:
            left += start - done
            parts.append(Part(left, len(found), line, crlf))
            noise.append(found)
            rest.append(content[done:start])
            done = end
    return parts, b"".join(noise), b"".join([*rest, content[done:]])


def join(parts: list[Part], noise: bytes, rest: bytes) -> bytes:
    """The content again; `parts` as parse() allows them."""
    out, done, used = [], 0, 0
    for part in parts:
        out += [rest[done : part.start], part.content(noise[used : used + part.size])]
        done, used = part.start, used + part.size
    return b"".join([*out, rest[done:]])


def pack(parts: list[Part]) -> bytes:
    """How many, and for each: bytes of the rest since the last one, of noise, and 0 or 1 + twice the length of a line of
    base64 + whether CR LF ends it; all varints."""
    out, done = Writer().varint(len(parts)), 0
    for part in parts:
        coded = 0 if part.line is None else 1 + 2 * part.line + part.crlf
        out.varint(part.start - done).varint(part.size).varint(coded)
        done = part.start
    return bytes(out)


def parse(reader: Reader, content_size: int) -> tuple[list[Part], int]:
    """The parts, and the size of the rest, of a content of so many bytes. Raises CorruptError where they do not fit it."""
    parts: list[Part] = []
    start, left = 0, content_size
    for _ in range(reader.varint(content_size // SHORTEST)):
        start += reader.varint(content_size)
        size, coded = reader.varint(content_size), reader.varint(2 * content_size + 2)
        part = Part(start, size, (coded - 1) // 2, coded % 2 == 0) if coded else Part(start, size)
        if size == 0 or part.crlf and not part.line or part.line and part.line < LONG:
            raise CorruptError("a block has noise in a form that there is not")
        left -= part.content_size
        parts.append(part)
        if left < start:
            raise CorruptError("a block's parts are longer than the block")
    return parts, left


def _as_it_is(content: bytes) -> list[Place]:
    places: list[list[int]] = []
    for start in range(0, len(content) - WINDOW + 1, WINDOW):
        if _is_varied(content[start : start + STEP]) and _is_noise(content[start : start + WINDOW]):
            if not places or places[-1][1] < start:
                places.append([start, start])
            places[-1][1] = start + WINDOW
    done = 0
    result: list[Place] = []
    for start, end in places:
        for _ in range(1, WINDOW // STEP):  # windows beside are no noise as a whole
            start -= STEP * (start - STEP >= done and _is_varied(content[start - STEP : start]))
            end += STEP * (end + STEP <= len(content) and _is_varied(content[end : end + STEP]))
        result.append((start, end, None, False, content[start:end]))
        done = end
    return result


def _in_base64(content: bytes) -> list[Place]:
    result: list[Place] = []
    if b"A" * SHORTEST not in content.translate(_AS_A):  # much faster than the search below
        return result
    for run in _BASE64.finditer(content):
        if len(run[0]) < SHORTEST:
            continue
        first = run[0][: run[0].find(b"\n") + 1]
        end = end_of(first)
        line = len(first) - len(end)
        noise = base64lines.read(run[0], line, end)
        if noise is not None and _is_noise(noise):
            result.append((*run.span(), line, end == b"\r\n", noise))
    return result


def _is_varied(sample: bytes) -> bool:
    return len(set(sample)) > VARIED


def _is_noise(sample: bytes) -> bool:
    return len(zlib.compress(sample, 1)) > INCOMPRESSIBLE * len(sample)

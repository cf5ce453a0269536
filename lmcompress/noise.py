"""Content that has parts which no model can predict: these apart, and the rest.

Knows: what looks like noise (compressed images and documents, keys), as it is or in base64. Does not know: models, methods.
Noise goes past the model: it would only be slower to write, and its bytes would stand between the text's.
"""

from __future__ import annotations

import re
import zlib
from base64 import b64decode, b64encode
from binascii import Error
from dataclasses import dataclass

from lmcompress.bits import Reader, Writer
from lmcompress.errors import CorruptError

WINDOW, STEP = 4096, 512  # bytes that are looked at together; by which ends are found
INCOMPRESSIBLE = 0.97  # of its size, from which on what zlib leaves says noise
VARIED = 190  # different bytes in 512 of noise, at least (it has about 221, prose 50)
SHORTEST = 1024  # letters of base64
LONG_LINE = 60  # letters of a line of base64, at least

_LETTERS = rb"[A-Za-z0-9+/]"
_BASE64 = re.compile(
    rb"(?m)^%b{%d,124}\r?\n(?:%b{2,124}={0,2}\r?\n)*|(?<!%b)%b{%d,}={0,2}"
    % (_LETTERS, LONG_LINE, _LETTERS, _LETTERS, _LETTERS, SHORTEST)
)


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
        if self.line is None:
            return self.size
        letters = (self.size + 2) // 3 * 4
        return letters + (-(-letters // self.line) * len(self.end) if self.line else 0)

    def content(self, noise: bytes) -> bytes:
        """What the content has for it."""
        if self.line is None:
            return noise
        letters, line = b64encode(noise), self.line
        return b"".join(letters[i : i + line] + self.end for i in range(0, len(letters), line)) if line else letters


def split(content: bytes) -> tuple[list[Part], bytes, bytes]:
    """The parts that are noise, their noise, the rest."""
    parts: list[Part] = []
    noise, rest, done, left = [], [], 0, 0
    for start, end, part, found in sorted(_as_it_is(content) + _in_base64(content), key=lambda place: place[0]):
        if start >= done:
            left += start - done
            parts.append(Part(left, part.size, part.line, part.crlf))
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
    for _ in range(reader.varint(content_size)):
        start += reader.varint(content_size)
        size, coded = reader.varint(content_size), reader.varint(2 * content_size + 2)
        part = Part(start, size, (coded - 1) // 2, coded % 2 == 0) if coded else Part(start, size)
        if size == 0 or part.crlf and not part.line or part.line and part.line < LONG_LINE:
            raise CorruptError("a block has noise in a form that there is not")
        left -= part.content_size
        parts.append(part)
        if left < start:
            raise CorruptError("a block's parts are longer than the block")
    return parts, left


def _as_it_is(content: bytes) -> list[tuple[int, int, Part, bytes]]:
    places: list[list[int]] = []
    for start in range(0, len(content) - WINDOW + 1, WINDOW):
        if _is_varied(content[start : start + STEP]) and _is_noise(content[start : start + WINDOW]):
            if not places or places[-1][1] < start:
                places.append([start, start])
            places[-1][1] = start + WINDOW
    done, result = 0, []
    for start, end in places:
        for _ in range(1, WINDOW // STEP):  # windows beside are no noise as a whole
            start -= STEP * (start - STEP >= done and _is_varied(content[start - STEP : start]))
            end += STEP * (end + STEP <= len(content) and _is_varied(content[end : end + STEP]))
        result.append((start, end, Part(0, end - start), content[start:end]))
        done = end
    return result


def _in_base64(content: bytes) -> list[tuple[int, int, Part, bytes]]:
    result: list[tuple[int, int, Part, bytes]] = []
    if all(b" " in content[i : i + STEP] for i in range(0, len(content), STEP)):
        return result
    for run in _BASE64.finditer(content):
        first, newline, _ = run[0].partition(b"\n")
        crlf = first.endswith(b"\r")
        if len(run[0]) < SHORTEST:
            continue
        try:
            noise = b64decode(run[0].replace(b"\r\n" if crlf else b"\n", b""), validate=True)
        except Error:
            continue
        part = Part(0, len(noise), len(first) - crlf if newline else 0, crlf)
        if _is_noise(noise) and part.content(noise) == run[0]:
            result.append((*run.span(), part, noise))
    return result


def _is_varied(sample: bytes) -> bool:
    return len(set(sample)) > VARIED


def _is_noise(sample: bytes) -> bool:
    return len(zlib.compress(sample, 1)) > INCOMPRESSIBLE * len(sample)

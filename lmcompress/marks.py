"""Code points that stand in a text for what it cannot say itself, and the parts from one to another.

Knows: how they are written. Does not know: what any of them means.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmcompress.errors import CorruptError

FIRST = 0x10FE00  # and 255 more
ANY = re.compile(b"\xf4\x8f[\xb8-\xbb][\x80-\xbf]")


def mark(number: int) -> bytes:
    return chr(FIRST + number).encode()


def replaced(text: bytes, begin: bytes, end: bytes, content: Callable[[bytes, bytes], bytes]) -> bytes:
    """A text whose parts from a mark, a pattern without groups, to the mark `end` are what content(mark, part) gives. Raises
    CorruptError where these do not come in pairs."""
    out, done = bytearray(), 0
    found = re.finditer(begin + b"|" + end, text)
    for first in found:
        last = next(found, None)
        if first[0] == end or last is None or last[0] != end:
            raise CorruptError("a block's text has a mark out of place")
        out += text[done : first.start()] + content(first[0], text[first.end() : last.start()])
        done = last.end()
    return bytes(out + text[done:])


def count(text: bytes) -> int:
    """How many marks there are."""
    return sum(1 for _ in ANY.finditer(text))

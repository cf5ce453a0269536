"""Code points that stand in a text for what it cannot say itself, and the parts from one to another.

Knows: how they are written. Does not know: what any of them means.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lmcompress.errors import CorruptError

FIRST = 0x10FE00  # and 255 more


def mark(number: int) -> bytes:
    return chr(FIRST + number).encode()


def replaced(text: bytes, begin: bytes, end: bytes, content: Callable[[bytes, bytes], bytes]) -> bytes:
    """A text whose parts from a mark, a pattern without groups, to the mark `end` are what content(mark, part) gives. Raises
    CorruptError where these do not come in pairs."""
    parts = re.split(b"(" + begin + b"|" + end + b")", text)
    for i in range(1, len(parts), 4):
        if parts[i] == end or parts[i + 2 : i + 3] != [end]:
            raise CorruptError("a block's text has a mark out of place")
        parts[i : i + 3] = [b"", content(parts[i], parts[i + 1]), b""]
    return b"".join(parts)

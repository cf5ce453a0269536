"""The text of long strings of JSON: what their escapes stand for.

Knows: quotes, backslashes. Does not know: forms, the rest of JSON. Marks are code points: from OPEN to END characters stand
for their escapes, and LEAD for the backslash of any other.
"""

from __future__ import annotations

import re

from lmcompress.errors import TOO_LONG, CorruptError
from lmcompress.marks import mark, replaced

OPEN, END, LEAD = map(mark, range(3))
LEAST = 5  # escapes of a string
SHARE = 256  # bytes for each escape, at most
ESCAPES = {rb"\\": b"\\", rb"\"": b'"', rb"\n": b"\n", rb"\r": b"\r", rb"\t": b"\t"}

# one without its end too, which is not tried again from each quote in it
_STRING = re.compile(rb'"([^"\\\n\r\t]*(?:\\.[^"\\\n\r\t]*)*)("?)')
_ESCAPE = re.compile(rb"\\(?:[\\\"nrt])?")


def to_text(data: bytes) -> bytes:
    """A text that to_data() makes `data` of, where no mark stood in it; `data` itself where such strings are rare."""
    if SHARE * data.count(b"\\") < len(data):
        return data
    text = _STRING.sub(_opened, data)
    return data if SHARE * (data.count(b"\\") - text.count(b"\\")) < len(data) else text


def _opened(string: re.Match[bytes]) -> bytes:
    if not string[2] or string[1].count(b"\\") < LEAST:
        return string[0]
    return b'"' + OPEN + _ESCAPE.sub(lambda escape: ESCAPES.get(escape[0], LEAD), string[1]) + END + b'"'


def to_data(text: bytes, most: int) -> bytes:
    """The content that has this text. Raises CorruptError for a mark out of place, and for strings of more than `most` bytes."""

    def closed(_: bytes, part: bytes) -> bytes:
        if len(part) + sum(map(part.count, ESCAPES.values())) > most:
            raise CorruptError(TOO_LONG)
        for escape, character in ESCAPES.items():  # the backslash first
            part = part.replace(character, escape)
        return part.replace(LEAD, b"\\")

    return replaced(text, OPEN, END, closed)

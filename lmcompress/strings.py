"""The text of long strings of JSON: what their escapes stand for.

Knows: quotes, backslashes. Does not know: forms, the rest of JSON. Marks are code points: from OPEN to END characters stand
for their escapes, and LEAD for the backslash of any other.
"""

from __future__ import annotations

import re

from lmcompress.errors import CorruptError

OPEN, END, LEAD = (chr(0x10FE00 + i).encode() for i in range(3))
LEAST = 5  # escapes of a string
SHARE = 256  # bytes for each escape, at most
ESCAPES = {rb"\\": b"\\", rb"\"": b'"', rb"\n": b"\n", rb"\r": b"\r", rb"\t": b"\t"}

_STRING = re.compile(rb'"((?:[^"\\\n\r\t]|\\.)*)"')
_ESCAPE = re.compile(rb"\\(?:[\\\"nrt])?")
_MARK = re.compile(b"(" + OPEN + b"|" + END + b")")


def to_text(data: bytes) -> bytes:
    """A text that to_data() makes `data` of, where no mark stood in it; `data` itself where such strings are rare."""
    if SHARE * data.count(b"\\") < len(data):
        return data
    text = _STRING.sub(_opened, data)
    return data if SHARE * (data.count(b"\\") - text.count(b"\\")) < len(data) else text


def _opened(string: re.Match[bytes]) -> bytes:
    if string[1].count(b"\\") < LEAST:
        return string[0]
    return b'"' + OPEN + _ESCAPE.sub(lambda escape: ESCAPES.get(escape[0], LEAD), string[1]) + END + b'"'


def to_data(text: bytes) -> bytes:
    """The content that has this text. Raises CorruptError for a mark out of place."""
    parts = _MARK.split(text)
    for i in range(1, len(parts), 4):
        if parts[i] != OPEN or parts[i + 2 : i + 3] != [END]:
            raise CorruptError("a block's text has a mark out of place")
        part = parts[i + 1]
        for escape, character in ESCAPES.items():  # the backslash first
            part = part.replace(character, escape)
        parts[i : i + 3] = [b"", part.replace(LEAD, b"\\"), b""]
    return b"".join(parts)

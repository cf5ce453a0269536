"""Base64 (RFC 4648) in lines of one length, or in one run.

Knows: letters, lines, their ends. Does not know: what is written so.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error

LETTERS = rb"[A-Za-z0-9+/]"
LONG = 60  # letters of a line, at least
LINES = rb"(?m)^%b{%d,124}\r?\n(?:%b{2,124}={0,2}\r?\n)*" % (LETTERS, LONG, LETTERS)  # what may be some


def size(n: int, length: int, end: bytes) -> int:
    """How long what write() gives for n bytes is."""
    letters = (n + 2) // 3 * 4
    return letters + (-(-letters // length) * len(end) if length else 0)


def write(content: bytes, length: int, end: bytes) -> bytes:
    """`content` in lines of `length` letters, the last one of what is left, each with `end`; with 0 in one run without."""
    letters = b64encode(content)
    if length == 0:
        return letters
    out = bytearray()  # no object for each line
    for i in range(0, len(letters), length):
        out += letters[i : i + length] + end
    return bytes(out)


def read(coded: bytes, length: int, end: bytes) -> bytes | None:
    """The content that write() gives `coded` for; None where there is none."""
    try:
        content = b64decode(coded.replace(end, b"") if end else coded, validate=True)
    except Error:
        return None
    return content if write(content, length, end) == coded else None


def end_of(line: bytes) -> bytes:
    """CR LF, LF or nothing."""
    return b"\r\n" if line.endswith(b"\r\n") else b"\n" if line.endswith(b"\n") else b""

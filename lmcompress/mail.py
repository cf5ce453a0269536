"""The text of mail: what quoted-printable and base64 (RFC 2045) stand for, where it is UTF-8 and the same bytes can be made of it.

Knows: lines, soft line breaks, encoded words. Does not know: forms. Marks are code points from MARK on:
TURN + l at the beginning of a line: from there on lines are quoted-printable with at most l characters before the = of a soft
line break, or, with l = 0, no more. One that is has all bytes above 127 as = and two digits, and a soft line break where the
next character would be one too many. BREAK: a soft line break here, JOIN: none here; either begins a line as far as the next
break is concerned.
BASE64 + q: what follows, up to END, is in base64, in lines of 4 q characters, of which the last may be shorter, that end in
LF; with CRLF added, in CR LF; with q = 0 in no line of its own.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error
from collections.abc import Iterator

from lmcompress.errors import CorruptError

MARK = 0x10FE00
BREAK, JOIN, END = (chr(MARK + i).encode() for i in range(3))
BASE64, CRLF, TURN = 0x40, 0x20, 0x80
SHORTEST, USUAL, LONGEST = 16, 75, 127  # limits of quoted-printable lines
LONG = 60  # characters of a base64 line, at least
MOST = 4  # bytes for each of content, before base64

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_OCTET = re.compile(rb"=[0-9A-F]{2}")
_ABOVE = re.compile(rb"[\x80-\xff]+")
_POINTS = re.compile(  # characters beyond ASCII in quoted-printable
    rb"(?:=(?:C[2-9A-F]|D[0-9A-F])=[89AB][0-9A-F]|=E[0-9A-F](?:=[89AB][0-9A-F]){2}|=F[0-4](?:=[89AB][0-9A-F]){3})+"
)
_LETTERS = rb"[A-Za-z0-9+/]"
_CODED_LINES = re.compile(rb"(?m)^%b{%d,124}\r?\n(?:%b{2,124}={0,2}\r?\n)*" % (_LETTERS, LONG, _LETTERS))
_CODED_WORD = re.compile(rb"(?<=\?[Bb]\?)%b{3,}={0,2}(?=\?=)" % _LETTERS)
_MARK_OF_BREAK = re.compile(b"(" + BREAK + b"|" + JOIN + b")")
_MARK_OF_TURN = re.compile(chr(MARK + TURN).encode()[:2] + b"[\xba\xbb][\x80-\xbf]")
_MARK_OF_BASE64 = re.compile(b"(" + chr(MARK + BASE64).encode()[:3] + b"[\x80-\xbf]|" + END + b")")
_TRACES = re.compile(rb"=\r?\n|%b|%b|%b" % (_POINTS.pattern, _CODED_WORD.pattern, rb"(?m:^%b{%d})" % (_LETTERS, LONG)))


def to_text(data: bytes) -> bytes:
    """A text that to_data() makes `data` of, where no mark stood in it; `data` itself where nothing is coded."""
    if not _TRACES.search(data):
        return data
    text = _CODED_WORD.sub(lambda word: _decoded(word[0], 0, b"") or word[0], _CODED_LINES.sub(_of_lines, data))
    return b"".join(_of_quoted(_LINE.findall(text)))


def to_data(text: bytes, size: int) -> bytes:
    """The content that has this text. Raises CorruptError for a mark out of place, and for more than `size` bytes."""
    lines, limit = bytearray(), 0
    for found in _LINE.finditer(text):
        line = found[0]
        if turn := _MARK_OF_TURN.match(line):
            limit, line = (turn[0][2] & 1) << 6 | turn[0][3] & 63, line[len(turn[0]) :]
            if 0 < limit < SHORTEST:
                raise CorruptError("a block's text has lines that are too short")
        lines += _quoted(line, limit) if limit else line
        if len(lines) > MOST * size:  # base64 becomes longer, but marks go
            raise CorruptError("a block's text is longer than its size allows")
    parts = _MARK_OF_BASE64.split(lines)
    for i in range(1, len(parts), 4):
        if parts[i] == END or parts[i + 2 : i + 3] != [END]:
            raise CorruptError("a block's text has a part in base64 without beginning or end")
        coded = parts[i][-1] & 63
        end = b"\r\n" if coded & CRLF else b"\n"
        parts[i : i + 3] = [b"", _coded(parts[i + 1], 4 * (coded & (CRLF - 1)), end), b""]
    return b"".join(parts)


def _coded(content: bytes, length: int, end: bytes) -> bytes:
    letters = b64encode(content)
    if length == 0:
        return letters
    return b"".join(letters[i : i + length] + end for i in range(0, len(letters), length))


def _decoded(coded: bytes, length: int, end: bytes) -> bytes | None:
    """The text of a part in base64, with its marks; None where it is none."""
    try:
        content = b64decode(coded.replace(end, b"") if end else coded, validate=True)
        if max(content.decode(), default="") >= chr(MARK) or _coded(content, length, end) != coded:
            return None
    except (Error, ValueError):
        return None
    return chr(MARK + BASE64 + length // 4 + (CRLF if end == b"\r\n" else 0)).encode() + content + END


def _of_lines(run: re.Match[bytes]) -> bytes:
    """Lines that may be base64."""
    first = run[0][: run[0].index(b"\n") + 1]
    end = b"\r\n" if first.endswith(b"\r\n") else b"\n"
    length = len(first) - len(end)
    if length % 4:
        return run[0]
    lines, used = run[0].split(b"\n"), 1
    while used < len(lines) - 1 and len(lines[used - 1]) + 1 == len(first):  # up to the first shorter one
        used += 1
    coded = b"\n".join(lines[:used]) + b"\n"
    return (_decoded(coded, length, end) or coded) + b"\n".join(lines[used:])


def _of_quoted(lines: list[bytes]) -> Iterator[bytes]:
    """Lines with those in quoted-printable, joined over their soft breaks, as what they stand for."""
    limit, latest, i = 0, USUAL, 0
    while i < len(lines):
        j = i
        while j < len(lines) - 1 and lines[j].endswith((b"=\n", b"=\r\n")):
            j += 1
        if j > i or _POINTS.search(lines[i]):
            text, latest = _unquoted(lines[i : j + 1], latest)
            if text:
                if limit != latest:
                    yield _turn(latest)
                yield text
                limit, i = latest, j + 1
                continue
        for line in lines[i : j + 1]:
            if limit and not (line.isascii() and len(line.rstrip(b"\r\n")) <= limit):
                limit = 0
                yield _turn(limit)
            yield line
        i = j + 1


def _turn(limit: int) -> bytes:
    return chr(MARK + TURN + limit).encode()


def _end_of(line: bytes) -> bytes:
    return b"\r\n" if line.endswith(b"\r\n") else b"\n" if line.endswith(b"\n") else b""


def _next_break(letters: bytes, at: int, room: int) -> int:
    """Where in the letters from `at` on a soft break is due, if so many have room; = and its two digits stay together."""
    end = at + room
    if end >= len(letters):
        return len(letters)
    for start in (end - 1, end - 2):
        if start >= at and _OCTET.match(letters, start):
            return start
    return end


def _unquoted(lines: list[bytes], latest: int) -> tuple[bytes, int]:
    """The text of a line and those before it that end in soft breaks, and the limit with which it comes back, the latest
    one if possible. No text where these seem to be something else."""
    whole, last = b"".join(lines), _end_of(lines[-1])
    soft = b"=" + (last or b"\n")
    if not whole.isascii() or not all(line.endswith(soft) for line in lines[:-1]):
        return b"", latest
    contents = [line[: -len(soft)] for line in lines[:-1]] + [lines[-1][: len(lines[-1]) - len(last)]]
    longest = max(map(len, contents[:-1]), default=0)
    for limit in (latest, longest, longest + 1, longest + 2):  # = and its digits may not have fitted anywhere
        if SHORTEST <= limit <= LONGEST:
            text, regular = _joined(contents, limit)
            if regular:
                break
    else:
        limit = latest
        text, _ = _joined(contents, limit)
        if not _OCTET.search(whole):
            return b"", latest
    text = _POINTS.sub(_characters, text) + last
    return (text, limit) if _quoted(text, limit) == whole else (b"", latest)


def _joined(contents: list[bytes], limit: int) -> tuple[bytes, bool]:
    """Lines without their soft breaks, with marks where these are not those that are due; whether they all are."""
    text, column, regular = bytearray(), 0, True
    for i, content in enumerate(contents):
        at = 0
        while (end := _next_break(content, at, limit - column)) < len(content):
            text += content[at:end] + JOIN
            at, column, regular = end, 0, False
        text += content[at:]
        column += end - at
        if i < len(contents) - 1:
            if not contents[i + 1] or _next_break(contents[i + 1], 0, limit - column) > 0:
                text += BREAK
                regular = False
            column = 0
    return bytes(text), regular


def _characters(run: re.Match[bytes]) -> bytes:
    content = bytes.fromhex(run[0].replace(b"=", b"").decode())
    try:
        content.decode()
    except UnicodeDecodeError:
        return run[0]
    return content


def _quoted(line: bytes, limit: int) -> bytes:
    """A line of text in quoted-printable."""
    if len(line) <= limit and line.isascii():
        return line
    end = _end_of(line)
    soft, coded, column = b"=" + (end or b"\n"), bytearray(), 0
    for part in _MARK_OF_BREAK.split(line[: len(line) - len(end)]):
        if part in (BREAK, JOIN):
            coded += soft if part == BREAK else b""
            column = 0
            continue
        letters, at = _ABOVE.sub(lambda run: b"=" + run[0].hex("=").upper().encode(), part), 0
        while (due := _next_break(letters, at, limit - column)) < len(letters):
            coded += letters[at:due] + soft
            at, column = due, 0
        coded += letters[at:]
        column += due - at
    return bytes(coded) + end

"""The text of mail: what quoted-printable and base64 (RFC 2045) stand for, where the same bytes can be made of it.

Knows: lines, soft line breaks, encoded words, what character sets are called. Does not know: forms. Marks (marks.py):
TURN + l at the beginning of a line: from there on lines are quoted-printable with at most l characters before the = of a soft
line break, or, with l = 0, no more. One that is has all bytes above 127 as = and two digits, and a soft line break where the
next character would be one too many. BREAK: a soft line break here, JOIN: none here; either begins a line as far as the next
break is concerned.
SET + c after TURN or BASE64: what it is for is in character set c (charsets.py), not in UTF-8.
BASE64 + q: what follows, up to END, is in base64, in lines of 4 q characters, of which the last may be shorter, that end in
LF; with CRLF added, in CR LF; with q = 0 in no line of its own.
"""

from __future__ import annotations

import re
from bisect import bisect, bisect_left
from collections.abc import Iterator

from lmcompress import base64lines, charsets, marks
from lmcompress.base64lines import LETTERS, LONG, end_of
from lmcompress.errors import TOO_LONG, CorruptError
from lmcompress.marks import mark, replaced

BREAK, JOIN, END = map(mark, range(3))
SET, BASE64, CRLF, TURN = 0x10, 0x40, 0x20, 0x80
SHORTEST, USUAL, LONGEST = 16, 75, 127  # limits of quoted-printable lines
MOST = 4  # bytes for each of content, before base64
SETS = {
    number: re.compile(names, re.ASCII | re.IGNORECASE)
    for number, names in {
        3: rb"iso-?8859-1|iso-?8859-15|windows-1252|latin1", 4: rb"iso-?8859-2|windows-1250", 5: rb"windows-1251",
        6: rb"koi8-[ru]", 7: rb"(cp|ibm)866", 8: rb"gb2312|gbk|gb18030", 9: rb"big5", 10: rb"shift[_-]jis", 11: rb"euc-jp",
        12: rb"euc-kr|ks_c_5601-1987",
    }.items()
}  # fmt: skip

_LINE = re.compile(rb"[^\n]*\n|[^\n]+")
_OCTET = re.compile(rb"=[0-9A-F]{2}")
_ABOVE = re.compile(rb"[\x80-\xff]+")
_POINTS = re.compile(  # characters beyond ASCII in quoted-printable
    rb"(?:=(?:C[2-9A-F]|D[0-9A-F])=[89AB][0-9A-F]|=E[0-9A-F](?:=[89AB][0-9A-F]){2}|=F[0-4](?:=[89AB][0-9A-F]){3})+"
)
_QUOTED = re.compile(rb"=(?:\r?\n|[C-F][0-9A-F]=[89AB])")  # the same, or a soft break
_OCTETS = re.compile(rb"(?:=[89A-F][0-9A-F])+")
_NAMED = re.compile(rb"charset\s*=\s*\"?([a-z0-9_-]+)")
_CODED_LINES = re.compile(base64lines.LINES)
_CODED_WORD = re.compile(rb"(=\?([A-Za-z0-9_-]{1,40})\?[Bb]\?)(%b{3,}={0,2})(?=\?=)" % LETTERS)
_MARK_OF_BREAK = re.compile(BREAK + b"|" + JOIN)
_MARK_OF_SET = mark(SET)[:3] + b"[\x93-\x9c]"
_MARK_OF_TURN = re.compile(b"(" + mark(TURN)[:2] + b"[\xba\xbb][\x80-\xbf])(" + _MARK_OF_SET + b")?")
_MARK_OF_BASE64 = mark(BASE64)[:3] + b"[\x80-\xbf](?:" + _MARK_OF_SET + b")?"
_ASCII = bytes(range(128))
_CONTROL = re.compile(rb"[\0-\x08\x0e-\x1f]")
_TRACES = [  # each begins with a byte that is quickly found
    re.compile(pattern)
    for pattern in (
        rb"=\r?\n",
        rb"=[C-F][0-9A-F]=[89AB]",
        rb"\?[Bb]\?%b+=*\?=" % LETTERS,
        rb"\n%b{%d}" % (LETTERS, LONG),
    )
]


def to_text(data: bytes) -> bytes:
    """A text that to_data() makes `data` of, where no mark stood in it; `data` itself where nothing is coded."""
    if not any(trace.search(data) for trace in _TRACES):
        return data
    named = [(name.start(), _set(name[1])) for name in _NAMED.finditer(data.lower())]
    places = [place for place, _ in named]

    def of_lines(run: re.Match[bytes]) -> bytes:
        before = bisect(places, run.start())
        return _of_lines(run[0], named[before - 1][1] if before else 0)

    text = _CODED_LINES.sub(of_lines, data)
    text = _CODED_WORD.sub(lambda word: word[1] + (_decoded(word[3], 0, b"", _set(word[2])) or word[3]), text)
    return b"".join(_of_quoted(text))


def to_data(text: bytes, size: int) -> bytes:
    """The content that has this text. Raises CorruptError for a mark out of place, for characters that a set lacks, and for
    more than `size` bytes."""
    lines, limit, charset, left = bytearray(), 0, 0, size

    def in_base64(begin: bytes, part: bytes) -> bytes:
        nonlocal left
        content, coded = _in_set(part, _set_of_mark(begin[4:])), begin[3] & 63
        length, end = 4 * (coded & (CRLF - 1)), b"\r\n" if coded & CRLF else b"\n"
        left -= base64lines.size(len(content), length, end)
        if left < 0:
            raise CorruptError(TOO_LONG)
        return base64lines.write(content, length, end)

    for found in _LINE.finditer(text):
        line = found[0]
        if turn := _MARK_OF_TURN.match(line):
            limit, line = (turn[1][2] & 1) << 6 | turn[1][3] & 63, line[len(turn[0]) :]
            charset = _set_of_mark(turn[2])
            if 0 < limit < SHORTEST:
                raise CorruptError("a block's text has lines that are too short")
        most = MOST * size - len(lines)  # base64 becomes longer, but marks go
        coded = _quoted(line, limit, charset, most) if limit else _in_set(line, charset)
        if len(coded) > most:
            raise CorruptError(TOO_LONG)
        lines += coded
    return replaced(bytes(lines), _MARK_OF_BASE64, END, in_base64)


def _set(name: bytes) -> int:
    """The number of a set that goes by this name; 0 where none does."""
    return next((number for number, names in SETS.items() if names.fullmatch(name)), 0)


def _set_of_mark(mark: bytes | None) -> int:
    return (mark[3] & 63) - SET if mark else 0


def _mark_of_set(charset: int) -> bytes:
    return mark(SET + charset) if charset else b""


def _in_set(text: bytes, charset: int) -> bytes:
    """UTF-8 in another set."""
    if charset == 0 or text.isascii():
        return text
    try:
        return charsets.encode(text.decode(), charset)
    except UnicodeDecodeError:
        raise CorruptError("a block's text is not UTF-8") from None


def _of_set(data: bytes, charset: int) -> bytes:
    """UTF-8 of another set; what cannot be written so stays."""
    text = charsets.decode(data, charset).encode("utf-8", "surrogatepass") if charset else data
    try:
        return text if _in_set(text, charset) == data else data
    except CorruptError:
        return data


def _decoded(coded: bytes, length: int, end: bytes, charset: int) -> bytes | None:
    """The text of a part in base64, with its marks, in UTF-8 or else this set; None where it is none."""
    content = base64lines.read(coded, length, end)
    if content is None:
        return None
    try:
        content.decode()
        charset = 0
    except UnicodeDecodeError:
        if charset == 0 or _is_binary(content) or (text := _of_set(content, charset)) == content:
            return None
        content = text
    if marks.ANY.search(content):
        return None
    begin = mark(BASE64 + length // 4 + (CRLF if end == b"\r\n" else 0))
    return begin + _mark_of_set(charset) + content + END


def _is_binary(content: bytes) -> bool:
    return 100 * len(_CONTROL.findall(content)) > len(content)


def _of_lines(run: bytes, charset: int) -> bytes:
    """Lines that may be base64."""
    first = run[: run.index(b"\n") + 1]
    end = end_of(first)
    length = len(first) - len(end)
    if length % 4:
        return run
    lines, used = run.split(b"\n"), 1
    while used < len(lines) - 1 and len(lines[used - 1]) + 1 == len(first):  # up to the first shorter one
        used += 1
    coded = b"\n".join(lines[:used]) + b"\n"
    return (_decoded(coded, length, end, charset) or coded) + b"\n".join(lines[used:])


def _of_quoted(content: bytes) -> Iterator[bytes]:
    """Content with its lines in quoted-printable, joined over their soft breaks, as what they stand for."""
    state, latest, named, at = (0, 0), USUAL, 0, 0
    found = (*_NAMED.finditer(content.lower()), *_QUOTED.finditer(content))
    notes = [*sorted(note.start() for note in found), len(content)]
    while at < len(content):
        if state == (0, 0) and not named:  # so it stays as far as a line that names a set, or looks quoted
            note = notes[bisect_left(notes, at)]
            start = max(at, content.rfind(b"\n", at, note) + 1) if note < len(content) else note
            yield content[at:start]
            at = start
            if at == len(content):
                break
        lines = [_line(content, at)]
        at += len(lines[0])
        while lines[-1].endswith((b"=\n", b"=\r\n")) and at < len(content):
            lines.append(_line(content, at))
            at += len(lines[-1])
        if name := _NAMED.search(lines[0].lower()):
            named = _set(name[1])
        if len(lines) > 1 or (_OCTETS if named else _POINTS).search(lines[0]):
            text, latest, charset = _unquoted(lines, latest, named)
            if text:
                charset = state[1] if charset is None else charset
                if state != (latest, charset):
                    state = latest, charset
                    yield _turn(*state)
                yield text
                continue
        for line in lines:
            if line.isascii():
                if state[0] and len(line) - len(end_of(line)) > state[0]:
                    state = 0, state[1]
                    yield _turn(*state)
            else:
                text = line if _is_utf_8(line) else _of_set(line, named)
                charset = named if text != line else 0
                if state != (0, charset):
                    state = 0, charset
                    yield _turn(*state)
                line = text
            yield line


def _line(content: bytes, at: int) -> bytes:
    return content[at : content.find(b"\n", at) + 1 or len(content)]


def _turn(limit: int, charset: int) -> bytes:
    return mark(TURN + limit) + _mark_of_set(charset)


def _is_utf_8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _next_break(letters: bytes, at: int, room: int) -> int:
    """Where in the letters from `at` on a soft break is due, if so many have room; = and its two digits stay together."""
    end = at + room
    if end >= len(letters):
        return len(letters)
    for start in (end - 1, end - 2):
        if start >= at and _OCTET.match(letters, start):
            return start
    return end


def _unquoted(lines: list[bytes], latest: int, named: int) -> tuple[bytes, int, int | None]:
    """The text of a line and those before it that end in soft breaks, the limit with which it comes back, the latest one
    if possible, and its character set, if only one does. No text where these seem to be something else."""
    whole, last = b"".join(lines), end_of(lines[-1])
    soft = b"=" + (last or b"\n")
    if not whole.isascii() or not all(line.endswith(soft) for line in lines[:-1]):
        return b"", latest, None
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
            return b"", latest, None
    charset = None
    if _OCTETS.search(text):
        charset = named if named and not _is_utf_8(_MARK_OF_BREAK.sub(b"", _OCTETS.sub(_octets, text))) else 0
    if charset:
        text = b"".join(_of_set(_OCTETS.sub(_octets, part), named) + behind for part, behind in _between_breaks(text))
    elif charset == 0:
        text = _POINTS.sub(_characters, text)
    return (text + last, limit, charset) if _comes_back(text + last, limit, charset, whole) else (b"", latest, None)


def _comes_back(text: bytes, limit: int, charset: int | None, whole: bytes) -> bool:
    try:
        return _quoted(text, limit, charset or 0, len(whole)) == whole
    except CorruptError:
        return False


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


def _octets(run: re.Match[bytes]) -> bytes:
    return bytes.fromhex(run[0].replace(b"=", b"").decode())


def _characters(run: re.Match[bytes]) -> bytes:
    content = _octets(run)
    return content if _is_utf_8(content) else run[0]


def _quoted(line: bytes, limit: int, charset: int, most: int) -> bytes:
    """A line of text in quoted-printable. Raises CorruptError as soon as it has more than `most` bytes before its end."""
    if len(line) <= limit and line.isascii():
        return line
    end = end_of(line)
    soft, coded, column = b"=" + (end or b"\n"), bytearray(), 0
    for part, behind in _between_breaks(line[: len(line) - len(end)]):
        octets, at = _in_set(part, charset), 0
        if len(coded) + len(octets) + 2 * len(octets.translate(None, _ASCII)) > most:
            raise CorruptError(TOO_LONG)
        letters = _ABOVE.sub(lambda run: b"=" + run[0].hex("=").upper().encode(), octets)
        while (due := _next_break(letters, at, limit - column)) < len(letters):
            coded += letters[at:due] + soft
            at, column = due, 0
        coded += letters[at:]
        column += due - at
        if behind:
            coded += soft if behind == BREAK else b""
            column = 0
    return bytes(coded + end)


def _between_breaks(text: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Parts of a text, each with what is behind it: BREAK, JOIN, or nothing."""
    done = 0
    for found in _MARK_OF_BREAK.finditer(text):
        yield text[done : found.start()], found[0]
        done = found.end()
    yield text[done:], b""

"""The form of a text: what it is written in, where that is not UTF-8 with lines that end in LF, which models know best.

Knows: character sets, notations of characters in ASCII, mail, strings of JSON, letters of other scripts, line ends, capitals. Does not know: tokens,
blocks. A form is a number: a character set or notation (0: the bytes are left as they are), and flags. LINES: an LF of the text
stands for CR LF; RETURNS: CR and LF stand for each other; CAPITALS: so do a to z and A to Z. Any bytes come back: those that
are not of the set stand in the text as code points from ESCAPE on, an LF that is alone among LINES as FF LF.
The way back goes by UTF-8 and charsets.json alone; what Python's codecs give on the way there is tried out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html.entities import codepoint2name

import numpy as np

from lmcompress import charsets, letters, mail, marks, strings
from lmcompress.charsets import ASIAN, CHARSETS, CHUNK, CYRILLIC, ESCAPE, ESCAPING, LATIN
from lmcompress.errors import TOO_LONG, CorruptError, UnsupportedError

PLAIN, CAPITALS, RETURNS, LINES = 0, 0x20, 0x40, 0x80
FLAGS = CAPITALS | RETURNS | LINES
UTF_16 = {1: "utf-16-le", 2: "utf-16-be"}
MAIL = 20
STRINGS = {0: 21, 13: 22, 14: 23}  # with the escapes of JSON's strings, by the set or notation without
LETTERS = {0: 27, 1: 28, 2: 29}  # with letters as bytes, by the set without
WITHOUT = {number: without for numbers in (STRINGS, LETTERS) for without, number in numbers.items()}
SAVED = 64  # bytes, from which on too
GROWTH = 4  # bytes of text for each of content, at most
SAMPLE, SAMPLES = 16384, 4  # bytes of one, and how many
TOLERANCE = 1.03  # of what the bytes cost as they are; costs do not know what follows what, which favours these
GAIN = 0.98  # of what a text costs, from which on its capitals are exchanged, or it is taken for mail
STRANGE = 0.56  # of what a text costs, up to which its letters are made bytes; more where pieces have them
LETTERS_LEAST = 1 << 15  # bytes of text that learns enough from being shorter to pay for the list
LATIN_SHARE = 0.25  # of bytes above 127: Latin text has fewer, other alphabets more
NULS = 0.01  # share of the bytes; with more, valid UTF-8 may be UTF-16

_RETURNS = bytes.maketrans(b"\r\n", b"\n\r")
_CAPITALS = bytes.maketrans(
    *(bytes(range(97, 123)) + bytes(range(65, 91)), bytes(range(65, 91)) + bytes(range(97, 123)))
)

Cost = Callable[[bytes], float]


@dataclass(frozen=True)
class Notation:
    """How ASCII text writes other characters."""

    mark: str  # each begins with
    pattern: re.Pattern[str]  # of several in a row
    read: Callable[[str], str]  # these; what stands for no character stays
    write: Callable[[str], str]

    def is_in(self, text: str) -> bool:
        return self.mark in text and self.pattern.search(text) is not None  # the mark is found much faster


def _units(digit: str, form: str) -> Notation:
    """\\u and the digits of UTF-16's units, as in JSON."""
    return Notation(
        "\\u",
        re.compile(rf"(?:\\u(?:00[89{digit}][0-9{digit}]|0[1-9{digit}][0-9{digit}]{{2}}|[1-9{digit}][0-9{digit}]{{3}}))+"),
        lambda run: bytes.fromhex(run.replace("\\u", "")).decode("utf-16-be", "surrogatepass"),
        lambda run: "".join(
            "\\u" + form % unit
            for unit in np.frombuffer(run.encode("utf-16-le", "surrogatepass"), "<u2").tolist()
        ),
    )  # fmt: skip


def _octets(mark: str, case: Callable[[str], str]) -> Notation:
    """A mark and two digits for each of UTF-8's bytes, as in addresses (RFC 3986) and in logs."""

    def read(run: str) -> str:
        try:
            return bytes.fromhex(run.replace(mark, "")).decode()
        except UnicodeDecodeError:
            return run

    def write(run: str) -> str:
        digits = case(run.encode("utf-8", "surrogatepass").hex())
        return "".join(mark + digits[i : i + 2] for i in range(0, len(digits), 2))

    lead = re.escape(mark)
    later = lead + case("[89AB][0-9A-F]")
    two, three, four = (lead + case(first) for first in ("[CD][0-9A-F]", "E[0-9A-F]", "F[0-4]"))
    return Notation(
        mark, re.compile(f"(?:{two}{later}|{three}{later}{later}|{four}{later}{later}{later})+"), read, write
    )


def _references(pattern: str, base: int, form: str) -> Notation:
    """&#, the digits of a code point and ;, as in HTML."""

    def character(reference: re.Match[str]) -> str:
        point = int(reference[1], base)
        return chr(point) if 128 <= point < ESCAPE else reference[0]

    one = re.compile(pattern)
    return Notation(
        "&#",
        re.compile(f"(?:{pattern})+"),
        lambda run: one.sub(character, run),
        lambda run: "".join(form % ord(c) for c in run),
    )


def _names() -> Notation:
    """&, the name that HTML 4.01 (section 24) has for a character, and ;."""
    of = {chr(point): f"&{name};" for point, name in codepoint2name.items() if point > 127}
    characters = {reference: character for character, reference in of.items()}
    one = re.compile("&(?!(?:amp|lt|gt|quot);)[A-Za-z][A-Za-z0-9]{1,7};")

    def write(run: str) -> str:
        try:
            return "".join(of[c] for c in run)
        except KeyError:
            raise CorruptError("a block's text has characters without a name") from None

    return Notation(
        "&",
        re.compile(f"(?:{one.pattern})+"),
        lambda run: one.sub(lambda name: characters.get(name[0], name[0]), run),
        write,
    )


NOTATIONS = {
    13: _units("a-f", "%04x"), 14: _units("A-F", "%04X"), 15: _octets("%", str.upper), 16: _octets("%", str.lower),
    17: _references("&#([1-9][0-9]{2,6});", 10, "&#%d;"), 18: _references("&#x([1-9a-f][0-9a-f]{1,5});", 16, "&#x%x;"),
    19: _references("&#x([1-9A-F][0-9A-F]{1,5});", 16, "&#x%X;"),
    24: _octets("\\x", str.upper), 25: _octets("\\x", str.lower), 26: _names(),
}  # fmt: skip


def to_text(data: bytes, cost: Cost, flags: int = FLAGS) -> tuple[int, bytes]:
    """A form of `data`, and the text that to_data() makes `data` of. `cost` of a text, in any unit: the character set is
    the one in which samples cost least. `flags` that may be set."""
    read = _read(data, cost)
    for form, text in (read, (PLAIN, data)) if read[0] != PLAIN else (read,):
        form, text = _exchange(form, text, cost, flags)
        try:
            if form != PLAIN and len(text) <= GROWTH * len(data) and to_data(form, text, len(data)) == data:
                return form, text
        except CorruptError:  # some sequence has a twin that stands for the same character
            pass
    return PLAIN, data


def _read(data: bytes, cost: Cost) -> tuple[int, bytes]:
    """The form and the text of characters, mail, strings and letters, not tried back yet."""
    charset, odd = _charset(data, cost)
    text, form = _decode(data, charset, odd), charset
    if charset not in UTF_16 and (mailbox := mail.to_text(data)) != data:
        shorter = charset == PLAIN and len(mailbox) <= len(data) - SAVED
        if shorter or _whole(mailbox, cost) < GAIN * _whole(text, cost):
            text, form = mailbox, MAIL
    if form in STRINGS and (opened := strings.to_text(text)) != text:
        text, form = opened, STRINGS[form]
    if form in LETTERS and len(text) >= LETTERS_LEAST and _is_strange(text, cost):
        text, form = letters.to_text(text), LETTERS[form]
    return form, text


def _exchange(form: int, text: bytes, cost: Cost, flags: int) -> tuple[int, bytes]:
    """The same with the line ends and capitals that models know best."""
    n_cr, n_lf, n_both = text.count(b"\r"), text.count(b"\n"), text.count(b"\r\n")
    if 2 * n_both > n_lf and flags & LINES:
        text, form = text.replace(b"\n", b"\xff\n").replace(b"\r\xff\n", b"\n"), form | LINES
    elif n_cr - n_both > n_lf and flags & RETURNS:
        text, form = text.translate(_RETURNS), form | RETURNS
    if flags & CAPITALS:
        samples = _samples(text)
        if sum(cost(sample.translate(_CAPITALS)) for sample in samples) < GAIN * sum(map(cost, samples)):
            text, form = text.translate(_CAPITALS), form | CAPITALS
    return form, text


def to_data(form: int, text: bytes, size: int) -> bytes:
    """The content of `size` bytes that has this form and text. Raises CorruptError where there is none, UnsupportedError
    for a form that is reserved."""
    charset = form & ~FLAGS
    if charset not in (PLAIN, *UTF_16, *CHARSETS, *NOTATIONS, MAIL, *WITHOUT):
        raise UnsupportedError(f"a block's text is in the form {form}, which is reserved; a later version is needed")
    if form & CAPITALS:
        text = text.translate(_CAPITALS)
    if form & RETURNS:
        text = text.translate(_RETURNS)
    if form & LINES:
        text = text.replace(b"\n", b"\r\n").replace(b"\xff\r\n", b"\n")
    if charset in STRINGS.values():
        text = strings.to_data(text, GROWTH * size)
    elif charset in LETTERS.values():
        text = letters.to_data(text, size)
    charset = WITHOUT.get(charset, charset)
    if charset == MAIL:
        _allow(text, marks.count(text) + size)
        data = mail.to_data(text, size)
    else:
        data = text if charset == PLAIN else _encode(text, charset, size)
    if len(data) != size:
        raise CorruptError("a block's text does not have the size that it states")
    return data


def _samples(data: bytes) -> list[bytes]:
    step = max(SAMPLE, len(data) // SAMPLES) & ~1
    return [data[i : i + SAMPLE] for i in range(0, len(data), step)]


def _whole(text: bytes, cost: Cost) -> float:
    """What a text costs, by samples."""
    samples = _samples(text)
    return sum(map(cost, samples)) * len(text) / max(1, sum(map(len, samples)))


def _is_strange(text: bytes, cost: Cost) -> bool:
    """Whether it is in letters that no piece has."""
    samples = _samples(text)
    if _is_latin(samples):
        return False
    return sum(cost(letters.to_text(sample)) for sample in samples) < STRANGE * sum(map(cost, samples))


def _is_latin(samples: list[bytes]) -> bool:
    return sum(_count(sample, 0x80, 0x80) for sample in samples) < LATIN_SHARE * sum(map(len, samples))


def _charset(data: bytes, cost: Cost) -> tuple[int, int]:
    """The character set, and for UTF-16 where its units begin: 0 or 1."""
    samples = _samples(data)
    candidates, limit = [(c, odd) for c in UTF_16 for odd in (0, 1)], TOLERANCE
    if all(_is_utf_8(sample) for sample in samples):
        latin = [sample.decode("latin-1") for sample in samples]
        candidates, limit = [(c, 0) for c, n in NOTATIONS.items() if any(map(n.is_in, latin))], 1.0
    else:
        candidates += [(c, 0) for c in (LATIN if _is_latin(samples) else CYRILLIC) | ASIAN]
    if not candidates:
        return PLAIN, 0
    best, least = (PLAIN, 0), limit * sum(map(cost, samples))
    for charset, odd in candidates:
        found = sum(cost(_decode(sample, charset, odd)) for sample in samples)
        if found < least:
            best, least = (charset, odd), found
    return best


def _count(data: bytes, mask: int, value: int) -> int:
    return int(np.count_nonzero((np.frombuffer(data, np.uint8) & mask) == value))


def _is_utf_8(sample: bytes) -> bool:
    """Whether it seems to be: few NULs, and more characters beyond ASCII than errors, of which cutting makes two."""
    if sample.count(0) > NULS * len(sample):
        return False
    found = re.findall("[^\0-\x7f]", sample.decode("utf-8", "replace"))
    return 2 * found.count("\ufffd") <= max(len(found), 4)


def _decode(data: bytes, charset: int, odd: int) -> bytes:
    """The text of content in a character set."""
    if charset == PLAIN:
        return data
    if charset in UTF_16:
        end = len(data) - (len(data) - odd) % 2
        units = data[odd:end].decode(UTF_16[charset], "surrogatepass")
        return (charsets.escape(data[:odd]) + units + charsets.escape(data[end:])).encode("utf-8", "surrogatepass")
    text = charsets.decode(data, charset) if charset in CHARSETS else data.decode("ascii", ESCAPING)
    if charset in NOTATIONS:
        text = NOTATIONS[charset].pattern.sub(lambda run: NOTATIONS[charset].read(run[0]), text)
    return text.encode("utf-8", "surrogatepass")


def _encode(text: bytes, charset: int, size: int) -> bytes:
    """A text in a character set; `size`: characters that it has at most."""
    _allow(text, size)
    try:
        characters = text.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        raise CorruptError("a block's text is not UTF-8") from None
    if charset in CHARSETS:
        return charsets.encode(characters, charset)
    part = _in_utf_16 if charset in UTF_16 else _in_ascii
    data = bytearray()
    for i in range(0, len(characters), CHUNK):
        data += part(characters[i : i + CHUNK], charset)
        if len(data) > size:
            raise CorruptError(TOO_LONG)
    return bytes(data)


def _allow(text: bytes, most: int) -> None:
    """Raises CorruptError for more characters than that."""
    if len(text) - _count(text, 0xC0, 0x80) > most:  # bytes that begin a character
        raise CorruptError(TOO_LONG)


def _in_utf_16(characters: str, charset: int) -> bytes:
    runs = re.split("([\U0010ff00-\U0010ffff]+)", characters)
    return b"".join(
        bytes(ord(c) - ESCAPE for c in run) if i % 2 else run.encode(UTF_16[charset], "surrogatepass")
        for i, run in enumerate(runs)
    )


def _in_ascii(characters: str, charset: int) -> bytes:
    text = re.sub("[\x80-\U0010feff]+", lambda run: NOTATIONS[charset].write(run[0]), characters)
    return (
        text.encode("latin-1") if text.isascii() else bytes(ord(c) - ESCAPE if ord(c) > 127 else ord(c) for c in text)
    )

"""Letters that no piece of a vocabulary has, as single bytes.

Knows: UTF-8. Does not know: vocabularies, forms. A text begins with a line of at most MOST characters; after it a byte from
FIRST on that begins no character stands for one of these, in their order. In UTF-8 no character begins with such a byte.
Bytes that are not UTF-8 stand in the text as marks of their number.
"""

from __future__ import annotations

import re
from collections import Counter

from lmcompress import marks
from lmcompress.errors import CorruptError

FIRST, MOST = 0x80, 64  # up to 0xBF
CASE = 32  # from a small letter to its capital
NONE = "\0"  # in the list, a byte that stands for nothing

# and a byte: the code point that Python's error handler "surrogateescape" has for bytes that are not UTF-8
_WRONG = 0xDC00
_MARKS = {_WRONG + byte: marks.FIRST + byte for byte in range(128, 256)}
_BYTES = {mark: wrong for wrong, mark in _MARKS.items()}


def to_text(data: bytes) -> bytes:
    """A text with the most frequent characters of `data` beyond ASCII as bytes, of which to_data() makes `data` where no
    mark stood in it."""
    characters = data.decode("utf-8", "surrogateescape")
    found = [c for c, _ in Counter(characters).most_common() if c > "\x7f" and ord(c) not in _MARKS]
    letters = _arranged(found[:MOST])
    table = _MARKS | {ord(letter): _WRONG + FIRST + i for i, letter in enumerate(letters) if letter != NONE}
    return (letters + "\n").encode() + characters.translate(table).encode("utf-8", "surrogateescape")


def _arranged(found: list[str]) -> str:
    """Letters, the most frequent first, as they lie in an alphabet, so that neighbours there are neighbours in the tree; a
    capital 32 places behind its small letter, as in ASCII: words have no case for the mixer (docs/MIXER.md)."""
    capitals = {c.lower(): c for c in found if c.lower() != c and c.lower() in found}
    if not capitals:
        return "".join(sorted(found))
    small = sorted([c for c in found if c not in capitals.values()][:CASE])
    rest = sorted(set(found).difference(small, (capitals.get(c, "") for c in small)))
    small += [NONE] * (CASE - len(small))
    behind = [capitals.get(c) or (rest.pop(0) if rest else NONE) for c in small]
    return "".join(small + behind).rstrip(NONE)


def to_data(text: bytes, size: int) -> bytes:
    """The content, of `size` characters at most, that has this text. Raises CorruptError."""
    line, _, rest = text.partition(b"\n")
    letters, characters = (part.decode("utf-8", "surrogateescape") for part in (line, rest))
    if len(letters) > MOST or len(characters) > size:
        raise CorruptError("a block's text has more letters than there can be")
    characters = characters.translate({_WRONG + FIRST + i: letter for i, letter in enumerate(letters)})
    if re.search("[\udc80-\udcff]", characters):
        raise CorruptError("a block's text has a letter that is not in its list")
    return characters.translate(_BYTES).encode("utf-8", "surrogateescape")

"""Character sets of one or two bytes, by tables that never change.

Knows: charsets.json. Does not know: texts. A set has a number, which archives hold (docs/FORMAT.md).
The way back to bytes goes by the tables alone, so that no later version of a codec changes it; Python's codecs are used on
the way there, and callers try what they give.
"""

from __future__ import annotations

import codecs
import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from lmcompress.errors import CorruptError

LATIN = {3: "cp1252", 4: "cp1250"}
CYRILLIC = {5: "cp1251", 6: "koi8-r", 7: "cp866"}
ASIAN = {8: "gbk", 9: "cp950", 10: "cp932", 11: "euc-jp", 12: "cp949"}
CHARSETS = LATIN | CYRILLIC | ASIAN
TABLES = Path(__file__).parent / "charsets.json"
ESCAPE = 0x10FF00  # and 255 more: bytes that are not of the set
CHUNK = 65536  # characters


def escape(wrong: bytes) -> str:
    return "".join(chr(ESCAPE + b) for b in wrong)


def _escaped(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return escape(error.object[error.start : error.end]), error.end


ESCAPING = "lmcompress.escape"
codecs.register_error(ESCAPING, _escaped)


def decode(data: bytes, charset: int) -> str:
    return data.decode(CHARSETS[charset], ESCAPING)


def encode(characters: str, charset: int) -> bytes:
    """Raises CorruptError for characters that the set lacks."""
    return b"".join(_encode(characters[i : i + CHUNK], charset) for i in range(0, len(characters), CHUNK))


def _encode(characters: str, charset: int) -> bytes:
    points = np.frombuffer(characters.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.int64)
    escaped = points >= ESCAPE
    codes = np.where(escaped, points - ESCAPE, _codes(charset)[np.minimum(points, 0xFFFF)])
    if (codes < 0).any():
        raise CorruptError(f"a block's text has characters that {CHARSETS[charset]} lacks")
    pairs = np.stack([codes >> 8, codes & 255], 1).astype(np.uint8)
    return pairs[np.stack([(codes > 255) & ~escaped, np.ones_like(escaped)], 1)].tobytes()


@lru_cache
def _codes(charset: int) -> np.ndarray:
    """int64 [65536]: the code of each character of the basic plane, one byte or two, the first of them above; -1 for those
    that the set lacks."""
    codes = np.full(0x10000, -1, np.int64)
    codes[:128] = np.arange(128)
    for first, run in json.loads(TABLES.read_text(encoding="utf-8"))[CHARSETS[charset]].items():
        codes[[ord(c) for c in run]] = int(first, 16) + np.arange(len(run))
    return codes

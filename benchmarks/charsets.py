"""Makes lmcompress/charsets.json, by which archives are restored that hold text in other character sets than UTF-8. It is
never to be made again otherwise than it is: `python -m benchmarks charsets` says whether this Python's codecs would.

Knows: Python's codecs. Does not know: archives.
"""

from __future__ import annotations

import json
from itertools import chain

from lmcompress.charsets import CHARSETS, TABLES


def table(name: str) -> dict[str, str]:
    """Runs of characters in the order of their codes, by the first code in hexadecimal digits: those that the codec gives
    for one byte or two from 128 on, and for which it gives these bytes back."""
    runs: dict[str, str] = {}
    first = last = -1
    for code in chain(range(0x80, 0x100), range(0x8000, 0x10000)):
        raw = bytes([code]) if code < 0x100 else code.to_bytes(2, "big")
        try:
            text = raw.decode(name)
            if len(text) != 1 or text.encode(name) != raw or ord(text) > 0xFFFF:
                continue
        except UnicodeError:
            continue
        if code != last + 1:
            first = code
        key, last = f"{first:X}", code
        runs[key] = runs.get(key, "") + text
    return runs


def main() -> str:
    """Writes the file if there is none; else whether it is what it would be."""
    made = {name: table(name) for name in CHARSETS.values()}
    if not TABLES.exists():
        TABLES.write_text(json.dumps(made, ensure_ascii=False, indent=0, sort_keys=True) + "\n", encoding="utf-8")
    saved = json.loads(TABLES.read_text(encoding="utf-8"))
    different = [name for name in made if saved.get(name) != made[name]]
    return f"{TABLES}: " + (
        f"other than this Python's {', '.join(different)}" if different else "as this Python's codecs"
    )

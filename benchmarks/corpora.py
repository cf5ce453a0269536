"""What is measured on: files, and what the manifest says about them.

Knows: folders, corpora/manifest.json. Does not know: codecs. A file is known by its digest, whatever its name is here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

CORPORA = Path(__file__).parents[1] / "corpora"


@dataclass(frozen=True)
class Source:
    path: Path
    name: str
    kind: str  # "English prose", "log", ...; the suffix for files that the manifest does not name
    size: int  # bytes
    chars: int | None  # Unicode characters; None when it is not UTF-8
    sha256: str


@lru_cache
def manifest_kinds() -> dict[str, str]:
    """SHA-256 -> kind, of every file the manifest names."""
    manifest = json.loads((CORPORA / "manifest.json").read_text(encoding="utf-8"))
    files = manifest["samples"]["files"] + manifest["evaluation"]["files"]
    for archive in manifest["archives"].values():
        files += archive["files"]
    return {file["sha256"]: file["kind"] for file in files}


def sources(paths: Iterable[Path]) -> list[Source]:
    """Every file named, or below a folder named (hidden files and licences left out), in order."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = sorted(p for p in path.rglob("*") if p.is_file())
            found += [p for p in below if not p.name.startswith((".", "LICENSE", "README"))]
        else:
            found.append(path)
    return [source(path) for path in found]


def source(path: Path) -> Source:
    data = path.read_bytes()
    try:
        chars: int | None = len(data.decode())
    except UnicodeDecodeError:
        chars = None
    sha256 = hashlib.sha256(data).hexdigest()
    kind = manifest_kinds().get(sha256) or path.suffix.lstrip(".") or "other"
    return Source(path, path.name, kind, len(data), chars, sha256)

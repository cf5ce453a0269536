"""Download classic corpora and check them: `python corpora/fetch.py silesia enwik8 --to data/corpora`.

Knows: manifest.json beside it, zip and tar.gz. Does not know: what the files are for. Needs Python alone.
A file is written under its name only after its size and SHA-256 are those of the manifest.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

MANIFEST = Path(__file__).with_name("manifest.json")
CHUNK = 1 << 20


class WrongFile(Exception):
    """Bytes that are not those of the manifest."""


def copy_checked(source: IO[bytes], target: Path, name: str, size: int | None, sha256: str | None) -> None:
    """Copy `source` to `target`; WrongFile, and no target, unless size and digest are as told (None: anything)."""
    partial = target.with_name(target.name + ".partial")
    digest, count = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            while chunk := source.read(CHUNK):
                count += len(chunk)
                if size is not None and count > size:
                    raise WrongFile(f"{name}: more than {size:,} bytes")
                digest.update(chunk)
                file.write(chunk)
        if size is not None and count != size:
            raise WrongFile(f"{name}: {count:,} bytes, {size:,} were expected")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise WrongFile(f"{name}: SHA-256 {digest.hexdigest()}, {sha256} was expected")
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """(base name, content) of every regular file in a zip or tar archive."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            for info in zipped.infolist():
                if not info.is_dir():
                    with zipped.open(info) as file:
                        yield PurePosixPath(info.filename).name, file
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and (content := tar.extractfile(member)) is not None:
                    yield PurePosixPath(member.name).name, content


def fetch(entry: dict[str, Any], folder: Path) -> list[Path]:
    """Download one entry of the manifest's archives, unpack it into `folder`, return its files."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {file["name"]: file for file in entry["files"]}
    if expected and all(is_right(folder / name, file) for name, file in expected.items()):
        return [folder / name for name in expected]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = Path(scratch) / "archive"
        with urllib.request.urlopen(entry["url"]) as response:
            copy_checked(response, archive, entry["url"], entry["bytes"], entry["sha256"])
        written = []
        for name, content in members(archive):
            file = expected.get(name, {})
            copy_checked(content, folder / name, name, file.get("bytes"), file.get("sha256"))
            written.append(folder / name)
    missing = expected.keys() - {path.name for path in written}
    if missing:
        raise WrongFile(f"{entry['url']} lacks {', '.join(sorted(missing))}")
    return written


def is_right(path: Path, file: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while chunk := opened.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == file["sha256"]


def main() -> int:
    archives = json.loads(MANIFEST.read_text(encoding="utf-8"))["archives"]
    parser = argparse.ArgumentParser(description="Download classic corpora and check them.")
    parser.add_argument("names", nargs="+", choices=sorted(archives), metavar="NAME", help=", ".join(archives))
    parser.add_argument("--to", type=Path, default=Path("data/corpora"), help="folder, one below it for each corpus")
    arguments = parser.parse_args()
    for name in arguments.names:
        entry = archives[name]
        print(f"{name}: {entry['url']} ({entry['bytes'] / 1e6:.1f} MB; licence: {entry['licence']})", file=sys.stderr)
        room = shutil.disk_usage(arguments.to.parent if arguments.to.parent.exists() else ".").free
        if room < 2 * entry["bytes"] + sum(file["bytes"] for file in entry["files"]):
            print(f"{name}: not enough room on the disk", file=sys.stderr)
            return 1
        try:
            files = fetch(entry, arguments.to / name)
        except (WrongFile, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: {len(files)} files, {sum(path.stat().st_size for path in files):,} bytes, as they should be")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Text from Debian's packages: what models learn besides the pool, and, from other packages, texts to measure them on.

    python corpora/debian.py fetch --to DEBS
    python corpora/debian.py test DEBS --to TEXTS
    python corpora/debian.py train DEBS --without TEXTS --without EVALUATION --to SHARDS

Knows: debian.txt beside it (use, package, version, bytes that were taken), packages, what is text. Does not know: models.
Needs dpkg-deb, and apt-get to fetch, whose sources are those of Debian 12 (main). Packages are chosen for what the pool has little or
nothing of: manuals and help in many languages, programs in languages that it lacks, their documentation and data. A package gives a few hundred
kB at most, so that none is learned by heart. A document of which half is in others already is left out, and so is one that has
more than a little of a text to measure on.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import html
import lzma
import random
import re
import subprocess
import tarfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import zstandard

LIST = Path(__file__).with_name("debian.txt")
TEST = "test"  # the use of packages that nothing is learned from
LIMITS = {"languages": 1_000_000, "docs": 500_000, "code": 160_000}  # bytes that one package gives, by its use
MORE = {  # those that give more
    "installation-guide-amd64": 8_000_000, "mediawiki": 6_000_000, "gnome-user-docs": 5_000_000,
    "apache2-doc": 3_000_000, "anarchism": 2_500_000, "unicode-cldr-core": 1_500_000,
} | dict.fromkeys(
    """ansible erlang-src gnat-12 guile-3.0-libs libboost1.81-dev libcgal-dev libcoq-stdlib libeigen3-dev libgtk-3-dev
    libphobos2-ldc-shared-dev nim octave phpmyadmin python3-sympy qtbase5-dev racket-common tcllib texlive-latex-extra
    texlive-latex-recommended texlive-pictures tklib vim-runtime wordpress zsh-common""".split(),
    1_200_000,
)  # fmt: skip
DOCS = set(
    """1 2 3 4 5 6 7 8 9 adoc asciidoc bib doc docbook dtx htm html info ltx markdown md org page po pod pot rst tex texi text
    textile txt u8 xhtml xml""".split()
)  # suffixes
DATA = set(
    """aff afm bdf cfg conf csv dat data desktop dic dict dtd geojson gir gpx ids idx index ini json kicad_mod kicad_sym kml lib
    list log none obj properties rng sql svg svgz tab table tbl theme toml tsv xsd yaml yml""".split()
)
NOT_TEXT = set(
    """a cma cmi cmt cmti cmx elc enc eps gif gmo gresource hash hi jpg map md5sums mo o pdf pfb png po~ ps pyc so tfm ttf vf
    woff""".split()
)
UNPACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress, ".dz": gzip.decompress,
}  # fmt: skip
UNREADABLE = (OSError, EOFError, ValueError, lzma.LZMAError, zlib.error)  # what UNPACK raises; not UTF-8
LEAST, LONGEST = 400, 6_000_000  # bytes of a file
READ = 60_000_000  # bytes of a package's text, at most, that are chosen from
HUGE = 30_000_000  # bytes of a file that is not read
WORD = re.compile(rb"[\xe3-\xed][\x80-\xbf]{2}|[0-9A-Za-z_\x80-\xff]+")  # or a letter of Chinese, Japanese, Korean
WORDS = 8  # of a shingle


class Package(NamedTuple):
    use: str  # "test", or a key of LIMITS
    name: str
    path: Path


def listed() -> list[list[str]]:
    """[use, package, version, bytes] of each line of the list."""
    return [line.split() for line in LIST.read_text().splitlines()]


def packages(folder: Path, test: bool) -> list[Package]:
    """Those of the list that lie in the folder, and are for that."""
    files = {path.name.split("_")[0]: path for path in folder.glob("*.deb")}
    return [Package(use, name, files[name]) for use, name, *_ in listed() if name in files and (use == TEST) == test]


def members(package: Package) -> Iterator[tuple[str, int, Callable[[], bytes]]]:
    """(path, size, content) of each regular file of a package."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", package.path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, member.size, lambda m=member: archive.extractfile(m).read()  # type: ignore[misc, union-attr]


def unpacked(name: str) -> tuple[str, Callable[[bytes], bytes] | None]:
    """A file's name without the suffix that says how it is compressed, and what undoes that."""
    for suffix, undo in UNPACK.items():
        if name.lower().endswith(suffix):
            return name[: -len(suffix)], undo
    return name, None


def suffix_of(name: str) -> str:
    return name.rsplit(".", 1)[-1] if "." in name else "none"


def words_of(page: bytes) -> bytes:
    """The text of a page of HTML."""
    page = re.sub(rb"(?s)<(script|style|head)\b.*?</\1>", b"", page)
    page = re.sub(rb"(?i)</(p|div|h\d|li|tr|table|ul|dt|dd)>|<br[^>]*>", b"\n", page)
    text = re.sub(r"[ \t]+", " ", html.unescape(re.sub(r"<[^>]*>", "", page.decode())))
    return re.sub(r"[ \t]*\n\s*\n+", "\n\n", text).strip().encode() + b"\n"


def shingles(text: bytes) -> np.ndarray:
    """uint64, sorted: an eighth of the hashes of WORDS words in a row (Broder 1997)."""
    words = np.array([zlib.crc32(word) for word in WORD.findall(text.lower())], np.uint64)
    if len(words) < WORDS:
        return words[:0]
    h = np.zeros(len(words) - WORDS + 1, np.uint64)
    for i in range(WORDS):
        h = h * np.uint64(0x9E3779B97F4A7C15) + words[i : len(words) - WORDS + 1 + i]
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(32)
    return np.unique(h[(h & np.uint64(7)) == 0])


def documents(package: Package) -> list[tuple[str, bytes, np.ndarray]]:
    """(category, text, shingles) of the files that are taken of a package, some by chance, the same each time."""
    rng = random.Random(package.name)
    limit = MORE.get(package.name, LIMITS[package.use])
    found, size = [], 0
    for path, packed, content in members(package):
        name, undo = unpacked(path.rsplit("/", 1)[-1].lower())
        suffix, history = suffix_of(name), name.startswith(("changelog", "news", "changes"))
        if (
            not LEAST <= packed <= LONGEST
            or name.startswith("copyright")
            or suffix in NOT_TEXT
            or ".min." in name
            or "tar" in suffix
        ):
            continue
        try:
            text = undo(content()) if undo else content()
            text.decode()
        except UNREADABLE:
            continue
        if len(text) < LEAST or b"\0" in text:
            continue
        if package.name.startswith("libreoffice-help") and suffix == "html":
            text = words_of(text)
        if len(text) > (most := 20_000 if history else 60_000 if suffix == "svg" else 120_000):
            begin = rng.randrange(len(text) - most)
            begin = text.rfind(b"\n", 0, begin) + 1
            text = text[begin : text.rfind(b"\n", begin, begin + most) + 1]
        if len(text) < LEAST or len(text) / (text.count(b"\n") + 1) > 1500:
            continue
        kind = "docs" if suffix in DOCS or history else "data" if suffix in DATA else "code"
        found.append(
            (rng.random(), "languages" if package.use == "languages" else kind, "news" if history else suffix, text)
        )
        size += len(text)
        if size > READ:
            break
    taken: Counter[str] = Counter()  # bytes by suffix
    result = []
    for _, kind, suffix, text in sorted(found, key=lambda file: file[0]):
        most = 25_000 if suffix == "news" else limit
        if suffix in ("svg", "html") and package.use == "code":
            most = limit // 8
        if taken.total() + len(text) <= limit and taken[suffix] + len(text) <= most:
            taken[suffix] += len(text)
            result.append((kind, text, shingles(text)))
    return result


def train(folder: Path, without: list[Path], to: Path) -> None:
    """Writes shards deb_CATEGORY.00.txt.zst, documents joined by one zero byte, and prints the list with what was taken."""
    files = [path for where in without for path in sorted(where.iterdir()) if path.is_file()]
    kept_away = np.unique(np.concatenate([shingles(path.read_bytes()) for path in files] or [np.empty(0, np.uint64)]))
    chosen = packages(folder, False)
    seen: set[int] = set()  # shingles
    same: set[bytes] = set()  # digests of documents
    by_category: dict[str, list[bytes]] = defaultdict(list)
    size: Counter[str] = Counter()
    with ProcessPoolExecutor() as pool:
        for package, found in zip(chosen, pool.map(documents, chosen, chunksize=4), strict=True):
            for category, text, of_it in found:
                digest, hashes = hashlib.md5(text).digest(), of_it.tolist()
                if digest in same:
                    continue
                same.add(digest)
                if hashes and sum(h in seen for h in hashes) > len(hashes) / 2:
                    continue
                copied = int(np.isin(of_it, kept_away, assume_unique=True).sum())
                if copied >= 4 and (copied > len(hashes) / 5 or copied >= 25):
                    continue
                seen.update(hashes)
                by_category[category].append(text)
                size[package.name] += len(text)
    to.mkdir(parents=True, exist_ok=True)
    for category, texts in by_category.items():
        random.Random(category).shuffle(texts)
        (to / f"deb_{category}.00.txt.zst").write_bytes(zstandard.ZstdCompressor(9).compress(b"\0".join(texts)))
    for package in chosen:
        print(package.use, package.name, package.path.name.split("_")[1].replace("%3a", ":"), size[package.name])


def texts(package: Package, to: Path) -> None:
    """Writes PACKAGE.SUFFIX, of as many files by chance as make 200 kB, for each suffix that has 40 kB of text."""
    by_suffix: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for path, packed, content in members(package):
        name, undo = unpacked(path.rsplit("/", 1)[-1])
        if packed < 200 or (
            f"/usr/share/doc/{package.name}" in path and name.startswith(("copyright", "changelog", "NEWS"))
        ):
            continue
        by_suffix[suffix_of(name)[:8]].append((path, content() if packed <= HUGE else b"", undo))
    for suffix, files in by_suffix.items():
        files.sort(key=lambda file: PurePosixPath(file[0]).parts)
        random.Random(1).shuffle(files)
        most, result = 80_000 if len(files) > 3 else 250_000, b""
        for _, text, undo in files:
            try:
                text = undo(text) if undo else text
                text[:100_000].decode()
            except UnicodeDecodeError as error:
                if error.start < 99_990:
                    continue
            except UNREADABLE:
                continue
            if b"\0" not in text[:4096]:
                result += text[:most]
            if len(result) > 200_000:
                break
        if len(result) > 40_000:
            (to / f"{package.name}.{suffix}").write_bytes(result[:200_000])


def fetch(to: Path) -> None:
    """Downloads the list's packages, in their versions of now."""
    to.mkdir(parents=True, exist_ok=True)
    names = [name for _, name, *_ in listed()]
    for i in range(0, len(names), 50):
        subprocess.run(["apt-get", "download", "-q", *names[i : i + 50]], cwd=to, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, about in (
        ("fetch", "download the packages"), ("test", "write texts to measure on"), ("train", "write shards to learn from"),
    ):  # fmt: skip
        command = commands.add_parser(name, help=about)
        if name != "fetch":
            command.add_argument("packages", type=Path, help="folder of .deb files")
        if name == "train":
            command.add_argument(
                "--without", type=Path, action="append", default=[], help="folder of texts that are kept away from"
            )
        command.add_argument("--to", type=Path, required=True, help="folder to write to")
    given = parser.parse_args()
    if given.command == "fetch":
        fetch(given.to)
    elif given.command == "test":
        given.to.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(texts, to=given.to), packages(given.packages, True)))
    else:
        train(given.packages, given.without, given.to)


if __name__ == "__main__":
    main()

"""corpora/debian.py on packages made here: what is taken, what is left out, and that it is the same each time."""

from __future__ import annotations

import gzip
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

sys.path.insert(0, str(Path(__file__).parent.parent / "corpora"))
import debian

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="packages are made with dpkg-deb")


def prose(seed: int, words: int = 400) -> bytes:
    """Lines of words that no other seed has in this order."""
    return b"\n".join(
        b" ".join(b"word%d" % ((seed * 7919 + i * i) % 9973) for i in range(j, j + 10)) for j in range(0, words, 10)
    )


def package(folder: Path, name: str, files: dict[str, bytes]) -> None:
    root = folder / f"{name}.root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN/control").write_text(
        f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: none\n"
    )
    for path, content in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    subprocess.run(["dpkg-deb", "--build", root, folder / f"{name}_1%3a2_all.deb"], check=True, capture_output=True)


def documents_of(shard: Path) -> list[bytes]:
    return zstandard.ZstdDecompressor().stream_reader(shard.read_bytes()).read().split(b"\0")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "list.txt").write_text("languages first 1 0\ncode second 1 0\ntest third 1 0\ncode absent 1 0\n")
    monkeypatch.setattr(debian, "LIST", tmp_path / "list.txt")
    package(tmp_path, "first", {
        "usr/share/help/fr/page.txt": prose(1),
        "usr/share/help/fr/packed.txt.gz": gzip.compress(prose(2)),
        "usr/share/help/fr/broken.txt.gz": b"not what its name says" * 40,
        "usr/share/help/fr/latin1.txt": "élève ".encode("latin-1") * 200,
        "usr/share/help/fr/zero.txt": b"\0" + prose(3),
        "usr/share/doc/first/copyright": prose(4),
        "usr/share/help/fr/short.txt": b"short",
    })  # fmt: skip
    package(tmp_path, "second", {
        "usr/lib/program.py": prose(5),
        "usr/lib/manual.rst": prose(6),
        "usr/lib/table.csv": prose(7),
        "usr/lib/nearly.py": prose(1) + b"\nand a line of its own",
        "usr/lib/measured.py": prose(8),
    })  # fmt: skip
    package(tmp_path, "third", {"usr/share/text/long.txt": prose(9, 20_000), "usr/share/text/other.md": prose(10)})
    return tmp_path


def test_train(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "evaluation").mkdir()
    (folder / "evaluation/text").write_bytes(b"begins otherwise " + prose(8))
    debian.train(folder, [folder / "evaluation"], folder / "shards")
    shards = {path.name: documents_of(path) for path in sorted((folder / "shards").iterdir())}
    assert {name: sorted(found) for name, found in shards.items()} == {
        "deb_code.00.txt.zst": [prose(5)],
        "deb_data.00.txt.zst": [prose(7)],
        "deb_docs.00.txt.zst": [prose(6)],
        "deb_languages.00.txt.zst": sorted([prose(1), prose(2)]),
    }
    assert capsys.readouterr().out.splitlines() == [
        f"languages first 1:2 {len(prose(1) + prose(2))}",
        f"code second 1:2 {len(prose(5) + prose(6) + prose(7))}",
    ]
    debian.train(folder, [], folder / "with")
    assert prose(8) in documents_of(folder / "with/deb_code.00.txt.zst")
    debian.train(folder, [folder / "evaluation"], folder / "again")
    for path in (folder / "again").iterdir():
        assert path.read_bytes() == (folder / "shards" / path.name).read_bytes()


def test_texts_to_measure_on(folder: Path) -> None:
    (third,) = debian.packages(folder, True)
    (folder / "texts").mkdir()
    debian.texts(third, folder / "texts")
    assert [path.name for path in (folder / "texts").iterdir()] == ["third.txt"]  # the other is too short
    assert prose(9, 20_000).startswith((folder / "texts/third.txt").read_bytes()[:200_000])


def test_page_of_html() -> None:
    page = b"<head><title>x</title></head><style>p {}</style><p>Caf\xc3\xa9 &amp; more</p> <p>next<br>line</p>"
    assert debian.words_of(page) == "Café & more\n next\nline\n".encode()


def test_list_names_each_package_once() -> None:
    lines = debian.listed()
    assert len({name for _, name, _, _ in lines}) == len(lines)
    assert {use for use, *_ in lines} == {debian.TEST, *debian.LIMITS}
    assert debian.MORE.keys() <= {name for _, name, _, _ in lines}

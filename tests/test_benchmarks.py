"""The harness on a tiny corpus: what it measures is right, and what fails is said to."""

import dataclasses
import hashlib
import json
import sys
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import breakdown, codecs, measure, report, results
from benchmarks.__main__ import main
from benchmarks.codecs import Codec, Command
from benchmarks.corpora import CORPORA, source, sources
from benchmarks.measure import Effort
from benchmarks.worker import cut
from lmcompress import predictor

QUICK = Effort(repeats=1, budget=1.0, timeout=60.0)
TEXT = "Grüße aus 北京. ".encode() * 500


class Zlib(Codec):
    """A codec of one's own, as a module and as a command."""

    name, module, tool = "zlib", "zlib", "python3"
    error = ""

    def version(self) -> str:
        return "1"

    def has_tool(self) -> bool:
        return True

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)

    def command(self, function: str, source: Path, target: Path) -> Command:
        code = f"import sys, zlib; sys.stdout.buffer.write(zlib.{function}(sys.stdin.buffer.read())); {self.error}"
        return Command((sys.executable, "-c", code), source, target)

    def pack(self, source: Path, archive: Path) -> Command:
        return self.command("compress", source, archive)

    def unpack(self, archive: Path, target: Path) -> Command:
        return self.command("decompress", archive, target)


class Lossy(Zlib):
    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)[:-1]


class Raising(Zlib):
    def encode(self, data: bytes) -> bytes:
        raise MemoryError("too large")


class Dying(Zlib):
    def encode(self, data: bytes) -> bytes:
        import os

        os._exit(9)


class BadCommand(Zlib):
    error = "sys.exit('no space')"


class Slow(Zlib):
    def encode(self, data: bytes) -> bytes:
        import time

        time.sleep(60)
        return data


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(TEXT)
    return source(path)


def own(name):
    return codecs.find(f"{__name__}:{name}")


def test_a_row(text):
    row = measure.measure(own("Zlib"), text, "files", QUICK)
    assert row.ok and not row.error
    assert row.coded_bytes == len(zlib.compress(TEXT))
    assert row.bpb == round(8 * row.coded_bytes / len(TEXT), 4)
    assert row.bpc == round(8 * row.coded_bytes / len(TEXT.decode()), 4)
    for way in ("module", "tool"):
        for direction in ("encode", "decode"):
            assert getattr(row, f"{way}_{direction}_s") > 0
            assert 1e6 < getattr(row, f"{way}_{direction}_memory") < 1e9


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Lossy", "decode: RuntimeError: what was decoded is not what was encoded"),
        ("Raising", "encode: MemoryError: too large"),
        ("Dying", "encode: the process ended with status 9"),
        ("BadCommand", "encode: RuntimeError: exit status 1: no space"),
        ("Slow", "encode: longer than 3 s"),
    ],
)
def test_failures_are_reported(text, name, message):
    row = measure.measure(own(name), text, "files", Effort(1, 1.0, 3.0 if name == "Slow" else 60.0))
    assert not row.ok and row.error == message
    assert row.bpb is None


def test_pieces(text):
    row = measure.measure(own("Zlib"), text, "small", QUICK, piece=1024, pieces=3)
    parts = cut(TEXT, 1024, 3)
    assert row.ok and row.bytes == 3 * 1024 and row.tool_encode_s is None
    assert row.coded_bytes == sum(len(zlib.compress(part)) for part in parts)
    assert cut(TEXT, 0, 3) == [TEXT] and parts[0] == TEXT[:1024] and parts[-1] == TEXT[-1024:]


def test_what_is_not_text_has_no_characters(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\0" * 100)
    (tmp_path / "empty").write_bytes(b"")
    binary, empty = sources([tmp_path])
    assert (binary.chars, empty.size, empty.chars) == (None, 0, 0)
    assert measure.measure(own("Zlib"), binary, "files", QUICK).bpc is None
    row = measure.measure(own("Zlib"), empty, "files", QUICK)
    assert row.ok and row.bpb is None


def test_command_resumes_and_reports(tmp_path, text):
    out = tmp_path / "results" / "some.jsonl"
    arguments = ["run", "--corpus", str(text.path), "--codec", "gzip-9", "--repeats", "1", "--out", str(out)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    first = results.read(out)
    assert [row.codec for row in first] == ["gzip-9"]
    failing = [*arguments, "--codec", f"{__name__}:Lossy"]
    assert CliRunner().invoke(main, failing).exit_code == 1
    rows = results.read(out)
    assert rows[0] == first[0] and [row.ok for row in rows] == [True, False]
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 3
    assert CliRunner().invoke(main, [*arguments, "--again"]).exit_code == 0
    assert len(results.read(out)) == 3 and len(results.read_all(out.parent)) == 2
    assert CliRunner().invoke(main, ["run", "--codec", "no-such-codec"]).exit_code == 2


def test_report(tmp_path, monkeypatch):
    alice = source(CORPORA / "samples" / "alice29.txt")
    monkeypatch.setattr(report, "collections", lambda: {"evaluation": {}, "samples": {alice.sha256: "alice29.txt"}})
    for study, pieces in (("files", (0,)), ("small", (1024, 4096))):
        for codec in ("gzip-9", "xz-9e"):
            for piece in pieces:
                row = measure.measure(codecs.find(codec), alice, study, QUICK, piece=piece, pieces=2)
                results.append(tmp_path / "results" / "a.jsonl", dataclasses.replace(row, load=0.5))
    late = dataclasses.replace(row, codec="lz4-12", load=4.5, machine="some processor, 2 cores, 8 GiB")
    results.append(tmp_path / "results" / "a.jsonl", late)
    (tmp_path / "README.md").write_text("Before\n<!-- table samples-results -->\n<!-- end -->\nafter\n")
    pytest.importorskip("matplotlib")
    written = report.write(True, tmp_path / "results", tmp_path / "docs")
    readme = (tmp_path / "README.md").read_text()
    assert "|  | xz -9e |" in readme and "| alice29.txt (152,089) | 48,528 |" in readme and readme.endswith("after\n")
    page = (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert "| xz-9e | 48,5" in page and "| alice29.txt (152,089) | 54,1" in page
    assert "speeds are too low: lz4-12 in small.\n" in page
    assert page.index("| xz-9e | 48,528") < page.index("| gzip-9 | 54,182"), "best first"
    assert {path.name for path in written} >= {"front.png", "front.svg", "kinds.svg", "small.svg"}
    page = page.replace("# Benchmarks", "# A heading of ours")
    (tmp_path / "docs" / "BENCHMARKS.md").write_text(page)
    report.write(False, tmp_path / "results", tmp_path / "docs")
    assert (tmp_path / "docs" / "BENCHMARKS.md").read_text() == page


def test_time(tmp_path):
    out = tmp_path / "results" / "time" / "a.jsonl"
    arguments = [
        "time",
        str(CORPORA / "samples" / "alice29.txt"),
        "--limit",
        "2000",
        "--repeats",
        "1",
        "--out",
        str(out),
    ]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    rows = breakdown.read_all(out.parent)
    assert [(row.direction, row.threads) for row in rows] == [(d, t) for t in (1, 2) for d in ("encode", "decode")]
    for row in rows:
        assert min(row.network, row.mixer, row.rest, row.elapsed) > 0 and row.bytes == 2000 and row.lanes == 1
    assert predictor.ThreadPoolExecutor is ThreadPoolExecutor, "clocks are taken out again"
    pytest.importorskip("matplotlib")
    report.write(True, out.parents[1], tmp_path / "docs")
    assert "| 5 | alice29.txt (2,000) | 1 | decode | 2 |" in (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert "decode, 2 threads" in (tmp_path / "docs" / "plots" / "time.svg").read_text()


def test_every_codec_installed_here_round_trips(tmp_path, text):
    for name, codec in codecs.CODECS.items():
        if codec.missing() is None and not name.startswith("lmcompress"):
            row = measure.measure(codec, text, "files", QUICK)
            assert row.ok, f"{name}: {row.error}"


def test_manifest():
    manifest = json.loads((CORPORA / "manifest.json").read_text())
    named = {file["name"]: file for file in manifest["samples"]["files"]}
    found = sources([CORPORA / "samples"])
    assert {file.name for file in found} == set(named)
    for file in found:
        assert (file.sha256, file.size) == (named[file.name]["sha256"], named[file.name]["bytes"])
        assert file.kind == named[file.name]["kind"]
    assert sum(file.size for file in found) < 600_000


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_fetch(tmp_path, suffix):
    sys.path.insert(0, str(CORPORA))
    import fetch

    content, archive = b"some text", tmp_path / f"corpus.{suffix}"
    (tmp_path / "book").write_bytes(content)
    if suffix == "zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            zipped.write(tmp_path / "book", "../folder/book")
    else:
        with tarfile.open(archive, "w:gz") as tar:
            tar.add(tmp_path / "book", "../folder/book")

    def digest(data):
        return hashlib.sha256(data).hexdigest()

    file = {"name": "book", "bytes": len(content), "sha256": digest(content)}
    entry = {
        "url": archive.as_uri(),
        "bytes": archive.stat().st_size,
        "sha256": digest(archive.read_bytes()),
        "files": [file],
    }
    target = tmp_path / "target"
    assert fetch.fetch(entry, target) == [target / "book"]
    assert (target / "book").read_bytes() == content
    assert fetch.fetch({**entry, "url": "file:///nowhere"}, target) == [target / "book"], "what is there is not fetched"
    for wrong in (
        {**entry, "sha256": digest(b"")},
        {**entry, "bytes": 10},
        {**entry, "files": [{**file, "sha256": digest(b"")}]},
        {**entry, "files": [file, {**file, "name": "other"}]},
    ):
        with pytest.raises(fetch.WrongFile):
            fetch.fetch(wrong, tmp_path / "elsewhere")
        if wrong["files"] != [file, {**file, "name": "other"}]:
            assert not (tmp_path / "elsewhere" / "book").exists()

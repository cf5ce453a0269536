"""The harness on a tiny corpus: what it measures is right, and what fails is said to."""

import dataclasses
import hashlib
import json
import re
import sys
import tarfile
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks import codecs, kernels, measure, report, results, worker
from benchmarks.__main__ import main
from benchmarks.breakdown import Breakdown
from benchmarks.codecs import Codec, Command
from benchmarks.corpora import CORPORA, source, sources
from benchmarks.measure import Effort
from benchmarks.results import Row
from benchmarks.worker import cut
from lmcompress import predictor
from lmcompress.methods import DEFAULT_LEVEL

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


class Sparing(Zlib):
    """Does nothing where the file is there already, as zpaq does."""

    def unpack(self, archive: Path, target: Path) -> Command:
        code = f"import os, zlib; os.path.exists({str(target)!r}) and exit('nothing to do'); "
        code += f"open({str(target)!r}, 'wb').write(zlib.decompress(open({str(archive)!r}, 'rb').read()))"
        return Command((sys.executable, "-c", code))


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
    assert row.took > row.tool_encode_s


def test_every_run_decodes(text):
    row = measure.measure(own("Sparing"), text, "files", Effort(2, 60.0, 60.0))
    assert row.ok and row.runs == 2


def test_what_takes_long_in_process_is_not_run_as_a_command(text):
    row = measure.measure(own("Zlib"), text, "files", Effort(3, 0.0, 60.0))
    assert row.ok and row.coded_bytes == len(zlib.compress(TEXT)) and row.runs == 1
    assert row.module_encode_s > 0 and row.module_decode_s > 0
    assert row.tool_encode_s is None and row.tool_decode_s is None


def test_runs_within_the_budget(monkeypatch):
    def job(repeats, budget):
        return worker.Job("", 1, "encode", "module", "", "", "", 0, repeats, budget)

    monkeypatch.setattr(worker.time, "perf_counter", iter(range(100)).__next__)  # every run takes a second
    for repeats, budget, runs in ((3, 5.0, 3), (9, 5.0, 5), (3, 1.5, 1), (3, 0.5, 1)):
        assert worker.timed(lambda: None, job(repeats, budget)) == ([1] * runs, None)


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
    row = measure.measure(own("Zlib"), text, "small", QUICK, piece=1024)
    parts = cut(TEXT, 1024)
    assert row.ok and row.bytes == len(TEXT) // 1024 * 1024 and row.tool_encode_s is None
    assert row.coded_bytes == sum(len(zlib.compress(part)) for part in parts)
    assert cut(TEXT, 0) == [TEXT] and parts[0] == TEXT[:1024] and parts[-1] == TEXT[-1024:]
    counts = {size: len(cut(bytes(1 << 20), size << 10)) for size in (1, 4, 16, 64, 256)}
    assert counts == {1: 32, 4: 16, 16: 4, 64: 1, 256: 1}
    assert cut(TEXT, len(TEXT) - 4) == [TEXT[2:-2]]


def test_small_takes_files_longer_than_the_largest_piece(tmp_path):
    for size in (3000, 5000, 5001):
        (tmp_path / str(size)).write_bytes((bytes(range(256)) * 20)[:size])
    out = tmp_path / "results" / "a.jsonl"
    arguments = ["small", "--codec", "gzip-9", "--codec", "xz-9e", "--out", str(out)]
    arguments += [f"--corpus={tmp_path / str(size)}" for size in (3000, 5000, 5001)]
    assert CliRunner().invoke(main, arguments).exit_code == 0
    rows = results.read(out, Row)
    assert {(row.file, row.piece, row.bytes) for row in rows} == {
        (name, piece, count * piece) for name in ("5000", "5001") for piece, count in ((1024, 4), (4096, 1))
    }
    gzip, xz = (codecs.find(name) for name in ("gzip-9", "xz-9e"))
    assert report.small_table(rows)[0] == ["", "1 KiB", "4 KiB"]
    whole = [measure.measure(gzip, source(tmp_path / name), "files", QUICK) for name in ("5000", "5001")]
    whole += [measure.measure(xz, source(tmp_path / "5000"), "files", QUICK)]
    head, _, first, second, *_ = report.small_table(rows + whole)
    assert head == ["", "1 KiB", "4 KiB", "whole"]
    assert first[0] == "gzip-9" and float(first[-1]) == pytest.approx(sum(row.bpb for row in whole[:2]) / 2, abs=1e-3)
    assert second[0] == "xz-9e" and second[-1] == "", "not known of one file"


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
    first = results.read(out, Row)
    assert [row.codec for row in first] == ["gzip-9"]
    failing = [*arguments, "--codec", f"{__name__}:Lossy"]
    assert CliRunner().invoke(main, failing).exit_code == 1
    rows = results.read(out, Row)
    assert rows[0] == first[0] and [row.ok for row in rows] == [True, False]
    assert len(out.with_suffix(".csv").read_text().splitlines()) == 3
    assert CliRunner().invoke(main, [*arguments, "--again"]).exit_code == 0
    assert len(results.read(out, Row)) == 3 and len(results.read_all(Row, out.parent)) == 2
    assert CliRunner().invoke(main, ["run", "--codec", "no-such-codec"]).exit_code == 2


def test_scaling(tmp_path):
    (tmp_path / "a").write_bytes(TEXT)
    out = tmp_path / "results" / "a.jsonl"
    arguments = ["scaling", "--codec", "gzip-9", "--corpus", str(tmp_path / "a"), "--corpus", str(tmp_path / "a")]
    arguments += ["--size", "2k", "--size", "12K", "--size", "10M", "--repeats", "1", "--out", str(out)]
    found = CliRunner().invoke(main, arguments)
    assert found.exit_code == 0 and "10,485,760: the corpus has only" in found.output
    assert [row.bytes for row in results.read(out, Row)] == [2048, 12288]


def empty_pages(folder):
    """The repository's pages without their tables; where report finds them."""
    for path in (report.DOCS / "BENCHMARKS.md", report.DOCS.parent / "README.md"):
        page = re.sub(r"(<!-- table [\w-]+ -->\n).*?(<!-- end -->)", r"\1\2", path.read_text(), flags=re.DOTALL)
        target = folder / path.relative_to(report.DOCS.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page)
    return folder / "docs"


def test_report(tmp_path, monkeypatch):
    alice = source(CORPORA / "samples" / "alice29.txt")
    monkeypatch.setattr(report, "collections", lambda: {"evaluation": {}, "samples": {alice.sha256: "alice29.txt"}})
    for study, pieces in (("files", (0,)), ("small", (1024, 4096))):
        for codec in ("gzip-9", "xz-9e"):
            for piece in pieces:
                row = measure.measure(codecs.find(codec), alice, study, QUICK, piece=piece)
                results.append(tmp_path / "results" / "a.jsonl", dataclasses.replace(row, load=0.5))
    late = dataclasses.replace(row, codec="lz4-12", load=4.5, machine="some processor, 2 cores, 8 GiB")
    results.append(tmp_path / "results" / "a.jsonl", late)
    docs = empty_pages(tmp_path)
    (tmp_path / "README.md").write_text("Before\n<!-- table samples-results -->\n<!-- end -->\nafter\n")
    pytest.importorskip("matplotlib")
    written = report.write(True, tmp_path / "results", docs)
    readme = (tmp_path / "README.md").read_text()
    assert "|  | xz -9e |" in readme and "| alice29.txt (152,089) | 48,528 |" in readme and readme.endswith("after\n")
    page = (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert "| xz-9e | 48,5" in page and "| alice29.txt (152,089) | 54,1" in page
    assert "speeds are too low: lz4-12 in small.\n" in page
    assert page.count("All of these measurements took 0.") == 2, "of the samples, in pieces and whole"
    assert page.index("| xz-9e | 48,528") < page.index("| gzip-9 | 54,182"), "best first"
    assert {path.name for path in written} >= {"front.png", "front.svg", "kinds.svg", "small.svg"}
    page = page.replace("# Benchmarks", "# A heading of ours")
    (tmp_path / "docs" / "BENCHMARKS.md").write_text(page)
    report.write(False, tmp_path / "results", docs)
    assert (tmp_path / "docs" / "BENCHMARKS.md").read_text() == page


def test_speeds_of_two_processors_are_not_added(text):
    row = measure.measure(codecs.find("gzip-9"), text, "files", QUICK)
    fast = dataclasses.replace(row, machine="Quick, 2 cores, 8 GiB", module_encode_s=row.bytes / 2e6, load=0.5)
    slow = dataclasses.replace(row, machine="Slow, 2 cores, 8 GiB", module_encode_s=row.bytes / 1e6, load=0.5)
    other = dataclasses.replace(fast, codec="xz-9e")
    assert results.latest([fast, slow, other]) == [fast, slow, other]
    assert report.at_home([slow, fast, other]) == [fast, other] and report.at_home([]) == []
    later = dataclasses.replace(slow, date="9999", coded_bytes=1, bpb=0.5)
    assert report.rows_at_home([fast, later, other]) == [dataclasses.replace(fast, coded_bytes=1, bpb=0.5), other]
    lines = report.processors_table([fast, slow, other], 1)[2:]
    assert [line[:2] + [line[3]] for line in lines] == [["gzip-9", "Quick", "2"], ["gzip-9", "Slow", "1"]]


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
    rows = results.read_all(Breakdown, out.parents[1])
    assert [(row.direction, row.threads) for row in rows] == [(d, t) for t in (1, 2) for d in ("encode", "decode")]
    for row in rows:
        assert min(row.network, row.mixer, row.rest, row.elapsed) > 0 and row.bytes == 2000 and row.lanes == 1
        native = row.engine.startswith("native")
        assert (min(row.matrices, row.attention, row.distribution, row.coder) > 0) == native
    assert predictor.ThreadPoolExecutor is ThreadPoolExecutor, "clocks are taken out again"
    pytest.importorskip("matplotlib")
    report.write(True, out.parents[1], empty_pages(tmp_path))
    assert (
        f"| {DEFAULT_LEVEL} | alice29.txt (2,000) | 1 | decode | 2 |"
        in (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    )
    assert "decode, 2 threads" in (tmp_path / "docs" / "plots" / "time.svg").read_text()


def test_inner_loops(tmp_path):
    _native = pytest.importorskip("lmcompress._native")
    folder = tmp_path / "results"
    for name, options in (("kernels", []), ("steps", ["--threads", "1", "--lanes", "1", "--lanes", "3"])):
        arguments = [name, *options, "--seconds", "0.001", "--out", str(folder / name / "a.jsonl")]
        assert CliRunner().invoke(main, arguments).exit_code == 0
    products, steps = results.read_all(kernels.Product, folder), results.read_all(kernels.Step, folder)
    assert [(p.kernel, p.rows) for p in products] == [(k, rows) for k in _native.kernels() for rows in kernels.ROWS]
    assert all(p.rate > 0 and p.peak > 0 for p in products)
    assert [(s.threads, s.lanes) for s in steps] == [(1, 1), (1, 3)] and all(0 < s.least <= s.median for s in steps)
    report.write(False, folder, empty_pages(tmp_path))
    page = (tmp_path / "docs" / "BENCHMARKS.md").read_text()
    assert f"| {products[0].kernel} | {products[0].rate / 1e9:.0f} (" in page
    assert f"| fast | {steps[0].kernel} | 1 | {1e6 * steps[0].least:,.0f} / " in page


@pytest.mark.parametrize(
    ("printed", "version"),
    [
        ("zpaq v7.15 journaling archiver", "7.15"),
        ("cmix version 21\nCompress:", "21"),
        ("paq8px archiver v211 (c) 2026, Matt Mahoney", "211"),
        ("usage:", "unknown"),
    ],
)
def test_version_of_a_command(printed, version):
    assert codecs.command_version(sys.executable, ("-c", f"print({printed!r})")) == version


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
    classic = manifest["archives"]
    assert set(classic) == {"canterbury", "calgary", "silesia", "enwik8", "enwik9", "text8"}
    for entry in (*classic.values(), *(file for archive in classic.values() for file in archive["files"])):
        assert entry["bytes"] > 0 and re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    for archive in classic.values():
        assert archive["url"].startswith("https://") and archive["licence"] and archive["split"] == "evaluation"


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


@pytest.fixture
def pool(tmp_path):
    """Documents of two categories, one of each in the validation split."""
    data = pytest.importorskip("lmcompress.training.data")
    text = (CORPORA / "samples" / "alice29.txt").read_bytes()
    for n, category in enumerate(("code", "en_wiki")):
        (tmp_path / "pool" / category).mkdir(parents=True)
        cuts = [text[i : i + 3000] for i in range(30_000 * n, 30_000 * (n + 1))]
        held_out = next(part for part in cuts if data.is_validation(part))
        for i, document in enumerate((held_out, *(part for part in cuts[::3000] if not data.is_validation(part)))):
            (tmp_path / "pool" / category / str(i)).write_bytes(document)
    return tmp_path / "pool"


def test_vocabulary(pool):
    vocabulary = pytest.importorskip("benchmarks.vocabulary")
    columns = [list(column.cells) for column in vocabulary.table(["256", "fast", "270"], pool, 10**5).columns]
    assert columns[0][:3] == ["code", "en_wiki", "mix"]
    assert columns[2][:3] == ["1.00"] * 3, "256 pieces are the bytes"
    assert all(float(a) > float(b) > 1 for a, b in zip(columns[3][:3], columns[4][:3], strict=True))
    assert columns[1][2] == f"{sum(int(n.replace(',', '')) for n in columns[1][:2]):,}"


def test_comparisons_and_what_can_be_taken_out(pool, tmp_path, monkeypatch):
    pytest.importorskip("torch")
    from benchmarks import compare, weights
    from lmcompress.training.train import Recipe

    toy = {
        "model": {"vocab_size": 270, "d_model": 64, "n_layer": 1, "n_head": 1, "d_ff": 64, "window": 16},
        "sequence": 32, "batch": 2, "tokens": 4 * 64, "warmup": 0.2, "decay": 0.5, "quantized": 0,
        "muon_lr": 0.02, "embed_lr": 0.03, "head_lr": 0.006, "weight_decay": 0.05,
    }  # fmt: skip
    (tmp_path / "toy.json").write_text(json.dumps(toy))
    base = Recipe.load(tmp_path / "toy.json")
    comparisons = {
        "one": {"base": {}, "integers": {"integers": True}, "bytes": {"vocab_size": 256}, "alone": {"alone": True}},
        "two": {"base": {}, **{name: {"patch": name} for name in compare.PATCHES}},
    }
    monkeypatch.setattr(compare, "COMPARISONS", comparisons)
    monkeypatch.setattr(compare.torch, "compile", lambda f, **_: f)
    monkeypatch.setattr(compare, "CONTEXT", 200)
    out = tmp_path / "out"
    table = compare.run(base, pool, out, ["one", "two"])
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    changes = comparisons["one"] | comparisons["two"]
    assert [line["change"] for line in lines] == [*changes.values()]
    of = dict(zip(changes, lines, strict=True))
    assert all(0 < line["bits_per_byte"]["mean"] < 8.5 for line in lines)
    assert of["bytes"]["recipe"]["tokens"] > 1.1 * base.tokens, "as many bytes"
    assert (out / "pieces-270-alone" / "ids" / "index.json").exists()
    for name in compare.PATCHES:
        assert of[name]["bits_per_byte"] != of["base"]["bits_per_byte"], name
    assert len(list((out / "runs").iterdir())) == 6, "base and integers are one run"
    with monkeypatch.context() as patch:
        patch.setattr(compare.train, "train", None)
        again = compare.run(base, pool, out, ["one", "two"])
    assert [list(c.cells) for c in again.columns] == [list(c.cells) for c in table.columns]

    checkpoint = next((out / "runs").glob("*/checkpoint.pt"))
    run = json.loads(compare.torch.load(checkpoint, weights_only=True)["recipe"])
    ids = out / f"pieces-{run['model']['vocab_size']}" / "ids"
    monkeypatch.setattr(weights, "SHORT", 8)
    names, bits, _, size = ([*column.cells] for column in weights.shrink_table(checkpoint, ids, 64).columns)
    assert names[0] == "as it is" and names[1:6] == [f"{n} bits" for n in weights.BITS]
    parts = ["attention out", "MLP out", "window of 8", "head 0 out"]
    assert names[9:] == [f"layer 0: {part}" for part in parts] and bits[9] == bits[12], "it has one head"
    assert abs(float(bits[1]) - float(bits[0])) < 0.1
    sizes = [int(s.replace(",", "")) for s in size]
    assert sizes[1] > sizes[2] > sizes[3] > sizes[4] > sizes[5] and sizes[0] == sizes[2] > sizes[6] > sizes[8]
    assert [*weights.quantization_table(checkpoint, ids, 64).columns[0].cells] == ["code", "en_wiki", "all"]
    *shares, means = ([*column.cells] for column in weights.mean_table([checkpoint] * 2, ids, 64, 2).columns)
    assert [*zip(*shares, strict=True)] == [("0", "1"), ("1", "0"), ("1", "1")]
    assert means == [means[0]] * 3 and abs(float(means[0]) - float(bits[0])) < 0.01, "a model is the mean of itself"

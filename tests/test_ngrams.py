"""N-grams: what is counted, which are kept, and that the mixer finds them where they were put."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import lmcompress
from lmcompress import modelfile
from lmcompress.errors import CorruptError, MissingModelError
from lmcompress.mixer.reference import hash64
from lmcompress.ngrams import CHECK, CLASSES, NONE, ORDERS, WAYS, find, line_of, table_of
from lmcompress.training import data, ngrams
from tests.models import random_model
from tests.test_modelfile import sealed

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "corpora" / "samples"


def folder(path: Path, n: int = 40) -> list[bytes]:
    """Documents that have sentences in common, written below `path`; those that are counted."""
    rng = np.random.default_rng(5)
    text = (SAMPLES / "alice29.txt").read_bytes()
    sentences = [text[2000 + 60 * i : 2060 + 60 * i] for i in range(30)]
    (path / "text").mkdir()
    documents = []
    for i in range(n):
        document = b"%d" % i + b" ".join(sentences[j] for j in rng.integers(0, len(sentences), 8))
        (path / "text" / f"{i:03}").write_bytes(document)
        if not data.is_validation(document) and not data.is_set_aside(document):
            documents.append(document)
    return documents


def hash_of(context: list[int]) -> int:
    """Of tokens, the oldest first."""
    h = 1
    for token in reversed(context):
        h = hash64(h, token)
    return h


Followers = dict[int, dict[tuple[int, ...], Counter[int]]]  # order -> context -> how often each token has come


def followers(documents: list[bytes]) -> tuple[Followers, Followers]:
    """What has followed, in documents and in places, counted plainly; tokens are bytes."""
    counts, places = ({k: defaultdict(Counter) for k in (1, *ORDERS)} for _ in range(2))
    for document in documents:
        ids = [0] * 6 + list(b"\0" + document)
        for k in counts:
            seen = [(tuple(ids[i - k : i]), ids[i]) for i in range(7, len(ids))]
            for found, pairs in ((counts, set(seen)), (places, seen)):
                for context, token in pairs:
                    found[k][context][token] += 1
    return counts, places


def expected(documents: list[bytes]) -> dict[int, dict[tuple[int, ...], tuple[int, int, int]]]:
    """order -> context -> (token, documents, documents of all tokens)."""
    counts, places = followers(documents)
    result: dict[int, dict[tuple[int, ...], tuple[int, int, int]]] = {k: {} for k in counts}
    for k, contexts in counts.items():
        for context, tokens in contexts.items():
            token = max(tokens, key=lambda t: (tokens[t], places[k][context][t], -t))
            if tokens[token] >= ngrams.LEAST:
                result[k][context] = token, tokens[token], sum(tokens.values())
    return result


def test_counts_are_of_documents(tmp_path: Path) -> None:
    documents = folder(tmp_path)
    text, plain = ngrams.read(tmp_path, random_model()), expected(documents)
    assert len(text.ids) == sum(len(d) + 1 for d in documents)
    for order in (1, *ORDERS):
        counts = ngrams.count(text, order)
        places = {tuple(([0] * 6 + text.ids.tolist())[at + 6 - order : at + 6]): i for i, at in enumerate(counts.at)}
        assert len(counts.context) == len(plain[order]) > 20
        assert (np.diff(counts.context.astype(object)) > 0).all() and (np.diff(counts.pair.astype(object)) > 0).all()
        checked = 0
        for context, (_, often, total) in plain[order].items():
            if context in places:  # not those that begin before their document
                i = places[context]
                assert (counts.often[i], counts.total[i]) == (often, total)
                share = counts.share(counts.context[i : i + 1], counts.token[i : i + 1])
                assert share[0] == often / total
                checked += 1
        assert checked > 0.9 * len(counts.context)


@pytest.mark.parametrize("n_lines", [1, 7, 4096])
def test_kept_are_the_best_of_each_line(tmp_path: Path, n_lines: int) -> None:
    documents = folder(tmp_path)
    plain, (counts, _) = expected(documents), followers(documents)
    table = ngrams.learn(ngrams.read(tmp_path, random_model()), n_lines)
    assert table.shape == (n_lines, 2, WAYS) and table.dtype == np.uint16 and table.ctypes.data % 64 == 0
    lines: dict[int, list[tuple[float, int, tuple[int, ...]]]] = defaultdict(list)
    for order in ORDERS:
        for context, (token, often, total) in plain[order].items():
            shorter = context[len(context) - ngrams.SHORTER[order] :]
            among = counts[len(shorter)][shorter]
            p = (often - 0.8) / total
            gain = (often - 1) * p * math.log2(p / (among[token] / among.total()))
            if gain > 1e-9:
                h = hash_of(list(context))
                lines[(h >> 32) * n_lines >> 32].append((gain, h, context))
    for line, candidates in lines.items():
        best: dict[int, tuple[float, int, tuple[int, ...]]] = {}
        for entry in sorted(candidates, key=lambda c: -c[0]):
            best.setdefault(max(1, entry[1] & CHECK), entry)
        kept = sorted(best.values(), key=lambda c: -c[0])
        assert int((table[line, 0] > 0).sum()) == min(WAYS, len(kept))
        for gain, h, context in kept[:WAYS]:
            if gain > 1.001 * (kept[WAYS][0] if len(kept) > WAYS else 0):  # the last ones may be equally good
                found = find(table, h)
                assert found is not None
                _, often, total = plain[len(context)][context]
                assert found[1] == np.searchsorted(ngrams.BOUNDS, (often - 0.8) / total)


def test_a_table_is_found_in() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, 5000, dtype=np.uint64, endpoint=False)
    lines = line_of(hashes, 300)
    assert lines.min() == 0 and lines.max() == 299
    keys, tokens = np.zeros((300, WAYS), np.uint16), np.zeros((300, WAYS), np.uint16)
    put = {}
    for h, line in zip(hashes.tolist(), lines.tolist(), strict=True):
        way = int((keys[line] > 0).sum())
        check = max(1, h & CHECK)
        if way < WAYS and not (keys[line] // CLASSES == check).any():
            keys[line, way], tokens[line, way] = check * CLASSES + h % 7, h % 1000
            put[h] = h % 1000, h % 7
    table = table_of(keys, tokens)
    assert len(put) > 4000 and all(find(table, h) == what for h, what in put.items())
    others = rng.integers(0, 1 << 64, 5000, dtype=np.uint64, endpoint=False).tolist()
    assert sum(find(table, h) is not None for h in others) < 40  # one in 512
    assert find(NONE, 5) is None


def test_a_model_gets_n_grams(tmp_path: Path) -> None:
    toy, out = ROOT / "tests" / "golden" / "toy.lmm", tmp_path / "other.lmm"
    arguments = ["--data", str(SAMPLES), "--lines", "100", str(toy), str(out)]
    result = CliRunner().invoke(ngrams.main, arguments)
    assert result.exit_code == 0, result.output
    before, after = modelfile.load(toy), modelfile.load(out)
    assert before.ngrams.shape == (0, 2, WAYS) and after.ngrams.shape == (100, 2, WAYS)
    assert modelfile.dumps(after) == out.read_bytes()
    text = (SAMPLES / "german_novel.txt").read_bytes()[:20_000]
    for level in (1, 5):
        archive = lmcompress.compress(text, level, model=after)
        assert lmcompress.decompress(archive, model=after) == text
        with pytest.raises(lmcompress.LMCompressError):
            lmcompress.decompress(archive, model=before)


def test_models_share_n_grams(tmp_path: Path) -> None:
    """A file of n-grams, named by a model's own."""
    toy, table = ROOT / "tests" / "golden" / "toy.lmm", tmp_path / "some" / "words.lmn"
    table.parent.mkdir()
    paths = [table.with_name(name) for name in ("one.lmm", "two.lmm")]
    for path, text in zip(paths, (SAMPLES, tmp_path / "some"), strict=True):  # the second time nothing is counted
        arguments = ["--data", str(text), "--lines", "100", "--table", str(table), str(toy), str(path)]
        result = CliRunner().invoke(ngrams.main, arguments)
        assert result.exit_code == 0, result.output
    elsewhere = ["--data", str(SAMPLES), "--table", str(table.with_suffix(".bin")), str(toy), str(paths[0])]
    assert CliRunner().invoke(ngrams.main, elsewhere).exit_code == 2  # where no model would find it
    one, two = map(modelfile.load, paths)
    assert paths[0].stat().st_size < toy.stat().st_size + 200 and modelfile.files(paths[0]) == [paths[0], table]
    assert modelfile.files(toy) == [toy]
    assert one.digest == two.digest and one.ngrams.shape == (100, 2, WAYS) and (one.ngrams[:, 0] > 0).any()
    assert one.ngrams.ctypes.data % 64 == 0  # a line of the table is one of the cache
    own = modelfile.loads(modelfile.dumps(one))
    assert np.array_equal(own.ngrams, one.ngrams) and own.digest != one.digest

    text = (SAMPLES / "german_novel.txt").read_bytes()[:20_000]
    for level in (1, 5):
        archive = lmcompress.compress(text, level, model=paths[0])
        assert lmcompress.decompress(archive, model=paths[1]) == text
        assert len(archive) == len(lmcompress.compress(text, level, model=own))

    whole = table.read_bytes()
    with pytest.raises(MissingModelError, match=whole[-32:].hex()):
        modelfile.loads(paths[0].read_bytes())
    for damaged, error in (
        (whole[:-32], MissingModelError),
        (whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:], CorruptError),
        (whole[:-33] + whole[-32:], CorruptError),
        (whole[:5] + b"?" + whole[6:], CorruptError),
        (whole[-32:], CorruptError),
    ):
        table.write_bytes(damaged)
        with pytest.raises(error):
            modelfile.load(paths[0])
    table.write_bytes(whole)
    assert np.array_equal(modelfile.load(paths[0]).ngrams, one.ngrams)


def test_text_that_has_been_counted_costs_less(tmp_path: Path) -> None:
    documents = folder(tmp_path, 120)
    model = random_model()
    knowing = replace(model, ngrams=ngrams.learn(ngrams.read(tmp_path, model), 4096))
    sizes = [len(lmcompress.compress(documents[0], level, model=m)) for level in (1, 2) for m in (model, knowing)]
    assert sizes[1] < 0.8 * sizes[0] and sizes[3] < 0.8 * sizes[2]


@pytest.mark.parametrize(
    "change",
    [
        {"ngrams": -1},
        {"ngrams": 1 << 23},
        {"ngrams": 2},
        {"ngrams": "1"},
        {"ngrams": 1.0},
        {"table": 5},
        {"table": "x"},
    ],
)
def test_impossible_tables_are_refused(change: dict[str, object]) -> None:
    model = random_model()
    table = table_of(np.full((1, WAYS), 9, np.uint16), np.full((1, WAYS), 5, np.uint16))
    content = modelfile.dumps(replace(model, ngrams=table))[:-32]
    (size,) = struct.unpack_from("<I", content, 8)
    header = json.dumps(json.loads(content[12 : 12 + size]) | change).encode()
    with pytest.raises(CorruptError):
        modelfile.loads(sealed(content[:8] + struct.pack("<I", len(header)) + header + content[12 + size :]))
    strange = table.copy()
    strange[0, 1, 3] = model.config.vocab_size
    with pytest.raises(CorruptError, match="n-grams"):
        modelfile.loads(modelfile.dumps(replace(model, ngrams=strange)))

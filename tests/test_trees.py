"""Trees for kinds of text: kinds are found, their paths are short, a model gets others and keeps what it was."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
from click.testing import CliRunner

import lmcompress
from lmcompress import modelfile
from lmcompress.predictor import Vocabulary
from lmcompress.tokenizer import byte_tokenizer
from lmcompress.training import data, trees

ROOT = Path(__file__).parent.parent


def test_kinds_are_found_and_have_short_paths() -> None:
    rng = np.random.default_rng(0)
    kinds = rng.dirichlet(np.full(64, 0.2), 3)  # frequencies
    shares = np.concatenate([rng.dirichlet(200 * kind + 0.01, 20) for kind in kinds])
    one, three = (shares @ trees.learn(shares, n).T for n in (1, 3))
    assert one.shape == (60, 1) and three.shape == (60, 3)
    nearest = three.argmin(axis=1).reshape(3, 20)
    assert (nearest == nearest[:, :1]).all() and len(set(nearest[:, 0].tolist())) == 3
    entropy = -(shares * np.log2(np.maximum(shares, 1e-9))).sum(axis=1).mean()
    assert entropy < three.min(axis=1).mean() < entropy + 1 < one.mean()


def test_parts_are_training_text_of_every_category(tmp_path: Path) -> None:
    for name, size, n in (("short", 3000, 60), ("long", 400_000, 3)):
        (tmp_path / name).mkdir()
        for i in range(n):
            (tmp_path / name / f"{i}").write_bytes(b"%s %d. " % (name.encode(), i) * (size // 8))
    held_out = {d[:9] for _, d in data.documents(tmp_path) if data.is_validation(d)}
    texts = trees.parts(tmp_path)
    assert {name for name in (b"short", b"long") for text in texts if name in text} == {b"short", b"long"}
    assert all(len(text) <= 3 * trees.PART for text in texts) and not any(h in t for h in held_out for t in texts)
    share = trees.shares(texts, byte_tokenizer())
    assert share.shape == (2 * len(texts), 256) and np.allclose(share.sum(axis=1), 1)


def test_a_model_gets_other_trees(tmp_path: Path) -> None:
    toy, out = ROOT / "tests" / "golden" / "toy.lmm", tmp_path / "other.lmm"
    result = CliRunner().invoke(trees.main, ["--data", str(ROOT / "corpora" / "samples"), str(toy), str(out)])
    assert result.exit_code == 0, result.output
    before, after = modelfile.load(toy), modelfile.load(out)
    assert len(before.depths) == 1 < len(after.depths) <= trees.TREES
    for field in fields(before):
        if field.name not in ("depths", "layers", "digest"):
            assert np.array_equal(getattr(before, field.name), getattr(after, field.name)), field.name
    used = set()
    for name in ("chinese_law.md", "alice29.txt", "football.json"):
        text = (ROOT / "corpora" / "samples" / name).read_bytes()[:20_000]
        used.add(Vocabulary(after).nearest(after.tokenizer.encode(text)))
        archive = lmcompress.compress(text, model=after)
        assert lmcompress.decompress(archive, model=after) == text
    assert len(used) > 1


def test_what_cannot_be_done_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, model in ((ROOT / "corpora" / "samples", "no such model"), (tmp_path / "empty", "fast")):
        result = CliRunner().invoke(trees.main, ["--data", str(source), model, str(tmp_path / "out.lmm")])
        assert (
            result.exit_code == 1 and result.output.startswith("Error: ") and isinstance(result.exception, SystemExit)
        )
        assert not (tmp_path / "out.lmm").exists()

"""Training beside the mixer: what it adds to a network's odds, and what both together cost."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lmcompress.codec import layout, most_lanes, spans  # noqa: E402
from lmcompress.config import CodecConfig  # noqa: E402
from lmcompress.modelfile import Model, dumps, load  # noqa: E402
from lmcompress.predictor import Engines, NetworkAlone, Predictor, Vocabulary  # noqa: E402
from lmcompress.tokenizer import byte_tokenizer  # noqa: E402
from lmcompress.training import data, mixture  # noqa: E402
from lmcompress.training.model import Transformer  # noqa: E402
from lmcompress.training.train import train  # noqa: E402
from lmcompress.tree import Tree  # noqa: E402
from tests.models import random_model  # noqa: E402
from tests.test_training import ENVIRONMENT, RUN, TOY, recipe  # noqa: E402

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
CONFIG = CodecConfig(lane_unit=1024, mixer_bits=16)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model()


@pytest.fixture(scope="module")
def traced(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `ids` and of what the mixer has made of them, a few thousand tokens."""
    folder = tmp_path_factory.mktemp("traced")
    (folder / "text" / "words").mkdir(parents=True)
    text = (SAMPLES / "alice29.txt").read_bytes()
    for i in range(4):
        (folder / "text" / "words" / f"{i}").write_bytes(text[5000 * i : 5000 * i + 1500])
    data.tokenize(folder / "text", byte_tokenizer(), folder / "ids")
    mixture.trace(model, CONFIG, folder / "ids", folder / "traced", 2000)
    return folder


def logits_of(model: Model, engines: Engines, block: np.ndarray) -> torch.Tensor:
    """float64 [n, V]: natural logits of the engine's own integers for a block in its lanes."""
    n_lanes = most_lanes(CONFIG, model.tokenizer.size(block), len(block))
    lanes, counts = layout(block, n_lanes)
    previous = np.insert(lanes, 0, model.start, axis=1)[:, :-1]
    state, parts = engines.network.start(n_lanes, 1), []
    for begin, end, m in spans(counts):
        parts.append(np.zeros((n_lanes, end - begin, model.config.vocab_size)))
        parts[-1][:m] = engines.network.run(state, previous[:m, begin:end])
    logits = np.concatenate(parts, axis=1)
    rows = np.concatenate([lane[:count] for lane, count in zip(logits, counts, strict=True)])
    return torch.from_numpy(rows * (math.log(2) / 256))


def test_the_same_network_costs_what_the_mixer_says(model: Model, traced: Path) -> None:
    engines, vocabulary = Engines(model, CONFIG, 1), Vocabulary(model)
    tokens = np.fromfile(traced / "traced" / "tokens.u16", "<u2").astype(np.int32)
    offsets = np.fromfile(traced / "traced" / "offsets.i16", "<i2").reshape(-1, mixture.DEPTH)
    paths = mixture.Paths(model.depths)
    for first, n, tree in json.loads((traced / "traced" / "blocks.json").read_text()):
        block = tokens[first : first + n]
        n_lanes = most_lanes(CONFIG, n, n)
        lanes, counts = layout(block, n_lanes)
        previous = np.insert(lanes, 0, model.start, axis=1)[:, :-1]
        predictor, coded = Predictor(engines, vocabulary, tree, n_lanes, n, 1), 0.0
        for begin, end, m in spans(counts):
            for k, bits in predictor.encode(previous[:m, begin:end], lanes[:m, begin:end]):
                coded -= np.log(np.where(bits, k, (1 << 24) - k.astype(np.int64)) / 2.0**24).sum()
        at = np.s_[tree, block]
        decisions = mixture.Decisions(
            *(torch.from_numpy(of[at]) for of in (paths.lo, paths.mid, paths.hi, paths.right)),
            torch.from_numpy(offsets[first : first + n]).float() / mixture.UNIT,
        )
        said = mixture.nats(logits_of(model, engines, block), decisions)
        assert said.sum().item() == pytest.approx(coded, rel=2e-3)


def test_odds_are_those_that_are_coded_without_a_mixer(model: Model) -> None:
    engines, tree = Engines(model, CONFIG, 1), Vocabulary(model).tree(1)
    tokens = np.frombuffer(b"Alice was beginning", np.uint8).astype(np.int32)[None]
    said = engines.network.distribution(engines.network.start(1, 1), tokens)
    paths = mixture.Paths(model.depths)
    odds = mixture.log2_odds(said, *(of[1][tokens] for of in (paths.lo, paths.mid, paths.hi)))
    alone = NetworkAlone(tree)
    k, bits = alone.encode(said, tokens)
    there = (np.arange(mixture.DEPTH) < model.depths[1][tokens][..., None])[0]
    assert np.array_equal(paths.right[1][tokens][0][there], bits != 0)
    clear = (k > 100) & (k < (1 << 24) - 100)
    assert clear.mean() > 0.9
    expected = np.log2(k / ((1 << 24) - k.astype(np.int64)))
    assert np.abs(odds[0][there] - expected)[clear].max() < 0.02
    assert not odds[0][~there].any()


def test_paths_follow_the_tree() -> None:
    depths = np.array([[2, 3, 3, 2, 2], [1, 2, 3, 4, 4]], np.uint8)
    paths = mixture.Paths(depths)
    for k in range(2):
        tree = Tree(depths[k])
        for v in range(5):
            node, level = 0, 0
            while node >= 0:
                place = (k, v, level)
                assert (paths.lo[place], paths.mid[place], paths.hi[place]) == (
                    tree.lo[node], tree.mid[node], tree.hi[node],
                )  # fmt: skip
                assert paths.right[place] == (v >= tree.mid[node])
                node, level = int(tree.right[node] if v >= tree.mid[node] else tree.left[node]), level + 1
            assert not paths.hi[k, v, level:].any()


def test_gradients_are_those_of_the_sum_written_out() -> None:
    torch.manual_seed(0)
    depths = np.array([[2, 3, 3, 2, 2], [1, 2, 3, 4, 4]], np.uint8)
    paths, N = mixture.Paths(depths), 600  # more than are computed at a time
    trees, targets = np.random.default_rng(0).integers(0, 2, N), np.random.default_rng(1).integers(0, 5, N)
    at = np.s_[trees, targets]
    offset = torch.randn(N, mixture.DEPTH)
    decisions = mixture.Decisions(
        *(torch.from_numpy(of[at]) for of in (paths.lo, paths.mid, paths.hi, paths.right)), offset
    )
    logits = (3 * torch.randn(N, 5)).requires_grad_()
    weight = torch.rand(N)
    (mixture.nats(logits, decisions) * weight).sum().backward()
    other = logits.detach().double().requires_grad_()
    weights = (other - other.detach().amax(1, keepdim=True)).exp() + mixture.LEAST
    total = torch.zeros((), dtype=torch.float64)
    for n in range(N):
        for level in range(depths[trees[n], targets[n]]):
            lo, mid, hi = (int(of[n, level]) for of in (decisions.lo, decisions.mid, decisions.hi))
            odds = weights[n, mid:hi].sum().log() - weights[n, lo:mid].sum().log()
            z = mixture.SHARE * odds + math.log(2) * offset[n, level].double()
            bit = float(decisions.right[n, level])
            total = total + weight[n] * torch.nn.functional.binary_cross_entropy_with_logits(
                z, torch.tensor(bit).double()
            )
    total.backward()
    assert torch.allclose(logits.grad, other.grad.float(), atol=1e-5)


def test_batches_are_traced_text_with_its_offsets(model: Model, traced: Path) -> None:
    read = mixture.Traced(traced / "traced", model.depths, 40, seed=3)
    steps, n = len(read.starts) // 6, 0
    text = np.fromfile(traced / "traced" / "tokens.u16", "<u2")
    offsets = np.fromfile(traced / "traced" / "offsets.i16", "<i2").reshape(-1, mixture.DEPTH)
    seen = np.zeros(len(text), int)
    for step in range(steps):
        rows, decisions = read.batch(step, 6)
        assert rows.shape == (6, 41) and not rows[:, 0].any()
        for row, kept in zip(rows, (decisions.offset.view(6, 40, -1) * mixture.UNIT).numpy(), strict=True):
            places = [i for i in range(len(text)) if np.array_equal(offsets[i : i + 40], kept)]
            (place,) = places
            assert np.array_equal(text[place : place + 40], row[1:])
            seen[place : place + 40] += 1
            n += 40
        target = torch.from_numpy(rows[:, 1:].flatten())
        deepest = (decisions.hi > decisions.lo).sum(1) - 1
        last = [getattr(decisions, edge)[torch.arange(240), deepest] for edge in ("lo", "mid", "hi")]
        assert bool(((last[0] <= target) & (target < last[2])).all())
    assert n > 1500 and seen.max() == 1  # once each
    again, some = read.batch(1, 6, slice(1, None, 2))
    rows, decisions = read.batch(1, 6)
    assert np.array_equal(again, rows[1::2])
    assert torch.equal(some.offset, decisions.offset.view(6, 40, -1)[1::2].flatten(0, 1))
    later = read.batch(steps + 1, 6)[0]
    assert later.shape == rows.shape and not np.array_equal(
        later, read.batch(0, 6)[0]
    )  # it begins again, in another order
    with pytest.raises(ValueError, match="shorter"):
        mixture.Traced(traced / "traced", model.depths, 10_000)


def test_what_is_read_lies_everywhere() -> None:
    for length, tokens in (
        (10_000_000, 1_000_000),
        (500_000, 400_000),
        (50_000, 180_001),
        (700, 700),
        (700, 30),
        (700, 0),
    ):
        blocks = mixture.spread(length, tokens, np.random.default_rng(0))
        times, seen = -(-tokens // length), np.zeros(length, int)
        for part in blocks:
            assert 0 <= part.start < part.stop <= length
            seen[part] += 1
        assert seen.max() <= times and tokens - times <= seen.sum() <= tokens
        if times == 1:  # nowhere is more left out than between the two most distant places in their shares of the text
            gaps = np.diff([0, *(edge for part in blocks for edge in (part.start, part.stop)), length])[::2]
            assert gaps.max() <= 2 * (length - tokens) / len(blocks) + 1


def test_a_network_learns_what_the_mixer_lacks(traced: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mixer knows the first decision of every token, and nothing else."""
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)
    tokens = np.random.default_rng(0).choice(np.array([10, 200], "<u2"), 4000, p=[0.9, 0.1])
    offsets = np.zeros((len(tokens), mixture.DEPTH), "<i2")
    offsets[:, 0] = np.where(tokens >= 128, 20, -20) * mixture.UNIT
    tokens.tofile(tmp_path / "tokens.u16")
    offsets.tofile(tmp_path / "offsets.i16")
    (tmp_path / "blocks.json").write_text(json.dumps([[0, len(tokens), 0]]))
    read = mixture.Traced(tmp_path, np.full((1, 256), 8, np.uint8), 32)
    settings = recipe(tokens=60 * 128, warmup=0.1, quantized=0.2, beside=len(tokens))
    train(settings, traced / "ids", tmp_path / "out", "cpu", traced=read)
    model = Transformer(settings.model)
    model.load_state_dict(torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)["model"])
    with torch.no_grad():
        said = model(torch.from_numpy(read.batch(0, 4)[0][:, 1:]), True).softmax(-1)
    left, right = said[..., :128].sum(-1), said[..., 128:].sum(-1)
    assert (right / left).log2().abs().max() < 0.5  # not -3.2, as text alone would have taught
    assert (said[..., 10] / left).mean() > 0.9 and (said[..., 200] / right).mean() > 0.9
    with pytest.raises(ValueError, match="beside"):
        train(settings, traced / "ids", tmp_path / "none", "cpu")


def test_the_command_traces_once(model: Model, traced: Path, tmp_path: Path) -> None:
    (tmp_path / "random.lmm").write_bytes(dumps(model))
    (tmp_path / "toy.json").write_text(json.dumps(TOY | {"beside": 1000}))
    out = tmp_path / "out"
    command = [*RUN, "--config", tmp_path / "toy.json", "--device", "cpu", "--data", traced / "text", "--out", out]
    written = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--beside", tmp_path / "random.lmm"], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert load(out / "toy.lmm").tokenizer == model.tokenizer
        written.append((out / "traced" / "offsets.i16").stat().st_mtime_ns)
    assert written[0] == written[1]
    without = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert without.returncode == 2 and "beside" in without.stderr

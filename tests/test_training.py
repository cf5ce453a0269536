"""From a folder of text to a model file, at toy size: resuming, growing, several processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lmcompress import modelfile  # noqa: E402
from lmcompress.config import ModelConfig  # noqa: E402
from lmcompress.training import data  # noqa: E402
from lmcompress.training.cli import start_of, teacher_of  # noqa: E402
from lmcompress.training.model import Transformer  # noqa: E402
from lmcompress.training.train import Recipe, grow, mean, train  # noqa: E402

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
TOY = {
    "model": {"vocab_size": 256, "d_model": 64, "n_layer": 1, "n_head": 1, "d_ff": 64, "window": 16},
    "sequence": 32, "batch": 4, "tokens": 6 * 128, "warmup": 0.2, "decay": 0.5, "quantized": 0.3,
    "muon_lr": 0.02, "embed_lr": 0.03, "head_lr": 0.006, "weight_decay": 0.05,
}  # fmt: skip
RUN = [sys.executable, "-m", "lmcompress.training.cli"]
# compilers and threads would take longer than the training
ENVIRONMENT = os.environ | {
    "TORCHDYNAMO_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "GLIBC_TUNABLES": "glibc.malloc.arena_max=1",
}


@pytest.fixture(autouse=True)
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda f, **_: f)


@pytest.fixture
def ids(tmp_path: Path) -> Path:
    """Token ids of a few documents, two of them of the validation split."""
    rng = np.random.default_rng(0)
    (tmp_path / "text" / "words").mkdir(parents=True)
    documents = (bytes(rng.choice(list(b"abcdef \n"), 400).tolist()) for _ in range(10**6))
    held_out = 0
    for i, document in enumerate(documents):
        if i < 20 or data.is_validation(document):
            held_out += data.is_validation(document)
            (tmp_path / "text" / "words" / f"{i:06}").write_bytes(document)
        if held_out == 2:
            break
    from lmcompress.tokenizer import byte_tokenizer

    data.tokenize(tmp_path / "text", byte_tokenizer(), tmp_path / "ids")
    return tmp_path / "ids"


def recipe(**changes: object) -> Recipe:
    return Recipe(**{**TOY, "model": ModelConfig(**TOY["model"]), **changes})  # type: ignore[arg-type]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoint.pt", weights_only=True)["model"]


def lines(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_resumed_run_is_the_run_that_was_not_stopped(
    ids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(recipe(), ids, tmp_path / "whole", "cpu", validate_every=2)
    batch, calls = data.Mix.batch, []

    def stopped(self: data.Mix, step: int, size: int) -> np.ndarray:
        calls.append(step)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return batch(self, step, size)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(data.Mix, "batch", stopped)
        train(recipe(), ids, tmp_path / "parts", "cpu", validate_every=2)
    train(recipe(), ids, tmp_path / "parts", "cpu", validate_every=2)
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[n], parts[n]) for n in whole)
    for done in [False] * 5 + [True]:  # a step at a time
        assert train(recipe(), ids, tmp_path / "steps", "cpu", validate_every=2, minutes=0) is done
    assert all(torch.equal(whole[n], w) for n, w in weights(tmp_path / "steps").items())
    before = torch.load(tmp_path / "whole" / "float.pt", weights_only=True)  # integers came in
    assert before["step"] == 5 and not before["calibrated"]
    last = lines(tmp_path / "whole")[-1]
    assert last["quantized"] and last["bits_per_byte/words"] == lines(tmp_path / "parts")[-1]["bits_per_byte/words"]
    assert last["bits_per_byte/words"] < 8


@pytest.mark.parametrize(
    "larger",
    [{"n_layer": 3}, {"d_model": 192}, {"n_head": 3}, {"d_ff": 320}, {"n_layer": 4, "d_model": 128, "n_head": 2}],
)
def test_grown_model_starts_with_the_predictions_of_the_smaller(
    ids: Path, tmp_path: Path, larger: dict[str, int]
) -> None:
    train(recipe(quantized=0.0), ids, tmp_path / "small", "cpu", validate_every=6)
    small = Transformer(ModelConfig(**TOY["model"]))
    small.load_state_dict(weights(tmp_path / "small"))
    large = Transformer(ModelConfig(**{**TOY["model"], **larger}))
    grow(large, weights(tmp_path / "small"))
    tokens = torch.from_numpy(data.Mix(ids, 32).batch(99, 2))
    with torch.no_grad():
        expected, logits = small(tokens), large(tokens)
    assert expected.abs().max() > 0.1 and torch.allclose(logits, expected, atol=1e-6)
    with pytest.raises(ValueError, match="larger"):
        grow(small, large.state_dict())


def test_what_a_model_lacks_is_left_out_of_what_it_begins_with() -> None:
    """A layer without attention and one without an MLP have the predictions of whole ones that write nothing."""
    torch.manual_seed(0)
    shape = {**TOY["model"], "n_layer": 2, "n_head": 2}
    whole, cut = (
        Transformer(ModelConfig(**{**shape, **change})) for change in ({}, {"n_head": [2, 0], "d_ff": [0, 64]})
    )
    with torch.no_grad():
        for p in whole.parameters():
            p.add_(0.1 * torch.randn_like(p))
        whole.blocks[0].down.zero_()
        whole.blocks[1].o.zero_()
    grow(cut, whole.state_dict())
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in whole.parameters())
    tokens = torch.randint(0, 256, (2, 40))
    with torch.no_grad():
        expected = whole(tokens)
        assert expected.std() > 0.1 and torch.equal(cut(tokens), expected)
    with torch.no_grad():
        whole.blocks[1].o.fill_(3.0)
    third = mean([whole.state_dict(), *[{name: 4 * w for name, w in cut.state_dict().items()}] * 2])
    assert {n: w.shape for n, w in third.items()} == {n: w.shape for n, w in whole.state_dict().items()}
    assert torch.allclose(third["blocks.1.up"], 3 * cut.blocks[1].up)
    assert torch.allclose(third["blocks.1.o"], torch.ones(())) and torch.equal(third["blocks.1.q"], whole.blocks[1].q)
    assert torch.equal(mean([cut.state_dict()] * 2)["blocks.1.q"], cut.blocks[1].q)
    with pytest.raises(ValueError, match="different shapes"):
        mean([whole.state_dict(), Transformer(ModelConfig(**{**shape, "d_model": 128})).state_dict()])


def test_a_teacher_is_followed(ids: Path, tmp_path: Path) -> None:
    """One that says what no text does."""
    plain = recipe(tokens=60 * 128, quantized=0.0, decay=0.1)
    torch.manual_seed(0)
    teacher = Transformer(plain.model)
    with torch.no_grad():
        teacher.head.normal_()
    rows = torch.from_numpy(data.Mix(ids, 32, 9).batch(0, 4))[:, :-1]
    said = []
    for taught in (0.0, 0.9):
        run = replace(plain, taught=taught)
        train(run, ids, tmp_path / str(taught), "cpu", teacher=teacher if taught else None)
        model = Transformer(plain.model)
        model.load_state_dict(weights(tmp_path / str(taught)))
        with torch.no_grad():
            wanted = teacher(rows, False).argmax(-1, keepdim=True)
            said.append(model(rows, False).softmax(-1).gather(-1, wanted).mean().item())
    assert said[0] < 0.05 and said[1] > 4 * said[0] + 0.05, said
    for taught, master in ((0.5, None), (0.0, teacher)):
        with pytest.raises(ValueError, match="teacher"):
            train(replace(plain, taught=taught), ids, tmp_path / "none", "cpu", teacher=master)


def test_a_teacher_is_a_model() -> None:
    pieces, teacher = teacher_of("fast")
    assert pieces == modelfile.load("fast").tokenizer
    assert torch.equal(teacher.head, start_of(["fast"])[1].weights["head"])
    with pytest.raises(click.ClickException, match="none.lmm"):
        teacher_of("none.lmm")


def test_two_processes_train_as_one(ids: Path, tmp_path: Path) -> None:
    settings = TOY | {"quantized": 0.0}
    (tmp_path / "toy.json").write_text(json.dumps(settings))
    out = tmp_path / "out"
    arguments = ["--config", tmp_path / "toy.json", "--data", tmp_path / "text", "--out", out, "--device", "cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", *RUN[2:]]
    from lmcompress.training.cli import prepare

    prepare(tmp_path / "text", out, 256)
    result = subprocess.run([*torchrun, *arguments], env=ENVIRONMENT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert (out / "toy.lmm").exists()
    train(recipe(quantized=0.0), ids, tmp_path / "one", "cpu")
    one, two = weights(tmp_path / "one"), weights(out / "run")
    for name, weight in one.items():  # the same but for the order of sums, in bfloat16
        assert (two[name] - weight).abs().mean() < 0.02 * weight.abs().mean() + 1e-3, name


def test_mean_of_checkpoints_is_what_a_run_begins_with(ids: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        train(recipe(seed=seed), ids, tmp_path / str(seed), "cpu", validate_every=6)
    paths = [str(tmp_path / str(seed) / "run.pt") for seed in (1, 2)]
    for path in paths:
        (Path(path).parent / "checkpoint.pt").rename(path)
    pieces, start = start_of(paths)
    assert pieces is None and start.cost[0] == 6 * 128
    one, other = (torch.load(path, weights_only=True)["model"] for path in paths)
    assert all(torch.allclose(w, (one[n] + other[n]) / 2) for n, w in start.weights.items())
    assert not torch.equal(one["head"], other["head"])
    (tmp_path / "text.pt").write_text("no checkpoint")
    (tmp_path / "short.pt").write_bytes(Path(paths[0]).read_bytes()[:5000])
    torch.save({"head": one["head"]}, tmp_path / "weights.pt")
    for name in ("text.pt", "weights.pt"):
        with pytest.raises(click.ClickException, match=f"{name}: not a training run's checkpoint"):
            start_of([*paths, str(tmp_path / name)])
    shipped = start_of(["fast", "fast"])
    assert shipped[0] == modelfile.load("fast").tokenizer and torch.equal(
        shipped[1].weights["head"], start_of(["fast"])[1].weights["head"]
    )
    for wrong in ([*paths, str(tmp_path / "short.pt")], [paths[0], str(tmp_path / "none.pt")], [paths[0], "fast"]):
        with pytest.raises(click.ClickException, match=wrong[-1]):
            start_of(wrong)


def test_command_makes_a_model_that_compresses_and_another_of_it(tmp_path: Path) -> None:
    from lmcompress import compress, decompress

    def run(out: str, settings: dict[str, object], *options: object) -> subprocess.CompletedProcess[str]:
        (tmp_path / "toy.json").write_text(json.dumps(settings))
        fixed = ["--config", tmp_path / "toy.json", "--data", SAMPLES, "--out", tmp_path / out, "--threads", "1"]
        return subprocess.run([*RUN, *fixed, *options], env=ENVIRONMENT, capture_output=True, text=True)

    result = run("out", TOY)
    assert result.returncode == 0, result.stderr
    model = modelfile.load(tmp_path / "out" / "toy.lmm")
    assert model.name == "toy" and model.card["tokens"] == 6 * 128
    text = b"as small as a model can be, " * 40
    archive = compress(text, model=model)
    assert decompress(archive, model=model) == text and len(archive) < len(text) / 2
    larger = TOY | {"model": TOY["model"] | {"n_layer": 2}, "tokens": 128}  # type: ignore[operator]
    result = run("larger", larger, "--init", tmp_path / "out" / "toy.lmm")
    assert result.returncode == 0, result.stderr
    grown = modelfile.load(tmp_path / "larger" / "toy.lmm")
    assert grown.config.n_layer == 2 and grown.tokenizer.pieces == model.tokenizer.pieces
    assert (grown.card["tokens"], grown.card["new_tokens"]) == (7 * 128, 128), "those before count"
    result = run("out", TOY | {"tokens": 256}, "--init", tmp_path / "larger" / "run" / "checkpoint.pt")
    assert result.returncode == 2 and "larger model" in result.stderr
    first, last = (
        lines(tmp_path / "larger" / "run")[0]["nats_per_token"],
        lines(tmp_path / "out" / "run")[-2]["nats_per_token"],
    )
    assert first < last + 0.3, "it begins where the other ended"
    for wrong in ("no such model", tmp_path / "none.pt"):
        result = run("none", larger, "--init", wrong)
        assert result.returncode == 1 and "Traceback" not in result.stderr and str(wrong) in result.stderr

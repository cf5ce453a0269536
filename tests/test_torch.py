"""torch's side: the GPU engine and the quantized forward pass give the specification's integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from lmcompress.config import ModelConfig  # noqa: E402
from lmcompress.engine import reference  # noqa: E402
from lmcompress.modelfile import dumps, loads  # noqa: E402
from lmcompress.tokenizer import byte_tokenizer  # noqa: E402
from lmcompress.training.model import Transformer, window_mask, windowed_attention  # noqa: E402
from tests.models import random_model  # noqa: E402

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
UNEVEN = ModelConfig(256, 64, 4, (2, 0, 3, 1), (0, 192, 64, 0), (24, 1, 70, 5))
SHAPES = [
    ModelConfig(256, 64, 2, 2, 192, 24),
    ModelConfig(320, 128, 1, 1, 64, 7),
    ModelConfig(512, 192, 3, 3, 128, 1),
    UNEVEN,
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("config", SHAPES)
def test_torch_engine_is_the_reference(config: ModelConfig, device: str) -> None:
    from lmcompress.engine.torch_engine import Engine

    model = random_model(config)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, (3, 90))
    plain, fast = reference.Engine(model), Engine(model, device=device)
    a, b = plain.start(3), fast.start(3)
    expected = plain.run(a, tokens)
    parts = [fast.run(b, tokens[:, :1]), fast.run(b, tokens[:, 1:71]), fast.step(b, tokens[:, 71])[:, None]]
    parts.append(fast.run(b, tokens[:, 72:]))
    assert np.array_equal(np.concatenate(parts, axis=1), expected)
    assert np.array_equal(fast.step(b, tokens[:2, 0]), plain.step(a, tokens[:2, 0]))  # a lane drops out
    for part in (tokens[:2, 1:5], tokens[:1, 5]):
        for ours, theirs in zip(fast.distribution(b, part), plain.distribution(a, part), strict=True):
            assert ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    for ours, theirs in zip(fast.cumulate(expected), plain.cumulate(expected), strict=True):
        assert np.array_equal(ours, theirs)


def toy_transformer(noise: float, config: ModelConfig = ModelConfig(256, 64, 2, 2, 192, 16)) -> Transformer:  # noqa: B008
    """Float weights that are nowhere zero, the same in every call."""
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * noise)
    return model


@pytest.mark.parametrize("config", [SHAPES[0], UNEVEN])
def test_export_gives_the_integers_of_the_quantized_forward_pass(config: ModelConfig) -> None:
    from lmcompress.training.export import export
    from lmcompress.training.model import LOG2

    model = toy_transformer(0.1, config)
    ids = torch.randint(0, 256, (3, 60))
    model.calibrate(ids)
    order = np.random.default_rng(0).permutation(256)
    exported = loads(dumps(export(model, byte_tokenizer(), order, np.full((1, 256), 8), "test", {})))
    with torch.no_grad():
        logits = (model(ids, quantized=True) * (LOG2 / math.log(2))).round().numpy()
    engine = reference.Engine(exported)
    place = np.argsort(order)  # new id of each old one
    assert np.array_equal(engine.run(engine.start(3), place[ids.numpy()]), logits[:, :, order])


@pytest.mark.parametrize("config", [SHAPES[0], UNEVEN])
def test_a_models_integers_give_float_weights_to_train_on(config: ModelConfig) -> None:
    from lmcompress.training.export import export, restore

    model = toy_transformer(0.1, config)
    ids = torch.randint(0, 256, (3, 60))
    model.calibrate(ids)
    order = np.arange(256)
    exported = export(model, byte_tokenizer(), order, np.full((1, 256), 8), "test", {})
    restored = toy_transformer(0.1, config)
    restored.load_state_dict(restore(exported))
    again = export(restored, byte_tokenizer(), order, np.full((1, 256), 8), "test", {})
    for old, new in zip((exported, *exported.layers), (again, *again.layers), strict=True):
        for name, array in vars(old).items():
            if isinstance(array, np.ndarray):
                same = np.array_equal if array.dtype.kind == "i" else np.allclose
                assert same(array, getattr(new, name)), name
    with torch.no_grad():
        logits, integers = restored(ids), model(ids, quantized=True)
    assert (logits - integers).abs().mean() < 0.05 * integers.abs().mean()


@pytest.mark.parametrize("config", [SHAPES[0], UNEVEN])
def test_spread_channels_give_the_same_predictions_in_better_integers(config: ModelConfig) -> None:
    model = toy_transformer(0.1, config)
    ids = torch.randint(0, 256, (3, 60))
    with torch.no_grad():
        model.head[:, 5] *= 5  # a channel far above the others
        model.head[:, 9] += 20  # and what all logits have in common
        losses = []
        before = model(ids).log_softmax(-1)
        for _ in range(2):
            model.calibrate(ids)
            losses.append((model(ids, quantized=True).log_softmax(-1) - before).square().mean())
            model.spread(ids)
        after = model(ids).log_softmax(-1)
    assert torch.allclose(after, before, atol=1e-3)
    assert losses[1] < losses[0] / 10


def test_the_quantized_forward_pass_has_gradients_like_the_float_one() -> None:
    model = toy_transformer(0.05)
    rows = torch.randint(0, 256, (4, 49))
    model.calibrate(rows[:, :-1])
    gradients = []
    for quantized in (False, True):
        model.zero_grad()
        logits = model(rows[:, :-1], quantized).flatten(0, 1)
        torch.nn.functional.cross_entropy(logits, rows[:, 1:].flatten()).backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for name, a, b in zip(dict(model.named_parameters()), *gradients, strict=True):
        cosine = float((a * b).sum() / (a.norm() * b.norm()))
        assert cosine > 0.9, (name, cosine)


@pytest.mark.parametrize(("length", "window"), [(70, 24), (64, 64), (10, 48), (5, 1)])
def test_attention_in_windows_is_attention_with_a_mask(length: int, window: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, length, 64, requires_grad=True) for h in (3, 1, 1))
    mask = window_mask(length, window, "cpu")
    plain = torch.nn.functional.scaled_dot_product_attention(
        q, k.expand(-1, 3, -1, -1), v.expand(-1, 3, -1, -1), attn_mask=mask
    )
    ours = windowed_attention(q, k[:, 0], v[:, 0], mask, window)
    assert torch.allclose(ours, plain, atol=1e-5)
    weight = torch.randn_like(plain)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), (q, k, v)) for y in (ours, plain)), strict=True):
        assert torch.allclose(a, b, atol=1e-4)

"""Small models with random weights, for tests of everything that needs one."""

from __future__ import annotations

import numpy as np

from lmcompress.config import HEAD_SIZE, ModelConfig
from lmcompress.modelfile import Layer, Model, dumps, loads
from lmcompress.tokenizer import Tokenizer, byte_tokenizer

TINY = ModelConfig(vocab_size=256, d_model=64, n_layer=2, n_head=2, d_ff=192, window=24)


def random_model(config: ModelConfig = TINY, seed: int = 0) -> Model:
    """A model whose activations fill their ranges; its vocabulary is the 256 bytes, then pairs of letters."""
    rng = np.random.default_rng(seed)
    d, V = config.d_model, config.vocab_size

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.integers(-63, 64, (rows, columns)).astype(np.int8)

    def scale(rows: int, unit: float) -> np.ndarray:
        return (unit * rng.uniform(0.5, 2.0, rows)).astype(np.float32)

    def gain(channels: int) -> np.ndarray:
        return np.exp2(-np.minimum(rng.geometric(0.7, channels) - 1, 7)).astype(np.float32)

    def layer(n_head: int, d_ff: int, _: int) -> Layer:
        heads = n_head * HEAD_SIZE
        turned, rest = (heads + HEAD_SIZE, HEAD_SIZE) if heads else (0, 0)
        return Layer(
            qkv=matrix(turned + rest, d),
            qkv_scale=np.concatenate([scale(turned, 0.1), scale(rest, 0.003)]),
            score=rng.integers(1, 100, n_head).astype(np.int32),
            attn_scale=np.float32(1.7),
            o=matrix(d, heads),
            o_scale=scale(d if heads else 0, 0.01),
            up=matrix(d_ff, d),
            up_scale=scale(d_ff, 0.006),
            down=matrix(d, d_ff),
            down_scale=scale(d if d_ff else 0, 0.003),
            qkv_gain=gain(d),
            up_gain=gain(d),
        )

    layers = tuple(layer(*shape) for shape in config.layers)
    pieces = [bytes([i]) for i in range(256)]
    pieces += [bytes([97 + i // 26, 97 + i % 26]) if i < 676 else b"%05d" % i for i in range(V - 256)]
    tokenizer = Tokenizer(tuple(pieces), (512,) * V) if V > 256 else byte_tokenizer()
    depth = int(np.log2(V))
    short = 2 ** (depth + 1) - V  # leaves of a tree as balanced as can be
    depths = np.array(
        [[depth] * short + [depth + 1] * (V - short), [depth + 1] * (V - short) + [depth] * short], np.uint8
    )
    embed = rng.integers(-127, 128, (V, d)).astype(np.int8)
    model = Model("random", config, tokenizer, depths, embed, layers, matrix(V, d), scale(V, 0.05), gain(d))
    return loads(dumps(model))

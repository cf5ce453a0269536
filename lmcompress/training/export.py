"""From a trained float model to the integers of a model file, and back to train on.

Knows: both. Does not know: training, files. The integers are those of the quantized forward pass.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmcompress.config import HEAD_SIZE
from lmcompress.modelfile import Layer, Model
from lmcompress.tokenizer import Tokenizer
from lmcompress.training.model import LOG2, NORM, RESIDUAL, SCORE_UNIT, Transformer, quantize_weight, score_factor


def export(
    model: Transformer, tokenizer: Tokenizer, order: np.ndarray, depths: np.ndarray, name: str, card: dict[str, Any]
) -> Model:
    """The integer model. `tokenizer` is that of the training ids; `order` int [V] lists them as the new ids go, the
    leaves of the trees `depths`, uint8 [K, V], from left to right."""
    index = torch.from_numpy(np.asarray(order, np.int64))

    head = model.head / model.head_gain

    def integers(w: Tensor) -> np.ndarray:
        return quantize_weight(w)[0].to(torch.int8).numpy()

    with torch.no_grad():
        layers = []
        for block in model.blocks:
            s = {n: t.float().numpy() for n, t in block.multipliers().items()}
            w = {n: integers(t) for n, t in block.matrices().items()}
            layers.append(
                Layer(
                    qkv=np.concatenate([w["q"], w["kv"]]),
                    qkv_scale=np.concatenate([s["q"], s["kv"]]),
                    score=score_factor(block.gain).numpy(),
                    attn_scale=s["attn"],
                    o=w["o"],
                    o_scale=s["o"],
                    up=w["up"],
                    up_scale=s["up"],
                    down=w["down"],
                    down_scale=s["down"],
                    qkv_gain=block.qkv_gain.numpy(),
                    up_gain=block.up_gain.numpy(),
                )
            )
        embed = (F.rms_norm(model.embed, (model.config.d_model,)) * NORM).round().clamp(-127, 127)
        return Model(
            name,
            model.config,
            Tokenizer(tuple(tokenizer.pieces[i] for i in order), tuple(tokenizer.costs[i] for i in order)),
            np.asarray(depths, np.uint8),
            embed[index].to(torch.int8).numpy(),
            tuple(layers),
            integers(head)[index],
            (quantize_weight(head)[1] * model.head_factor)[index].numpy(),
            model.head_gain.numpy(),
            card,
        )


def restore(model: Model) -> dict[str, Tensor]:
    """Float weights, as Transformer has them, that export() makes the model's integers of, for its own vocabulary. Integers
    do not tell the scales of an MLP's inputs and of values, which what follows undoes: these are such that the matrices'
    rows have a norm of 1 on average, as at the start of a training."""

    def rows(w: np.ndarray, scale: np.ndarray) -> np.ndarray:
        return w.astype(np.float32) * np.asarray(scale, np.float32)[:, None] if w.size else w.astype(np.float32)

    def norm_of(w: np.ndarray) -> float:
        return float(np.linalg.norm(w, axis=1).mean()) if len(w) else 1.0

    weights: dict[str, np.ndarray] = {
        "embed": model.embed.astype(np.float32) / NORM,
        "head": rows(model.head, model.head_scale * (NORM * math.log(2) / LOG2)) * model.head_gain,
        "head_gain": model.head_gain,
    }
    for i, layer in enumerate(model.layers):
        qkv = rows(layer.qkv, layer.qkv_scale) * layer.qkv_gain
        heads = layer.o.shape[1]
        q, k, v = np.split(qkv, [heads, heads + HEAD_SIZE])
        up = rows(layer.up, layer.up_scale) * layer.up_gain
        clip_v, clip_u = 127 / NORM / norm_of(v), 255 / NORM / norm_of(up)
        clip_o = clip_v / float(layer.attn_scale)
        block = {
            "q": q * (NORM / RESIDUAL),
            "kv": np.concatenate([k * (NORM / RESIDUAL), v * (clip_v * NORM / 127)]),
            "o": rows(layer.o, layer.o_scale / (clip_o * (RESIDUAL / 127))),
            "up": up * (clip_u * NORM / 255),
            "down": rows(layer.down, layer.down_scale / (clip_u**2 * (RESIDUAL * 256 / 255**2))),
            "gain": layer.score / np.float32(SCORE_UNIT),
            "qkv_gain": layer.qkv_gain,
            "up_gain": layer.up_gain,
            "clip_v": np.float32(clip_v),
            "clip_o": np.float32(clip_o),
            "clip_u": np.float32(clip_u),
        }
        weights |= {f"blocks.{i}.{name}": np.asarray(w) for name, w in block.items()}
    return {name: torch.from_numpy(np.array(w, np.float32)) for name, w in weights.items()}

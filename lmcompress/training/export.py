"""From a trained float model to the integers of a model file.

Knows: both. Does not know: training, files. The integers are those of the quantized forward pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmcompress.modelfile import Layer, Model
from lmcompress.tokenizer import Tokenizer
from lmcompress.training.model import NORM, Transformer, quantize_weight, score_factor


def export(
    model: Transformer, tokenizer: Tokenizer, order: np.ndarray, depths: np.ndarray, name: str, card: dict[str, Any]
) -> Model:
    """The integer model. `tokenizer` is that of the training ids; `order` int [V] lists them as the new ids go, the
    leaves of the tree `depths` from left to right."""
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

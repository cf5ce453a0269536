"""What a trained model loses with integers in its forward pass, with fewer bits, without columns, heads, attention or MLP of a
layer, with a shorter window there, without training again; what the mean of several gains.

Knows: training runs' checkpoints and their folder of token ids. Does not know: model files, coding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.table import Table
from torch import Tensor

from benchmarks.parts import order_0
from lmcompress.config import HEAD_SIZE
from lmcompress.training import data
from lmcompress.training.cli import start_of
from lmcompress.training.model import Transformer
from lmcompress.training.train import Recipe, grow, mean, trained

BITS = (8, 7, 6, 5, 4)
SHARES = (0.1, 0.25, 0.5)  # of an MLP's columns
SHORT = 64  # positions

Texts = dict[str, tuple[np.ndarray, float]]  # as data.validation gives them


@torch.no_grad()
def bits_of(model: Transformer, rows: np.ndarray, integers: bool = False) -> float:
    """Bits that the model needs for rows int64 [n, length + 1] without the first token of each."""
    nats = 0.0
    for part in torch.from_numpy(rows).split(8):
        logits = model(part[:, :-1], integers).float().flatten(0, 1)
        nats += F.cross_entropy(logits, part[:, 1:].flatten(), reduction="sum").item()
    return nats / math.log(2)


def quantization_table(checkpoint: Path, ids: Path, tokens: int) -> Table:
    """Bits per byte on the validation split of a training run's folder of ids: float, and with the exact integers."""
    model, recipe, _ = trained(checkpoint, ids)
    table = Table("bits per byte", "float", "integers", "difference")
    totals = [0.0, 0.0, 0.0]
    for category, (rows, n_bytes) in data.validation(ids, recipe.sequence, tokens).items():
        bits = [bits_of(model, rows), bits_of(model, rows, True)]
        totals = [a + b for a, b in zip(totals, (*bits, n_bytes), strict=True)]
        table.add_row(category, *(f"{b / n_bytes:.4f}" for b in (*bits, bits[1] - bits[0])))
    table.add_row("all", *(f"{b / totals[2]:.4f}" for b in (*totals[:2], totals[1] - totals[0])))
    return table


def shrink_table(checkpoint: Path, ids: Path, tokens: int) -> Table:
    """Bits per byte of all validation text with weights rounded or taken out (in bfloat16 products, as in training), and
    the bytes of the weights, by the order-0 entropy of each matrix of integers."""
    model, recipe, _ = trained(checkpoint, ids)
    texts = data.validation(ids, recipe.sequence, tokens)
    n_bytes = sum(size for _, size in texts.values())
    table = Table("change", "bits per byte", "difference", "bytes of weights")
    first = None
    for name, changed, bits in variants(model):
        with torch.autocast("cpu", torch.bfloat16):
            found = sum(bits_of(changed, rows) for rows, _ in texts.values()) / n_bytes
        first = found if first is None else first
        table.add_row(name, f"{found:.4f}", f"{found - first:+.4f}", f"{entropy(changed, bits):,.0f}")
    return table


def mean_table(checkpoints: Sequence[Path], ids: Path, tokens: int, parts: int) -> Table:
    """Bits per byte of all validation text (in bfloat16 products) of every mean of the checkpoints' weights in so many
    parts at most, which `lmcompress train` begins with when it is given as many `--init`; models may be among them,
    after the first."""
    recipe = Recipe.parse(torch.load(checkpoints[0], map_location="cpu", weights_only=True)["recipe"])
    weights = [start_of([str(path)])[1].weights for path in checkpoints]
    model = Transformer(recipe.model)
    texts = data.validation(ids, recipe.sequence, tokens)
    n_bytes = sum(size for _, size in texts.values())
    table = Table(*(f"{path.parent.name}/{path.name}" for path in checkpoints), "bits per byte")
    for shares in product(range(parts + 1), repeat=len(weights)):
        if math.gcd(*shares) == 1 and sum(shares) <= parts:
            chosen = [one for one, n in zip(weights, shares, strict=True) for _ in range(n)]
            grow(model, mean(chosen))
            with torch.autocast("cpu", torch.bfloat16):
                found = sum(bits_of(model, rows) for rows, _ in texts.values()) / n_bytes
            table.add_row(*map(str, shares), f"{found:.4f}")
    return table


def variants(model: Transformer) -> Iterator[tuple[str, Transformer, int]]:
    """Name, changed copy, bits of a weight."""
    yield "as it is", model, 7
    for bits in BITS:
        changed: Any = deepcopy(model)
        for p in matrices(changed):
            integers, scale = rounded(p, bits)
            p.data = integers * scale
        yield f"{bits} bits", changed, bits
    for share in SHARES:
        changed = deepcopy(model)
        for block in changed.blocks:
            norms = block.up.norm(dim=1) * block.down.norm(dim=0)
            kept = norms.sort().indices[int(share * len(norms)) :]
            block.up.data, block.down.data = block.up.data[kept], block.down.data[:, kept]
        yield f"MLP columns: {share:.0%} out", changed, 7
    for layer, shape in enumerate(model.config.layers):
        for what, written, there in (("attention", "o", shape.n_head), ("MLP", "down", shape.d_ff)):
            if there:
                changed = deepcopy(model)
                getattr(changed.blocks[layer], written).data.zero_()
                yield f"layer {layer}: {what} out", changed, 7
        if shape.n_head and shape.window > SHORT:
            changed = deepcopy(model)
            changed.blocks[layer].window = SHORT
            yield f"layer {layer}: window of {SHORT}", changed, 7
        for head in range(shape.n_head):
            changed = deepcopy(model)
            components = slice(head * HEAD_SIZE, (head + 1) * HEAD_SIZE)
            changed.blocks[layer].q.data[components] = 0
            changed.blocks[layer].o.data[:, components] = 0
            yield f"layer {layer}: head {head} out", changed, 7


def matrices(model: Transformer) -> list[Tensor]:
    return [p for p in model.parameters() if p.dim() == 2 and p.numel()]


def rounded(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Integers of so many bits, symmetrical about 0, and the scale of each row [n, 1]."""
    scale = (w.detach().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).clamp_min(1e-8)
    return (w.detach() / scale).round(), scale


def entropy(model: Transformer, bits: int) -> float:
    """Bytes of all matrices as integers of so many bits."""
    return sum(order_0(rounded(w, bits)[0].numpy()) for w in matrices(model))

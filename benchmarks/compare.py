"""Short training runs, each with one thing changed: bits per byte by kind of text, multiply-adds, bytes of weights.

Knows: what is compared; a toy recipe to start from (runs/toy.json). Does not know: how training works.
A run lies in a folder named by what it was trained with, so two comparisons share one, and one that was stopped goes on.
Every variant sees as many bytes of text as the base, and is measured on the same text with as much before it.
"""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import zstandard
from rich.box import MARKDOWN
from rich.table import Table
from torch import Tensor

from benchmarks.engine_speed import multiply_adds
from benchmarks.weights import bits_of
from lmcompress.config import ModelConfig
from lmcompress.tokenizer import Tokenizer
from lmcompress.training import data, train
from lmcompress.training import model as float_model
from lmcompress.training.cli import prepare
from lmcompress.training.train import Recipe

GROUPS = {
    "prose": ("en_books", "en_prose", "markdown_docs"),
    "wiki": ("en_wiki", "wiki_markup"),
    "Chinese": ("zh_classics", "zh_law", "zh_wiki"),
    "other languages": ("other_lang",),
    "code": ("code",),
    "logs": ("logs",),
    "tables": ("csv", "json", "xml"),
}
CONTEXT = 1536  # bytes of each text that is validated
TEXTS = 12  # of each category
WEIGHTS = dict(data.WEIGHTS)  # of the mean, also where a variant is trained with others


class MatrixAdam(torch.optim.AdamW):
    """AdamW in Muon's place."""

    def __init__(self, params: Any, lr: float, weight_decay: float) -> None:
        super().__init__(params, lr, betas=(0.8, 0.95), eps=1e-10, weight_decay=weight_decay)


def unshifted(k: Tensor) -> Tensor:
    return k


PATCHES: dict[str, tuple[Any, str, Any]] = {  # what no field of a recipe says
    "adam": (train, "Muon", MatrixAdam),
    "unshifted": (float_model, "shift_keys", unshifted),
    "unweighted": (data, "WEIGHTS", {}),
}
COMPARISONS: dict[str, dict[str, dict[str, Any]]] = {  # fields of recipe or model; `patch`; `integers`: so measured
    "noise": {"seed 0": {}, "seed 1": {"seed": 1}},
    "pieces": {"2048": {}, "4096": {"vocab_size": 4096}, "8192": {"vocab_size": 8192}},
    "digits": {"in pieces": {}, "alone": {"alone": True}},
    "characters": {
        "pieces": {},
        "characters": {"vocab_size": 256, "n_layer": 2, "d_ff": 288, "sequence": 512, "batch": 4},
    },
    "width x layers": {
        "160 x 2": {"d_model": 160, "n_layer": 2, "d_ff": 448},
        "128 x 3": {},
        "96 x 5": {"d_model": 96, "n_layer": 5, "d_ff": 288},
    },
    "MLP, layers": {
        "1.75 d, 4": {"d_ff": 224, "n_layer": 4},
        "3 d, 3": {},
        "5.5 d, 2": {"d_ff": 704, "n_layer": 2},
    },
    "window": {"64": {"window": 64}, "128": {}, "256": {"window": 256}},
    "sequence": {"128": {"sequence": 128, "batch": 16}, "256": {}, "512": {"sequence": 512, "batch": 4}},
    "optimizer of matrices": {
        "Muon": {},
        "AdamW, 0.001": {"patch": "adam", "muon_lr": 0.001},
        "AdamW, 0.003": {"patch": "adam", "muon_lr": 0.003},
        "AdamW, 0.01": {"patch": "adam", "muon_lr": 0.01},
    },
    "decay": {"0.2": {"decay": 0.2}, "0.5": {}, "0.9": {"decay": 0.9}},
    "sampling": {"weights": {}, "by size": {"patch": "unweighted"}},
    "key shift": {"shifted": {}, "unshifted": {"patch": "unshifted"}},
    "quantized share": {
        "0": {"integers": True},
        "0.03": {"integers": True, "quantized": 0.03},
        "0.1": {"integers": True, "quantized": 0.1},
    },
}


def bytes_per_token(ids: Path) -> float:
    """Of the mix."""
    mix = data.Mix(ids, 1)
    counts = [mix.index[f"{c}.train"] for c in mix.names]
    return float(sum(p * n["bytes"] / n["tokens"] for p, n in zip(mix.p, counts, strict=True)))


def changed(base: Recipe, change: dict[str, Any]) -> Recipe:
    """`base` with the fields of `change` that a recipe or its model has."""
    shape = {f.name for f in fields(ModelConfig)} & change.keys()
    rest = {f.name for f in fields(Recipe)} & change.keys()
    return replace(base, model=replace(base.model, **{n: change[n] for n in shape}), **{n: change[n] for n in rest})


def validation(ids: Path, tokenizer: Tokenizer) -> dict[str, list[bytes]]:
    """By category: parts of the validation split."""
    length = round(CONTEXT / bytes_per_token(ids))
    rows = data.validation(ids, length, TEXTS * length)
    return {category: [tokenizer.decode(row[1:]) for row in part] for category, (part, _) in rows.items()}


def measured(base: Recipe, change: dict[str, Any], source: Path, out: Path, device: str = "cpu") -> dict[str, Any]:
    """Trains a variant, if it isn't trained yet, and measures it."""
    recipe = changed(base, change)
    folders = [out / f"pieces-{r.model.vocab_size}{'-alone' * r.alone}" for r in (base, recipe)]
    first, own = (prepare(source, f, r.model.vocab_size, r.alone) for f, r in zip(folders, (base, recipe), strict=True))
    ids = folders[1] / "ids"
    size = bytes_per_token(ids)
    texts = validation(folders[0] / "ids", first)
    recipe = replace(recipe, tokens=round(recipe.tokens * bytes_per_token(folders[0] / "ids") / size))
    integers = bool(change.get("integers"))
    key = json.dumps([asdict(recipe), change.get("patch")], sort_keys=True)
    folder = out / "runs" / hashlib.sha256(key.encode()).hexdigest()[:12]
    with ExitStack() as patches:
        if "patch" in change:
            patches.enter_context(mock.patch.object(*PATCHES[change["patch"]]))
        with mock.patch.object(data, "validation", return_value={}):
            train.train(recipe, ids, folder, device)
        model, _, saved = train.trained(folder / "checkpoint.pt", ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=not integers):
            bits = {
                category: sum(bits_of(model, np.append(0, own.encode(part))[None], integers) for part in parts)
                / sum(map(len, parts))
                for category, parts in texts.items()
            }
    index = data.Mix(ids, 1).index
    mass = {c: WEIGHTS.get(c, 1.0) * index[f"{c}.train"]["bytes"] for c in bits}

    def mean(categories: Any) -> float:
        known = [c for c in categories if c in bits]
        return sum(bits[c] * mass[c] for c in known) / sum(mass[c] for c in known) if known else math.nan

    return {
        "recipe": asdict(recipe),
        "seconds": round(saved["elapsed"], 1),
        "multiply_adds": round(multiply_adds(recipe.model) / size),
        "weights": packed(model),
        "bits_per_byte": {name: round(mean(group), 4) for name, group in (*GROUPS.items(), ("mean", bits))},
    }


def packed(model: float_model.Transformer) -> int:
    """Bytes of the weights as a model file has them: 7 bits and zstd, here without scales and vocabulary."""
    matrices = [float_model.quantize_weight(p)[0].to(torch.int8).numpy() for p in model.parameters() if p.dim() == 2]
    return len(zstandard.compress(b"".join(m.tobytes() for m in matrices), 3))


def run(base: Recipe, source: Path, out: Path, names: list[str]) -> Table:
    """Measures what results.jsonl in `out` has not, one after the other; all of `names` in a table."""
    file = out / "results.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    known = {json.dumps([line["base"], line["change"]]): line for line in lines}
    table = Table("comparison", "variant", "kMAC/byte", "KB", "seconds", *GROUPS, "mean", box=MARKDOWN)
    for comparison in names:
        for name, change in COMPARISONS[comparison].items():
            key = json.dumps([asdict(base), change])
            if key not in known:
                known[key] = {"base": asdict(base), "change": change, **measured(base, change, source, out)}
                with file.open("a") as opened:
                    opened.write(json.dumps(known[key]) + "\n")
            line = known[key]
            bits = [f"{line['bits_per_byte'][group]:.3f}" for group in (*GROUPS, "mean")]
            figures = [f"{line[what] / 1000:.0f}" for what in ("multiply_adds", "weights")]
            table.add_row(comparison, name, *figures, f"{line['seconds']:.0f}", *bits)
    return table

"""Bytes per token of vocabularies, by category of the validation split; and what the head costs a byte.

Knows: shipped models' vocabularies, vocabularies learned here. Does not know: how well a model predicts with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.box import MARKDOWN
from rich.table import Table

from benchmarks.engine_speed import multiply_adds
from lmcompress import modelfile
from lmcompress.tokenizer import Tokenizer
from lmcompress.training import data, vocabulary


def vocabularies(names: Sequence[str], folder: Path, sample: int) -> dict[str, Tokenizer]:
    """By name: the vocabulary of a model or, for a number, that many pieces learned from `sample` bytes of `folder`."""
    texts = data.sample(folder, sample) if any(name.isdecimal() for name in names) else []
    return {
        name: vocabulary.learn(texts, int(name)) if name.isdecimal() else modelfile.load(name).tokenizer
        for name in names
    }


def table(names: Sequence[str], folder: Path, sample: int) -> Table:
    """A row for each category; the mix is weighted as in training. Multiply-adds are those of the fast model's shape
    with so many pieces, on the mix."""
    found = vocabularies(names, folder, sample)
    mass: dict[str, float] = {}  # by category, of all documents
    sizes: dict[str, int] = {}  # validation bytes
    tokens: dict[str, list[int]] = {}
    for category, document in data.documents(folder):
        mass[category] = mass.get(category, 0) + data.WEIGHTS.get(category, 1.0) * len(document)
        if data.is_validation(document) and document:
            counts = (len(tokenizer.encode(document)) for tokenizer in found.values())
            sizes[category] = sizes.get(category, 0) + len(document)
            tokens[category] = [a + b for a, b in zip(tokens.get(category, [0] * len(found)), counts, strict=True)]
    result = Table("bytes per token", "bytes", *found, box=MARKDOWN)
    for category, n in sorted(sizes.items()):
        result.add_row(category, f"{n:,}", *(f"{n / t:.2f}" for t in tokens[category]))
    total = sum(mass[c] for c in sizes)
    mix = [total / sum(mass[c] * tokens[c][i] / n for c, n in sizes.items()) for i in range(len(found))]
    fast = modelfile.load("fast").config
    shapes = [replace(fast, vocab_size=tokenizer.vocab_size) for tokenizer in found.values()]
    costs = [multiply_adds(shape) for shape in shapes]
    shares = [shape.vocab_size * shape.d_model / cost for shape, cost in zip(shapes, costs, strict=True)]
    result.add_row("mix", f"{sum(sizes.values()):,}", *(f"{m:.2f}" for m in mix))
    result.add_row("head, share of multiply-adds", "", *(f"{share:.0%}" for share in shares))
    result.add_row(
        "thousand multiply-adds a byte", "", *(f"{c / m / 1000:.0f}" for c, m in zip(costs, mix, strict=True))
    )
    return result

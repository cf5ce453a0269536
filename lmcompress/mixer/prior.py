"""What a mixer knows before its first token: statistics and weights that other texts have taught one (prior.json).

Knows: the shapes of what is learned. Does not know: what it is used for. `python -m benchmarks prior` makes the file again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).parent / "prior.json"
CONFIDENCES = 80
LEVELS = 32
FIELDS = 128
ORDERS = 24  # rows of the final weights
WIDTH = 64  # of a row of weights; the last ones are 0
MOST_SETS = 5


@dataclass(frozen=True)
class Parts:
    """How many there are of each kind; the light mixer has the first ones."""

    contexts: int  # with a slot for each node
    guesses: int  # expected tokens: long match, short match, line above by field and by column, n-grams; then runs
    sets: int  # weight sets that predict side by side: by last token, node, field, column, match
    apms: int

    @property
    def model(self) -> int:
        """Index of the model's three inputs, behind those of contexts (twice) and guesses (twice); the constant follows."""
        return 2 * (self.contexts + self.guesses)

    @property
    def inputs(self) -> int:
        return self.model + 4

    def rows(self, vocab_size: int) -> list[int]:
        """Of each weight set."""
        return [vocab_size, vocab_size - 1, 4 * FIELDS, 8 * FIELDS, 80][: self.sets]


FULL, LIGHT = Parts(16, 9, 5, 2), Parts(8, 6, 2, 1)


@dataclass(frozen=True, eq=False)
class Learned:
    """What a mixer has learned but for what it counts of the text's own tokens and the last corrections. Statistics are
    p << 10 | n: 22 bits of probability, a count."""

    slot_map: np.ndarray  # uint32 [contexts, 512]
    guess_map: np.ndarray  # uint32 [guesses, CONFIDENCES, LEVELS]
    weights: np.ndarray  # int16 [rows of all sets, WIDTH]
    final_weights: np.ndarray  # int32 [ORDERS, MOST_SETS]


@cache
def first(light: bool, network: bool, vocab_size: int) -> Learned:
    """What such a mixer knows at first."""
    parts = LIGHT if light else FULL
    prior = _file()[f"{'light' if light else 'full'}, {'network' if network else 'alone'}"]

    def statistics(name: str) -> np.ndarray:
        p, n = (np.array(prior[name][part], np.uint32) for part in ("p", "n"))
        return p << 16 | n

    weights = np.zeros((parts.sets, WIDTH), np.int16)
    weights[:, : parts.inputs] = prior["weights"]
    final_weights = np.zeros((ORDERS, MOST_SETS), np.int32)
    final_weights[:, : parts.sets] = prior["final_weights"]
    guesses = statistics("guesses")[:, :, None]
    return Learned(
        np.tile(statistics("slots"), (parts.contexts, 1)),
        np.tile(guesses, (1, 1, LEVELS)),
        np.repeat(weights, parts.rows(vocab_size), axis=0),
        final_weights,
    )


def summary(learned: Learned, light: bool, before: Learned, vocab_size: int) -> dict[str, Any]:
    """The entry of prior.json that stands for `learned`, which began as `before`: one row for all contexts, for all levels,
    and for all rows of a weight set, those counting most that moved furthest. Probabilities in 2^-16; counts up to 30."""
    parts = LIGHT if light else FULL

    def statistics(values: np.ndarray, start: np.ndarray, axis: int) -> dict[str, Any]:
        p, n = values >> 10, (values & 1023).astype(np.float64)
        moved = (values != start) * n
        count = moved.sum(axis)
        mean = np.where(count > 0, (p * moved).sum(axis) / np.maximum(count, 1), (start >> 10).mean(axis))
        return {
            "p": np.rint(mean / 64).clip(1, 65535).astype(int).tolist(),
            "n": count.clip(0, 30).astype(int).tolist(),
        }

    weights, end = [], 0
    for rows in parts.rows(vocab_size):
        row, old = (w[end : end + rows].astype(np.float64) for w in (learned.weights, before.weights))
        far = np.abs(row - old).sum(1)
        weights.append(np.rint(far @ row / far.sum()).astype(int)[: parts.inputs].tolist())
        end += rows
    return {
        "slots": statistics(learned.slot_map[: parts.contexts], before.slot_map[: parts.contexts], 0),
        "guesses": statistics(learned.guess_map[: parts.guesses], before.guess_map[: parts.guesses], 2),
        "weights": weights,
        "final_weights": learned.final_weights[:, : parts.sets].tolist(),
    }


@cache
def _file() -> dict[str, Any]:
    return json.loads(FILE.read_text())

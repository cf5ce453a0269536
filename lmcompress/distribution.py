"""What passes from the network to the mixer.

Knows: arrays. Does not know: who computes them, what they are used for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Distribution(NamedTuple):
    """What the network says of the tokens that follow, in n lanes or in T steps of n lanes."""

    base: np.ndarray  # uint64 [n, (T,) ceil(V / 64)]: weights before each group of 64 ids
    local: np.ndarray  # uint32 [n, (T,) V]: weights summed over ids, inclusive, within the group
    features: np.ndarray  # int8 [n, (T,) d_model], within ±127: what the output's matrix was multiplied with

    def below(self, rows: tuple[np.ndarray, ...], ids: np.ndarray) -> np.ndarray:
        """uint64: the sum of the weights of all ids below one of 0..V, for lanes (and steps) `rows`, all of one shape when
        broadcast."""
        V = self.local.shape[-1]
        whole = np.where(ids == V, self.base.shape[-1] - 1, ids >> 6)
        part = np.where((ids & 63 != 0) | (ids == V), self.local[(*rows, ids - 1)], 0)
        return self.base[(*rows, whole)] + part.astype(np.uint64)

    def step(self, t: int) -> Distribution:
        """One of T steps."""
        return Distribution(*(array[:, t] for array in self))

    def one_step(self) -> Distribution:
        """A step as T steps, of which there is one."""
        return Distribution(*(array[:, None] for array in self))

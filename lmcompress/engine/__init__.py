"""The integer Transformer of docs/MODEL.md: the same integers from every engine."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Distribution(NamedTuple):
    """What the network says of the tokens that follow, in n lanes or in T steps of n lanes."""

    base: np.ndarray  # uint64 [n, (T,) ceil(V / 64)]: weights before each group of 64 ids
    local: np.ndarray  # uint32 [n, (T,) V]: weights summed over ids, inclusive, within the group
    features: np.ndarray  # int8 [n, (T,) d_model]: what the output's matrix was multiplied with

    def at(self, steps: int | slice | None) -> Distribution:
        """Of some of T steps; None: of one step, as T = 1."""
        return Distribution(self.base[:, steps], self.local[:, steps], self.features[:, steps])

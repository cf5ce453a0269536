"""The compiled mixer. Same integers as the reference, same interface.

Knows: how to hand arrays to the C extension. Does not know: the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmcompress import _native
from lmcompress.mixer.tables import LOG2, SQUASH, STRETCH, sizes
from lmcompress.tree import MAX_DEPTH, Tree


class Mixer:
    """What is learned of one block: `n_lanes` lanes with about `n_tokens` tokens together, tables of about
    2^`mixer_bits` bytes. `pieces[i]` are the bytes of id i. See `reference.Mixer`."""

    def __init__(self, tree: Tree, pieces: Sequence[bytes], mixer_bits: int, n_lanes: int, n_tokens: int) -> None:
        start = np.cumsum([0, *map(len, pieces)]).astype(np.int32)
        edges = (tree.left, tree.right, tree.lo, tree.mid, tree.hi)
        self._mixer = _native.mixer(
            *edges, b"".join(pieces), start, LOG2, STRETCH, SQUASH, n_lanes, *sizes(mixer_bits, n_tokens)
        )
        self._k = np.empty(n_lanes * MAX_DEPTH, np.uint32)
        self._bits = np.empty(n_lanes * MAX_DEPTH, np.uint8)

    def begin(self, base: np.ndarray | None, local: np.ndarray | None, n: int) -> None:
        """A step of lanes 0..n-1 begins."""
        _native.mixer_begin(self._mixer, base, local, n)

    def predict(self) -> np.ndarray:
        """k uint32 [active]."""
        return np.frombuffer(_native.mixer_predict(self._mixer), np.uint32)

    def update(self, bits: np.ndarray) -> None:
        """bits uint8 [active]."""
        _native.mixer_update(self._mixer, np.ascontiguousarray(bits, np.uint8))

    def tokens(self) -> np.ndarray:
        """int32 [n]."""
        return np.frombuffer(_native.mixer_tokens(self._mixer), np.int32)

    def encode(
        self, base: np.ndarray | None, local: np.ndarray | None, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """(k uint32, bits uint8) of a step whose tokens int32 [n] are known."""
        tokens = np.ascontiguousarray(tokens, np.int32)
        count = _native.mixer_encode(self._mixer, base, local, tokens, self._k, self._bits)
        return self._k[:count].copy(), self._bits[:count].copy()

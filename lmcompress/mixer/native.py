"""The compiled mixer. Same integers as the reference, same interface.

Knows: how to hand arrays to the C extension. Does not know: the arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmcompress import _native
from lmcompress.coder import IMPOSSIBLE, Decoder
from lmcompress.distribution import Distribution
from lmcompress.errors import CorruptError
from lmcompress.mixer import prior, reference
from lmcompress.mixer.tables import CELL_ROW, LOG2, SETTLED, SQUASH, STRETCH, sizes
from lmcompress.ngrams import NONE
from lmcompress.tree import MAX_DEPTH, Tree


class Mixer:
    """What is learned of one block: `n_lanes` lanes with about `n_tokens` tokens together, tables of about
    2^`mixer_bits` bytes. `pieces[i]` are the bytes of id i. See `reference.Mixer`."""

    def __init__(
        self,
        tree: Tree,
        pieces: Sequence[bytes],
        mixer_bits: int,
        n_lanes: int,
        n_tokens: int,
        light: bool = False,
        n_features: int = 0,
        ngrams: np.ndarray = NONE,
        first: prior.Learned | None = None,
    ) -> None:
        first = first or prior.first(light, n_features > 0, tree.vocab_size)
        learned = (first.slot_map, first.guess_map, first.weights, first.final_weights)
        start = np.cumsum([0, *map(len, pieces)]).astype(np.int32)
        edges = (tree.left, tree.right, tree.lo, tree.mid, tree.hi)
        self.capsule = _native.mixer(
            *edges,
            b"".join(pieces),
            start,
            LOG2,
            STRETCH,
            SQUASH,
            SETTLED,
            CELL_ROW,
            *learned,
            ngrams,
            light,
            n_features,
            n_lanes,
            *sizes(mixer_bits, n_tokens),
        )

    def learned(self) -> prior.Learned:
        """What it knows by now."""
        slots, guesses, weights, final = _native.mixer_learned(self.capsule)
        return prior.Learned(
            np.frombuffer(slots, np.uint32).reshape(-1, 512),
            np.frombuffer(guesses, np.uint32).reshape(-1, prior.CONFIDENCES, prior.LEVELS),
            np.frombuffer(weights, np.int16).reshape(-1, prior.WIDTH),
            np.frombuffer(final, np.int32).reshape(prior.ORDERS, prior.MOST_SETS),
        )

    def begin(self, said: Distribution | None, n: int) -> None:
        """A step of lanes 0..n-1 begins."""
        _native.mixer_begin(self.capsule, None if said is None else said.one_step(), n)

    def predict(self) -> np.ndarray:
        """k uint32 [active]."""
        return np.frombuffer(_native.mixer_predict(self.capsule), np.uint32)

    def update(self, bits: np.ndarray) -> None:
        """bits uint8 [active]."""
        _native.mixer_update(self.capsule, np.ascontiguousarray(bits, np.uint8))

    def tokens(self) -> np.ndarray:
        """int32 [n]."""
        return np.frombuffer(_native.mixer_tokens(self.capsule), np.int32)

    def encode(self, said: Distribution | None, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k uint32, bits uint8) of T steps whose tokens int32 [n, T] are known."""
        k, bits = np.empty(tokens.size * MAX_DEPTH, np.uint32), np.empty(tokens.size * MAX_DEPTH, np.uint8)
        count = _native.mixer_encode(self.capsule, said, tokens, k, bits)
        return k[:count], bits[:count]

    def decode(self, coder: Decoder, said: Distribution | None, tokens: np.ndarray) -> None:
        """T steps, whose decisions are read from `coder`, into tokens int32 [n, T]. Raises CorruptError."""
        if coder.capsule is None:
            reference.decode(self, coder, said, tokens)
        elif not _native.mixer_decode(self.capsule, coder.capsule, said, tokens):
            raise CorruptError(IMPOSSIBLE)

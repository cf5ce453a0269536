"""A binary tree over the vocabulary by which a token is coded, and the order of ids that makes it a good one.

Knows: weights of symbols, their bytes. Does not know: probabilities of a text, models, files.
The tree is alphabetic (its leaves, left to right, are ids 0, 1, ..., V-1), so the depths of the leaves determine it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MAX_DEPTH = 24


class Tree:
    """Arrays int32 [V-1], one entry per inner node, node 0 being the root: `left`, `right` (a child node, or ~id for a
    leaf), `lo`, `mid`, `hi` (the node covers ids [lo, hi), its right child [mid, hi)). Nodes are numbered in preorder.
    Raises ValueError for depths that are no tree's."""

    def __init__(self, depths: np.ndarray) -> None:
        self.depths = np.asarray(depths, np.uint8)
        V = len(self.depths)
        if V < 2 or not 1 <= int(self.depths.min()) <= int(self.depths.max()) <= MAX_DEPTH:
            raise ValueError(f"a tree has two leaves or more, none deeper than {MAX_DEPTH}")
        # a node of depth d is one of 2^d equal parts of the numbers below 2^MAX_DEPTH
        width = 1 << (MAX_DEPTH - self.depths.astype(np.int64))
        edge = np.concatenate([[0], np.cumsum(width)])
        if edge[-1] != 1 << MAX_DEPTH or (edge[:-1] & width - 1).any():
            raise ValueError("the depths are not those of a tree")
        mid = np.arange(1, V)  # each of which is the middle of one node: half its width is the lowest bit set there
        half = edge[mid] & -edge[mid]
        start = edge[mid] - half
        order = np.lexsort((-half, start))
        mid, half, start = mid[order], half[order], start[order]
        lo, hi = np.searchsorted(edge, start), np.searchsorted(edge, start + 2 * half)
        node = np.arange(V - 1)
        self.left = np.where(mid - lo == 1, ~lo, node + 1).astype(np.int32)
        self.right = np.where(hi - mid == 1, ~mid, node + mid - lo).astype(np.int32)
        self.lo, self.mid, self.hi = lo.astype(np.int32), mid.astype(np.int32), hi.astype(np.int32)

    @property
    def vocab_size(self) -> int:
        return len(self.depths)


def weight_balanced(weights: Sequence[int] | np.ndarray, max_depth: int = MAX_DEPTH) -> np.ndarray:
    """uint8 [V]: depths of the tree that splits every range of ids where its two weights are closest (the first of
    such places), unless a leaf would come to lie deeper than max_depth. Weights are integers >= 0."""
    total = np.concatenate([[0], np.cumsum(np.asarray(weights, np.int64))])
    V = len(total) - 1
    if V > 1 << max_depth:
        raise ValueError("too many symbols for the depth")
    depths = np.zeros(V, np.uint8)
    todo = [(0, V, 0)]
    while todo:
        a, b, depth = todo.pop()
        if b - a == 1:
            depths[a] = depth
            continue
        room = 1 << (max_depth - depth - 1)  # leaves that each side can have
        first, last = max(a + 1, b - room), min(b - 1, a + room)
        split = int(np.searchsorted(total, (total[a] + total[b] + 1) // 2))
        split = min(max(split, first), last)
        if split > first and abs(2 * total[split - 1] - total[a] - total[b]) <= abs(
            2 * total[split] - total[a] - total[b]
        ):
            split -= 1
        todo += [(a, split, depth + 1), (split, b, depth + 1)]
    return depths


def text_order(pieces: Sequence[bytes]) -> np.ndarray:
    """int64 [V]: old ids in the order of their bytes, so that subtrees are what begins alike."""
    return np.array(sorted(range(len(pieces)), key=lambda i: pieces[i]), np.int64)

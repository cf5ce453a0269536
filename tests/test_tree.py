"""The tree over the vocabulary: depths determine it, every id is reached, bad depths are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcompress.tree import MAX_DEPTH, Tree, weight_balanced


def walk(tree: Tree, token: int) -> int:
    """Number of decisions to the leaf of `token`."""
    node = decisions = 0
    while node >= 0:
        assert tree.lo[node] <= token < tree.hi[node]
        node = int((tree.right if token >= tree.mid[node] else tree.left)[node])
        decisions += 1
    assert ~node == token
    return decisions


def test_bytes() -> None:
    tree = Tree(np.full(256, 8, np.uint8))
    assert [walk(tree, i) for i in range(256)] == [8] * 256
    assert (tree.lo[0], tree.mid[0], tree.hi[0]) == (0, 128, 256)


@given(st.lists(st.integers(0, 2**40), min_size=2, max_size=200))
def test_weight_balanced(weights: list[int]) -> None:
    depths = weight_balanced(weights)
    assert depths.max() <= MAX_DEPTH
    tree = Tree(depths)
    assert [walk(tree, i) for i in range(len(weights))] == depths.tolist()


def test_depth_is_bounded() -> None:
    depths = weight_balanced(2 ** np.arange(40))
    assert depths.max() == MAX_DEPTH
    Tree(depths)
    assert (weight_balanced([1] * 16, max_depth=4) == 4).all()
    with pytest.raises(ValueError):
        weight_balanced([1] * 17, max_depth=4)


def test_cost_is_near_the_entropy() -> None:
    weights = np.random.default_rng(0).zipf(1.3, 4000).clip(1, 10**6)
    p = weights / weights.sum()
    assert float((p * weight_balanced(weights)).sum()) < float(-(p * np.log2(p)).sum()) + 1


@pytest.mark.parametrize("depths", [[1], [1, 1, 1], [2, 2, 1, 1], [1, 2], [2, 1, 2], [0, 0], [2, 2, 2, 3], [1, 25]])
def test_impossible_depths(depths: list[int]) -> None:
    with pytest.raises(ValueError):
        Tree(np.array(depths))

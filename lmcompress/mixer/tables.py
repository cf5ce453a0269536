"""The mixer's constant tables, and how large its learned tables are.

Knows: logarithms and logistic functions in fixed point, how a slot moves. Does not know: contexts, tokens.
The unit of log2 odds is 1/256 in the tables.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# No entry lies within 10^-4 of where it would be rounded the other way: any binary64 arithmetic gives these integers.
_I = np.arange(4096)
# log2 of the mantissa in [1 + i/1024, 1 + (i+1)/1024), at its middle
LOG2 = np.rint(256 * np.log2((2049 + 2 * _I[:1024]) / 2048)).astype(np.uint16)
# log2 odds of a probability in [i/4096, (i+1)/4096), at its middle
STRETCH = np.rint(256 * np.log2((2 * _I + 1) / (8191 - 2 * _I))).astype(np.int16)
# 24-bit probability of log2 odds (i - 1280)/64
SQUASH = np.rint(2**24 / (1 + 2.0 ** ((1280 - _I[:2562]) / 64))).astype(np.uint32)
# which of 32 such classes a slot's 12-bit probability is of; rounds towards zero
QUANTIZED = np.trunc((STRETCH + 3072) / 192).clip(0, 31).astype(np.uint8)
# a cell counts its first token up to the first of these, its second one up to the second
CELL_MOST = (63, 15)
CELL_ROWS = 416  # of a context's 512 statistics: 32 for each count of a slot come first, then those for cells


def moved(slot: Any, bit: Any) -> Any:
    """A slot, (p - 2048) << 4 | count, p a 12-bit probability, that has seen a bit, 0 or 1; integers or arrays of them."""
    n, p = slot & 15, slot >> 4
    step = ((4095 * bit - 2048 - p) * 8 * (65536 // (2 * n + 3)) + (1 << 14)) >> 15
    p = p + ((step + 7 * bit) >> 3)  # by one at least
    return p * 16 | (n + (n < 12))


def _settled() -> tuple[np.ndarray, np.ndarray]:
    side, other, n, k = np.ogrid[:2, :2, : CELL_MOST[0] + 1, : CELL_MOST[1] + 1]
    slots = np.zeros(np.broadcast_shapes(side.shape, other.shape, n.shape, k.shape), np.int64)
    for i in range(1, CELL_MOST[0] + 1):
        slots[:, :, i, 0] = moved(slots[:, :, i - 1, 0], side[..., 0, 0])
    for i in range(1, CELL_MOST[1] + 1):
        slots[..., i] = moved(slots[..., i - 1], other[..., 0])
    # classes of counts from 1 up, below 8
    length = np.array([0, *(i - 1 if i < 5 else min(7, i.bit_length() + 1) for i in range(1, sum(CELL_MOST) + 1))])
    rows = np.select(
        [(n > 0) & (k == 0), (n == 0) & (k > 0), (n > 0) & (side == other)],
        [
            side * 32 + np.where(n < 17, n - 1, 16 + (n - 17) // 4),
            64 + other * 8 + length[k],
            80 + side * 8 + length[n + k],
        ],
        -1,
    )
    rows = np.where(rows < 0, (slots & 15) * 32 + QUANTIZED[(slots >> 4) + 2048], CELL_ROWS + rows)
    return slots.ravel().astype(np.int16), rows.ravel().astype(np.uint16)


# of a node's sides on which a cell's tokens lie and their counts, side << 11 | other << 10 | n << 4 | k: a slot that has seen the
# one n times, then the other k times; which of a context's statistics speaks for it
SETTLED, CELL_ROW = _settled()


def sizes(mixer_bits: int, n_tokens: int) -> tuple[int, int, int, int]:
    """log2 of the numbers of: cache lines of buckets, and as many of cells, remembered tokens for each context that has them,
    entries of a match table, entries of a table of followers. Together at most 1.25 * 2^mixer_bits bytes, and less
    where the text is short."""
    bits = min(mixer_bits, max(16, (n_tokens * 1024 - 1).bit_length()))
    return bits - 7, bits - 9, max(8, bits - 9), min(20, max(8, bits - 8))

"""The mixer's constant tables, and how large its learned tables are.

Knows: logarithms and logistic functions in fixed point, how a slot moves. Does not know: contexts, tokens.
The unit of log2 odds is 1/256 in the tables.
"""

from __future__ import annotations

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


def moved(slot: int, bit: int) -> int:
    """A slot, (p - 2048) << 4 | count, p a 12-bit probability, that has seen a bit."""
    n, p = slot & 15, slot >> 4
    step = (((2047 if bit else -2048) - p) * 8 * (65536 // (2 * n + 3)) + (1 << 14)) >> 15
    p += (step + (7 if bit else 0)) >> 3  # by one at least
    return p * 16 | min(n + 1, max(n, 12))


def _length(n: int) -> int:
    """A class of counts from 1 up, below 8."""
    return n - 1 if n < 5 else min(7, n.bit_length() + 1)


def _cell_row(side: int, n: int, other: int, k: int, slot: int) -> int:
    if n and not k:
        return CELL_ROWS + side * 32 + (n - 1 if n < 17 else 16 + (n - 17) // 4)
    if k and not n:
        return CELL_ROWS + 64 + other * 8 + _length(k)
    if n and side == other:
        return CELL_ROWS + 80 + side * 8 + _length(n + k)
    return (slot & 15) * 32 + int(QUANTIZED[(slot >> 4) + 2048])


def _settled() -> tuple[np.ndarray, np.ndarray]:
    slots, rows = [], []
    for side, other in ((0, 0), (0, 1), (1, 0), (1, 1)):
        first = 0
        for n in range(CELL_MOST[0] + 1):
            slot = first = moved(first, side) if n else 0
            for k in range(CELL_MOST[1] + 1):
                slot = moved(slot, other) if k else slot
                slots.append(slot)
                rows.append(_cell_row(side, n, other, k, slot))
    return np.array(slots, np.int16), np.array(rows, np.uint16)


# of a node's sides on which a cell's tokens lie and their counts, side << 11 | other << 10 | n << 4 | k: a slot that has seen the
# one n times, then the other k times; which of a context's statistics speaks for it
SETTLED, CELL_ROW = _settled()


def sizes(mixer_bits: int, n_tokens: int) -> tuple[int, int, int, int]:
    """log2 of the numbers of: cache lines of buckets, and as many of cells, remembered tokens for each context that has them,
    entries of a match table, entries of a table of followers. Together at most 1.25 * 2^mixer_bits bytes, and less
    where the text is short."""
    bits = min(mixer_bits, max(16, (n_tokens * 1024 - 1).bit_length()))
    return bits - 7, bits - 9, max(8, bits - 9), min(20, max(8, bits - 8))

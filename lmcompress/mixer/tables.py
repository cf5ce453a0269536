"""The mixer's constant tables, and how large its learned tables are.

Knows: logarithms and logistic functions in fixed point. Does not know: contexts, tokens.
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


def sizes(mixer_bits: int, n_tokens: int) -> tuple[int, int, int, int]:
    """log2 of the numbers of: cache lines of the statistics' table, remembered tokens for each context that has them,
    entries of a match table, entries of a table of followers. Together at most 1.25 * 2^mixer_bits bytes, and less
    where the text is short."""
    bits = min(mixer_bits, max(16, (n_tokens * 1024 - 1).bit_length()))
    return bits - 6, bits - 9, max(8, bits - 9), min(20, max(8, bits - 8))

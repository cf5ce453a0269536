"""The mixer's constant tables, by exact integer arithmetic, and how large its learned tables are.

Knows: logarithms and logistic functions in fixed point. Does not know: contexts, tokens.
The unit of log2 odds is 1/256 in the tables.
"""

from __future__ import annotations

import numpy as np


def _round_log2(a: int, b: int, unit: int) -> int:
    """unit * log2(a / b), rounded to the nearest integer, for integers a, b > 0."""
    if a < b:
        return -_round_log2(b, a, unit)
    # 2 unit log2(a/b) = log2((a/b)^(2 unit)); its floor f gives the rounded value (f + 1) // 2
    num, den = a ** (2 * unit), b ** (2 * unit)
    f = num.bit_length() - den.bit_length()
    if num < den << f:
        f -= 1
    return (f + 1) // 2


def _power(numerator: int, bits: int) -> int:
    """floor(2^bits * 2^(numerator / 64)) for 0 <= numerator < 64."""
    target = 1 << (64 * bits + numerator)
    low, high = 1 << bits, 2 << bits
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**64 <= target else (low, middle)
    return low


def _squash() -> list[int]:
    """round(2^24 / (1 + 2^(-i/64))) for i = -1280 to 1281."""
    powers = [_power(i, 40) for i in range(64)]  # 2^(i/64), 40 bits after the point
    table = []
    for i in range(-1280, 1282):
        whole, part = divmod(i, 64)
        odds = powers[part] << (whole + 20)  # 2^(i/64), 60 bits after the point
        table.append((2 * (odds << 24) + odds + (1 << 60)) // (2 * (odds + (1 << 60))))
    return table


# log2 of the mantissa in [1 + i/1024, 1 + (i+1)/1024), at its middle
LOG2 = np.array([_round_log2(2049 + 2 * i, 2048, 256) for i in range(1024)], np.uint16)
# log2 odds of a probability in [i/4096, (i+1)/4096), at its middle
_UPPER = [_round_log2(2 * i + 1, 8191 - 2 * i, 256) for i in range(2048, 4096)]
STRETCH = np.array([-s for s in reversed(_UPPER)] + _UPPER, np.int16)
# 24-bit probability of log2 odds (i - 1280)/64
SQUASH = np.array(_squash(), np.uint32)


def sizes(mixer_bits: int, n_tokens: int) -> tuple[int, int, int, int]:
    """log2 of the numbers of: cache lines of the statistics' table, remembered tokens for each context that has them,
    entries of a match table, entries of a table of followers. Together at most 1.25 * 2^mixer_bits bytes, and less
    where the text is short."""
    bits = min(mixer_bits, max(16, (n_tokens * 1024 - 1).bit_length()))
    return bits - 6, bits - 9, max(8, bits - 9), min(20, max(8, bits - 8))

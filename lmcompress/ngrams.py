"""What other texts have had after a few tokens: the most frequent next token of each of many contexts, in lines of a hash table.

Knows: the table's layout, hashes of contexts. Does not know: what a guess is worth, models, how tables are made.
"""

from __future__ import annotations

import numpy as np

ORDERS = (2, 3, 4, 6)  # tokens of a context
WAYS = 16  # n-grams of a line
LINE = 4 * WAYS  # bytes
CLASSES = 8  # of how likely the token is
CHECK = 0x1FFF
MAX_LINES = 1 << 22
NONE = np.empty((0, 2, WAYS), np.uint16)  # a table with nothing in it


def aligned(size: int) -> np.ndarray:
    """uint8 [size], not initialized, that begins with a cache line."""
    memory = np.empty(size + 63, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size]


def table_of(keys: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """uint16 [N, 2, WAYS], each line one cache line, of keys and tokens, [N, WAYS] each."""
    table = aligned(LINE * len(keys)).view(np.uint16).reshape(len(keys), 2, WAYS)
    table[:, 0], table[:, 1] = keys, tokens
    return table


def line_of(h: np.ndarray, n_lines: int) -> np.ndarray:
    """int64: the lines of contexts' 64-bit hashes, uint64."""
    return ((h >> np.uint64(32)) * np.uint64(n_lines) >> np.uint64(32)).astype(np.int64)


def check_of(h: np.ndarray) -> np.ndarray:
    """int64: what tells contexts of a line apart; never 0."""
    return np.maximum(h & np.uint64(CHECK), np.uint64(1)).astype(np.int64)


def find(table: np.ndarray, h: int) -> tuple[int, int] | None:
    """(token, class) of a context's hash; table uint16 [N, 2, WAYS]: keys, check * CLASSES + class or 0 for none, and tokens."""
    if not len(table):
        return None
    hashed = np.array(h, np.uint64)
    keys, tokens = table[line_of(hashed, len(table))]
    there = np.flatnonzero(keys // CLASSES == check_of(hashed))
    return (int(tokens[there[0]]), int(keys[there[0]]) % CLASSES) if len(there) else None

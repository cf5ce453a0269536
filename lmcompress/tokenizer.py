"""Any bytes to symbols and back, exactly.

Knows: a vocabulary of byte strings and what each costs. Does not know: models, UTF-8, where the pieces came from.
Every single byte is a piece, so there is nothing that cannot be written; text is segmented into the cheapest sequence
of pieces (Viterbi, as in Kudo 2018, "Subword Regularization"), on bytes, so that invalid UTF-8 is nothing special.
Digits, and letters of words like 7f3a9c or x8Qz2kT0, may be told to stay alone: what is random has no pieces that come again, and a
number cut into pieces of two and three has its digits at other places each time. Decoding needs the pieces only, and
takes any segmentation.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

try:
    from lmcompress import _native
except ImportError:
    _native = None  # type: ignore[assignment]

WINDOW = 65536  # bytes segmented together; pieces never cross a window's end
MAX_PIECE = 64  # bytes of the longest piece
ALONE = re.compile(
    rb"(?<![0-9A-Za-z])(?:"
    rb"(?=[0-9]*[A-Za-z])(?=[A-Za-z]*[0-9])(?:[0-9a-f]{4,}|[0-9A-F]{4,})"  # hexadecimal
    rb"|(?:[0-9]+[A-Za-z]+[0-9]+[A-Za-z]|[A-Za-z]+[0-9]+[A-Za-z]+[0-9])[0-9A-Za-z]*"  # three changes or more
    rb")(?![0-9A-Za-z])|[0-9]+"
)  # bytes that are pieces by themselves: words that are codes, and digits


@dataclass(frozen=True)
class Tokenizer:
    """A vocabulary: id i stands for the bytes `pieces[i]` and costs `costs[i]` (1 to 65535, any unit)."""

    pieces: tuple[bytes, ...]
    costs: tuple[int, ...]

    @property
    def vocab_size(self) -> int:
        return len(self.pieces)

    def encode(self, data: bytes, alone: bool = False) -> np.ndarray:
        """uint16 [n] ids of the cheapest segmentation of `data`, in which digits and codes are by themselves if `alone`."""
        if self.vocab_size == 256:
            return self._byte_ids[np.frombuffer(data, np.uint8)]
        if _native is None:
            return segment_reference(self.pieces, self.costs, data, alone)
        return np.frombuffer(_native.segment(self._trie, data, alone), np.uint16)

    def cost(self, data: bytes) -> int:
        """Of the cheapest segmentation of `data`."""
        return int(self._costs[self.encode(data)].sum())

    def decode(self, ids: np.ndarray) -> bytes:
        """The bytes that `ids` (integers [n], each below vocab_size) stand for."""
        return b"".join(self._decode(ids[i : i + WINDOW]) for i in range(0, len(ids), WINDOW))

    def size(self, ids: np.ndarray) -> int:
        """Bytes that decode() would give."""
        return sum(int(self.lengths[ids[i : i + WINDOW]].sum()) for i in range(0, len(ids), WINDOW))

    def _decode(self, ids: np.ndarray) -> bytes:
        ids = np.asarray(ids, np.int64)
        lengths = self.lengths[ids]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        return self._text[np.repeat(self._starts[ids], lengths) + within].tobytes()

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 [vocab_size]: bytes of each piece."""
        return np.array([len(p) for p in self.pieces], np.int64)

    @cached_property
    def _costs(self) -> np.ndarray:
        return np.array(self.costs, np.int64)

    @cached_property
    def _text(self) -> np.ndarray:
        return np.frombuffer(b"".join(self.pieces), np.uint8)

    @cached_property
    def _starts(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def _byte_ids(self) -> np.ndarray:
        ids = np.zeros(256, np.uint16)
        for i, piece in enumerate(self.pieces):
            ids[piece[0]] = i
        return ids

    @cached_property
    def _trie(self) -> object:
        return _native.trie(list(self.pieces), list(self.costs))


def byte_tokenizer() -> Tokenizer:
    """The character level: 256 symbols, one for each byte."""
    return Tokenizer(tuple(bytes([i]) for i in range(256)), (1,) * 256)


def segment_reference(pieces: Sequence[bytes], costs: Sequence[int], data: bytes, alone: bool = False) -> np.ndarray:
    """The same ids as the compiled segmentation, in plain Python: what matches ALONE byte for byte if `alone`; of the rest, among the
    cheapest paths, the one whose last piece is shortest, then the last but one, and so on. Returns uint16 [n]."""
    index = {piece: i for i, piece in enumerate(pieces)}
    longest = max(map(len, pieces))
    ids: list[int] = []
    for start in range(0, len(data), WINDOW):
        text = data[start : start + WINDOW]
        fixed = {i for match in ALONE.finditer(text) for i in range(*match.span())} if alone else set()
        best = [0] + [1 << 60] * len(text)
        last = [0] * (len(text) + 1)
        for i in range(len(text)):
            for j in range(i + 1, min(len(text), i + longest) + 1):
                if j > i + 1 and (i in fixed or j - 1 in fixed):
                    break
                piece = index.get(text[i:j])
                if piece is not None and best[i] + costs[piece] <= best[j]:
                    best[j] = best[i] + costs[piece]
                    last[j] = piece
        path = []
        i = len(text)
        while i > 0:
            path.append(last[i])
            i -= len(pieces[last[i]])
        ids.extend(reversed(path))
    return np.array(ids, np.uint16)

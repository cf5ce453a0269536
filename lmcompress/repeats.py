"""Content that has been before: what a block repeats of itself and of blocks before it apart, and the rest, its literal.

Knows: how repeats are found, what they are written as. Does not know: models, methods.
Blocks and lanes cannot see all of what came before them, so what comes again far away would be coded once more; and what need
not be coded takes no time. Repeats are copies of literals only, never of what was copied itself: a block needs the
literals of a few others, and those need nothing. (Literals and copies: Ziv and Lempel 1977.)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from lmcompress.bits import Reader, Writer
from lmcompress.errors import CorruptError

if TYPE_CHECKING:
    import numpy as np

MOST_REACH = 1 << 26  # bytes
LEAST = 256  # bytes of a copy
LONGEST = 32  # bytes of one, as it is written
COPY_MEMORY = 256  # bytes, about, that one takes while a block is decoded

WINDOW = 64  # bytes by which repeats are found; a power of two
SAMPLED = 64  # one of so many windows is remembered, on average; a power of two
SLICE = 1 << 18  # bytes whose windows are looked at together
NEAR = 1024  # bytes of what the block itself has had, or has often: what learns on the way knows it nearly as well as a copy does
_FACTOR, _MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1
OFTEN = 20  # bytes for each time that a block has what another had, below NEAR: it is learned at once


@dataclass(frozen=True)
class Copy:
    """Something that has been before."""

    start: int  # in the literal of its block: what is before
    size: int  # bytes
    back: int  # the block from whose literal, counted from its own, which is 0, towards the front
    offset: int  # in that literal


Source = Callable[[int], bytes]  # the literal of the block so far back


def reach(block_log: int) -> int:
    """Bytes of the literals before its own that a block may copy from, where blocks have up to 2^block_log bytes."""
    return min(8 << block_log, MOST_REACH)


class History:
    """The literals of the latest blocks, as many as have `reach` bytes together."""

    def __init__(self, reach: int) -> None:
        self._reach = reach
        self.number = 0  # of the next block
        self.literals: dict[int, bytes] = {}  # by number of their block
        self._size = 0

    def add(self, literal: bytes | None) -> None:
        """The next block's literal; None: it is lost."""
        self.literals[self.number] = literal or b""
        self._size += len(self.literals[self.number])
        if literal is None:
            del self.literals[self.number]
        self.number += 1
        while self._size > self._reach:
            self._size -= len(self.literals.pop(next(iter(self.literals))))

    def source(self, back: int) -> bytes:
        """The literal of the block so far back from the next one. Raises CorruptError where it is lost, or was never there."""
        literal = self.literals.get(self.number - back)
        if literal is None:
            raise CorruptError("a block repeats another one that is lost, or too far away")
        return literal


def join(copies: list[Copy], literal: bytes, source: Source) -> bytes:
    """The content again. Raises CorruptError where the copies do not fit the literals."""
    out, done = [], 0
    for copy in copies:
        of = source(copy.back) if copy.back else literal
        if copy.offset + copy.size > len(of):
            raise CorruptError("a block repeats more than there is")
        out += [literal[done : copy.start], of[copy.offset : copy.offset + copy.size]]
        done = copy.start
    return b"".join([*out, literal[done:]])


def pack(copies: list[Copy]) -> bytes:
    """Four varints for each copy: first the gaps of all of them, bytes of the literal since the copy before; then the sizes, less LEAST; how far
    back the blocks are; and the offsets, less where the copy before of the same block ended (or 0) and less the gap, as what was
    there will have been replaced by as much. They may be negative: 0, -1, 1, -2, ... are written 0, 1, 2, 3, ..."""
    gaps, sizes, backs, offsets = Writer(), Writer(), Writer(), Writer()
    start, ends = 0, dict[int, int]()
    for copy in copies:
        gap = copy.start - start
        ahead = copy.offset - ends.get(copy.back, 0) - gap
        gaps.varint(gap)
        sizes.varint(copy.size - LEAST)
        backs.varint(copy.back)
        offsets.varint(2 * ahead if ahead >= 0 else -2 * ahead - 1)
        start, ends[copy.back] = copy.start, copy.offset + copy.size
    return b"".join(map(bytes, (gaps, sizes, backs, offsets)))


def parse(table: bytes, count: int, content_size: int) -> tuple[list[Copy], int]:
    """The copies, `count` of them, and the size of the literal of a content of so many bytes. Raises CorruptError where they
    do not fit it."""
    reader = Reader(table)
    gaps, sizes = ([reader.varint(content_size) for _ in range(count)] for _ in range(2))
    backs, offsets = ([reader.varint() for _ in range(count)] for _ in range(2))
    copies: list[Copy] = []
    start, left, ends = 0, content_size, dict[int, int]()
    for gap, size, back, ahead in zip(gaps, sizes, backs, offsets, strict=True):
        start += gap
        size += LEAST
        left -= size
        offset = ends.get(back, 0) + gap + (-(ahead + 1) // 2 if ahead % 2 else ahead // 2)
        ends[back] = offset + size
        if left < start or offset < 0:
            raise CorruptError("a block's repeats are not within it")
        copies.append(Copy(start, size, back, offset))
    if reader.remaining:
        raise CorruptError("a block has more repeats than it says")
    return copies, left


class Finder:
    """Finds the repeats of one block after the other, as far back as `reach`, or `independent`: of each by itself."""

    def __init__(self, reach: int, independent: bool = False) -> None:
        self._history, self._independent = History(reach), independent
        self._slots = 2 * reach // SAMPLED
        # int64 [slots], by window: the block << 32 | the place in its literal; or -1
        self._table: np.ndarray | None = None

    def split(self, content: bytes, last: bool = False) -> tuple[list[Copy], bytes]:
        """The copies and the literal. last: no block follows."""
        import numpy as np

        places, keys = _windows(content)
        before, often = _again(places, keys)
        slots = keys % np.uint64(self._slots)
        entries = np.full(len(keys), -1) if self._table is None else self._table[slots]
        block = _Block(content)
        for i in np.flatnonzero((before >= 0) | (entries >= 0)).tolist():
            if (place := int(places[i])) < block.done:
                continue
            matches = [block.match_own(place, int(before[i]))] if before[i] >= 0 else []
            number, at = divmod(int(entries[i]), 1 << 32)
            if literal := self._history.literals.get(number):
                matches.append(block.match(place, literal, at, 0, len(literal), self._history.number - number, at))
            if matches:
                block.take_if_worth(max(matches, key=lambda match: match.size), int(often[i]))
        literal = block.literal()
        if not (last or self._independent):
            if self._table is None:
                self._table = np.full(self._slots, -1)
            offsets = block.in_literal(places)
            self._table[slots[offsets >= 0]] = (self._history.number << 32) + offsets[offsets >= 0]
            self._history.add(literal)
        return block.copies, literal


class _Match(NamedTuple):
    start: int  # in the content
    size: int
    back: int
    offset: int  # in that literal


class _Block:
    """A content that is split, from front to end."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.copies: list[Copy] = []
        self.done = 0  # where in the content the last copy ends
        self._starts: list[int] = []  # where in the content copies start
        self._cuts = [0]  # bytes that were copied before each, and in all

    def match_own(self, place: int, at: int) -> _Match:
        """What is around `place` as around `at` before it: in one copy, or between two."""
        i = bisect_right(self._starts, at) - 1
        low = self._starts[i] + self.copies[i].size if i >= 0 else 0
        if at < low:
            copy, start = self.copies[i], self._starts[i]
            return self.match(place, self.content, at, start, low, copy.back, copy.offset + at - start)
        high = self._starts[i + 1] if i + 1 < len(self._starts) else place
        return self.match(place, self.content, at, low, high, 0, at - self._cuts[i + 1])

    def match(self, place: int, other: bytes, at: int, low: int, high: int, back: int, offset: int) -> _Match:
        """What is around `place` as around `at` in other[low:high], where `at` is `offset` in the literal so far back."""
        own = back == 0  # what is copied ends before the copy begins
        before = _common_end(self.content, place, other, at, min(place - self.done, at - low, *[place - at] * own))
        most = min(len(self.content) - place, high - at, *[place - before - at] * own)
        size = before + _common_start(self.content, place, other, at, most)
        return _Match(place - before, size, back, offset - before)

    def take_if_worth(self, match: _Match, often: int) -> None:
        if match.size >= NEAR or match.back and match.size >= max(LEAST, OFTEN * often):
            self.copies.append(Copy(match.start - self._cuts[-1], match.size, match.back, match.offset))
            self._starts.append(match.start)
            self._cuts.append(self._cuts[-1] + match.size)
            self.done = match.start + match.size

    def literal(self) -> bytes:
        """What is left, at the end."""
        ends = [0, *(start + copy.size for start, copy in zip(self._starts, self.copies, strict=True))]
        return b"".join(self.content[end:start] for end, start in zip(ends, [*self._starts, None], strict=True))

    def in_literal(self, places: np.ndarray) -> np.ndarray:
        """Where in the literal the windows at these places are, at the end; -1 for those that are not in it as they are."""
        import numpy as np

        starts = np.array(self._starts, np.int64)
        i = np.searchsorted(starts, places + WINDOW, "right")  # copies that start before a window's end
        ends = np.append(0, starts + [copy.size for copy in self.copies])
        return np.where(places >= ends[i], places - np.array(self._cuts)[i], -1)


def _windows(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Places and keys (int64, uint64) of about one of SAMPLED windows of WINDOW bytes, the same ones wherever they stand."""
    import numpy as np

    places, keys = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for start in range(0, len(content) - WINDOW + 1, SLICE):
        key = (
            np.frombuffer(content, np.uint8, min(SLICE + WINDOW - 1, len(content) - start), start).astype(np.uint64) + 1
        )
        size, factor = 1, _FACTOR
        while size < WINDOW:  # of twice as many bytes
            key = key[:-size] * np.uint64(factor) + key[size:]
            size, factor = 2 * size, factor * factor & _MASK
        key ^= key >> np.uint64(32)
        key *= np.uint64(_FACTOR)
        sampled = np.flatnonzero(key < np.uint64(2**64 // SAMPLED))
        places.append(sampled + start)
        keys.append(key[sampled])
    return np.concatenate(places), np.concatenate(keys)


def _again(places: np.ndarray, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each window the place of the one before with the same key, -1 if there is none; and how many have its key."""
    import numpy as np

    before, often = np.full(len(keys), -1), np.ones(len(keys), np.int64)
    if len(keys):
        order = np.argsort(keys, kind="stable")
        new = np.append(True, keys[order][1:] != keys[order][:-1])
        group = np.cumsum(new) - 1
        often[order] = np.bincount(group)[group]
        again = np.flatnonzero(~new)
        before[order[again]] = places[order[again - 1]]
    return before, often


def _common_start(a: bytes, i: int, b: bytes, j: int, most: int) -> int:
    """Bytes, at most so many, that are the same in `a` from `i` on and in `b` from `j` on."""
    same, step = 0, WINDOW
    while same < most:
        step = min(step, most - same)
        x, y = a[i + same : i + same + step], b[j + same : j + same + step]
        if x != y:
            return same + step - _different(x, y, "big")
        same, step = same + step, 2 * step
    return same


def _common_end(a: bytes, i: int, b: bytes, j: int, most: int) -> int:
    """Bytes, at most so many, that are the same in `a` before `i` and in `b` before `j`."""
    same, step = 0, WINDOW
    while same < most:
        step = min(step, most - same)
        x, y = a[i - same - step : i - same], b[j - same - step : j - same]
        if x != y:
            return same + step - _different(x, y, "little")
        same, step = same + step, 2 * step
    return same


def _different(x: bytes, y: bytes, order: Literal["big", "little"]) -> int:
    """Bytes from the first difference on, of numbers in that byte order: the highest byte is the first."""
    return ((int.from_bytes(x, order) ^ int.from_bytes(y, order)).bit_length() + 7) // 8

"""The mixer, plainly: this is its specification; docs/MIXER.md says the same in words.

Knows: tokens and the bytes of their pieces, the tree, lanes, a network's distribution and features where there is one.
Does not know: the coder, models, blocks.
Integers only. `hash64` is modulo 2^64; >> rounds towards minus infinity. Log2 odds are in 1/256 where they are inputs,
in 1/UNIT where they are sums. Indices into history are step * n_lanes + lane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmcompress.coder import Decoder
from lmcompress.distribution import Distribution
from lmcompress.mixer import prior
from lmcompress.mixer.prior import CONFIDENCES, FIELDS, FULL, LEVELS, LIGHT
from lmcompress.mixer.tables import CELL_MOST, CELL_ROW, LOG2, QUANTIZED, SETTLED, SQUASH, STRETCH, moved, sizes
from lmcompress.ngrams import CLASSES, NONE, ORDERS, find
from lmcompress.tree import Tree

EXPECTED = 5  # guesses that are no runs
REMEMBERS = (1, 2, 4, 6)  # contexts whose runs remember the token that came last
HISTORY = 6
LINE = 256
GROUP = 3
SLOTS = 7  # of a bucket: one for each node of GROUP levels
WAYS = 4  # buckets of a line
CELLS = 8  # of a line
APM_BITS = 12
APM_SHARE = 10  # of 32
RUN_LENGTHS = 16
MATCH_LENGTHS = (6, 2)  # tokens hashed to find the long and the short match
MATCH_MAX = 40
LEARN_FLOOR, LEARN_EXTRA = 16, 100
CORRECTION_FLOOR, CORRECTION_EXTRA = 512, 512000  # of its rate
CORRECTION_SHIFT, CORRECTION_SEEN = 3, 65535
FIRST_DECISIONS = 4096  # as many as if they were made: the rate of learning starts lower
SURE = 1 << 11  # of 2^24: a decision that had less against it teaches nothing
UNIT = 65536
ONE = 1 << 13  # of a weight
WEIGHT_MAX = 15800  # so that sums of products fit 32 bits
MASK = (1 << 64) - 1
RATE = [131072 // (2 * n + 3) for n in range(1024)]  # 1 / (n + 1.5), 16 bits after the point
_LOG2, _STRETCH, _SQUASH, _QUANTIZED = LOG2.tolist(), STRETCH.tolist(), SQUASH.tolist(), QUANTIZED.tolist()
_SETTLED, _CELL_ROW = SETTLED.tolist(), CELL_ROW.tolist()


def hash64(h: int, v: int) -> int:
    h = (h + v + 1) * 0x9E3779B97F4A7C15 & MASK
    return h ^ h >> 29


def clamp(v: int, bound: int) -> int:
    return max(-bound, min(bound, v))


def log2(v: int) -> int:
    """log2 of v > 0, in 1/256."""
    e = v.bit_length() - 1
    return e * 256 + _LOG2[(v >> e - 10 if e >= 10 else v << 10 - e) & 1023]


def squash(z: int) -> int:
    """24-bit probability of z log2 odds, z in 1/UNIT."""
    i, part = divmod(clamp(z, 20 * UNIT - 1) + 20 * UNIT, 1024)
    return _SQUASH[i] + ((_SQUASH[i + 1] - _SQUASH[i]) * part >> 10)


def stretch22(p: int) -> int:
    return _STRETCH[p >> 10]


def linear22(p: int) -> int:
    """Distance of a 22-bit probability from one half; one half is 1024."""
    return ((p >> 6) - 32768) >> 5


def decode(mixer: Any, coder: Decoder, said: Distribution | None, tokens: np.ndarray) -> None:
    """Mixer.decode, for any mixer."""
    for t in range(tokens.shape[1]):
        mixer.begin(None if said is None else said.step(t), len(tokens))
        while len(k := mixer.predict()):
            mixer.update(coder.decode(k))
        tokens[:, t] = mixer.tokens()


class Statistics:
    """Adaptive probabilities that a bit is 1: 22 bits and a count, which moves them fast at first."""

    def __init__(self, first: np.ndarray) -> None:
        """`first` uint32: p << 10 | n."""
        self.p = (first.ravel() >> 10).tolist()
        self.n = (first.ravel() & 1023).tolist()

    def learn(self, i: int, bit: int) -> None:
        target = (1 << 22) - 1 if bit else 127  # not 0, since steps round down
        self.p[i] += ((target - self.p[i]) >> 7) * RATE[self.n[i]] >> 9
        self.n[i] += self.n[i] < 1023


class Correction:
    """The network's last layer, as far as the text has changed it: logistic regression on the features at each node."""

    def __init__(self, n_nodes: int, n_features: int) -> None:
        self.weights = np.zeros((n_nodes, n_features), np.int64)
        self.seen = [0] * n_nodes  # decisions that each row has learned from

    def of(self, node: int, features: np.ndarray) -> int:
        """What is added to the network's log2 odds, in 1/UNIT; features int8 [n_features]."""
        return int(features.astype(np.int64) @ self.weights[node]) >> CORRECTION_SHIFT

    def learn(self, node: int, features: np.ndarray, error: int) -> None:
        """error: target less prediction, in 2^-24."""
        rate = CORRECTION_FLOOR + CORRECTION_EXTRA // (100 + self.seen[node])
        error = (error >> 10) * rate >> 14
        row = self.weights[node]
        np.clip(row + ((features.astype(np.int64) * error + 128) >> 8), -ONE, ONE, out=row)
        self.seen[node] = min(self.seen[node] + 1, CORRECTION_SEEN)


class Text:
    """What the bytes of a lane say about where in the text it is. Hashes are 0 where nothing was hashed yet. Of the
    pairs, entry `which` is the line being written, the other one the line above."""

    def __init__(self, lane: int) -> None:
        self.word = self.word1 = 0  # letters since the last other byte; the word before
        self.latest = 0  # three bytes
        self.lines = 0  # ended, 2 for more
        self.which = 0
        self.bytes = [b"", b""]
        self.field_start: list[list[int]] = [[lane], [lane]]
        self.column_start: list[list[int]] = [[lane], [lane]]
        self._new_line(lane)

    def _new_line(self, start: int) -> None:
        self.first = 0  # the line's first word
        self.column_shape = (
            0  # the column so far, digits as 0; columns end at any of ",;|\t" outside quotes, fields at " " too
        )
        self.in_first, self.quoted, self.indent = True, False, 0
        self.field = self.field_tokens = self.column = self.column_tokens = 0
        self.misses = 0  # of the expectations from the line above in this field
        self.line_start = start
        self.bytes[self.which] = b""
        self.field_start[self.which] = [start]
        self.column_start[self.which] = [start]

    def read(self, c: int, after: int) -> None:
        """One byte of a token; the lane's next token will have the index `after`."""
        self.latest = (self.latest << 8 | c) & 0xFFFFFF
        if ord("a") <= (c | 32) <= ord("z") or c >= 0x80:
            self.word = hash64(self.word, c | 32)
        elif self.word:
            self.word1, self.word = self.word, 0
        if c == ord("\n"):
            self.which ^= 1
            self.lines = min(2, self.lines + 1)
            self._new_line(after)
            return
        shown = ord("0") if ord("0") <= c <= ord("9") else c
        if len(self.bytes[self.which]) < LINE:
            self.bytes[self.which] += bytes([c])
        if self.in_first:
            if c == ord(" ") and self.first == 0:
                self.indent = min(255, self.indent + 1)
            elif c in b" ,\t":
                self.in_first = False
            else:
                self.first = hash64(self.first, shown)
        if c == ord('"'):
            self.quoted = not self.quoted
        if c in b" ,;|\t":
            self.field_tokens = self.misses = 0
            self.field = min(65535, self.field + 1)
            if self.field < FIELDS:
                self.field_start[self.which].append(after)
        if c in b",;|\t" and not self.quoted:
            self.column_shape = self.column_tokens = 0
            self.column = min(65535, self.column + 1)
            if self.column < FIELDS:
                self.column_start[self.which].append(after)
        else:
            self.column_shape = hash64(self.column_shape, shown)


class Match:
    def __init__(self) -> None:
        self.at = -1  # index of the token expected next, or -1
        self.length = self.misses = 0


@dataclass
class Cell:
    """What has followed a context: first n times, second k times. `check` tells contexts of one line apart; `many`: a third
    token has followed, and the context has buckets from then on."""

    check: int
    first: int = 0
    n: int = 0
    second: int = 0
    k: int = 0
    many: bool = False


def check_of(context: int) -> int:
    """That of its cell, which is never 0."""
    return max(1, context & 0xFFFF)


class Run:
    """The token that came last in a context, and how often in a row; `check` tells contexts of one entry apart."""

    def __init__(self) -> None:
        self.check = self.token = self.count = 0


class Lane:
    def __init__(self, number: int) -> None:
        self.number = number
        self.recent = [0] * HISTORY
        self.text = Text(number)
        self.matches = (Match(), Match())
        self.hits = [0, 0]  # of the last 4 expectations from the line above, by field and by column, which were right
        # of the token under way
        self.guesses: list[int] = []  # tokens: those expected, then those of the runs; -1 for none
        self.rows: list[tuple[int, int]] = []  # which of the guesses' statistics speaks for each, less the level
        self.alive: list[bool] = []  # guesses whose token the node covers
        self.confidence = 0  # of the long match, 1 to 5
        self.likely = 0  # 6 to 9 for a guess of the n-grams
        self.context: list[int] = []  # hashes
        self.cells: list[Cell] = []  # the contexts', as they were; a token that the node does not cover counts 0
        self.runs: list[Run] = []
        self.follower = 0  # the entry that learns it
        self.apm_hash = 0
        self.node = -1  # < 0: ~token
        self.level = 0
        self.position = 0  # the node's number among those of its bucket
        self.bucket: list[np.ndarray | None] = []  # slots, of contexts that have buckets
        # of the decision under way
        self.used: list[int] = []  # the contexts' statistics
        self.input = np.zeros(0, np.int64)
        self.chosen: list[int] = []  # weight sets
        self.final: list[int] = []  # weights of the sets' predictions
        self.stretched: list[int] = []
        self.p_set: list[int] = []
        self.p_mixed = 0
        self.p_corrected = 0
        self.apm_used: list[tuple[int, int]] = []


class Mixer:
    """What is learned of one block: `n_lanes` lanes with about `n_tokens` tokens together, tables of about
    2^`mixer_bits` bytes; `pieces[i]` are the bytes of id i. `light`: with fewer parts. `n_features`: d_model of the network,
    0 where there is none.

    A step of lanes 0..n-1: begin, then predict and update by turns until predict returns nothing, then tokens. Each
    prediction of a level is made before any update of that level; updates come in lane order. `encode` and `decode` are whole
    steps. `said` is what the network says of them, or None.
    k uint32 in [1, 2^24 - 1]: P(bit = 1) = k / 2^24. Raises ValueError for calls out of order."""

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
        self.tree, self.pieces, self.n_lanes, self.ngrams = tree, pieces, n_lanes, ngrams
        self.parts = parts = LIGHT if light else FULL
        V = tree.vocab_size
        self.table_bits, self.run_bits, self.match_bits, self.follower_bits = sizes(mixer_bits, n_tokens)
        self.checks = np.zeros((1 << self.table_bits, WAYS), np.uint16)  # of buckets
        self.slots = np.zeros((1 << self.table_bits, WAYS, SLOTS), np.int16)
        self.cells: dict[int, list[Cell]] = {}  # lines of CELLS, as many as of buckets
        self.runs: list[dict[int, Run]] = [{} for _ in REMEMBERS]
        self.match_table: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.followers: dict[int, int] = {}
        self.slot_map, self.guess_map = Statistics(first.slot_map), Statistics(first.guess_map)
        ends = np.cumsum(parts.rows(V))[:-1]
        self.weights = np.split(first.weights[:, : parts.inputs].astype(np.int64), ends)
        self.final_weights = first.final_weights[:, : parts.sets].tolist()
        self.correction = Correction(V - 1, n_features)
        row = [squash((q - 12) * UNIT) >> 8 for q in range(25)]
        self.apm = [[list(row) for _ in range(n)] for n in (V - 1, 1 << APM_BITS)[: parts.apms]]
        self.history: list[int] = []
        self.step, self.decisions = 0, FIRST_DECISIONS
        self.lanes = [Lane(number) for number in range(n_lanes)]
        self.in_step: list[Lane] = []
        self.predicted: list[Lane] = []

    def begin(self, said: Distribution | None, n: int) -> None:
        if any(lane.node >= 0 for lane in self.in_step) or not 1 <= n <= self.n_lanes:
            raise ValueError("the step before has not ended, or a step without lanes")
        self.said = said
        self.in_step = self.lanes[:n]
        self.history += [0] * self.n_lanes
        for lane in self.in_step:
            self._begin_token(lane)
        for lane in self.in_step:
            self._recall_cells(lane)

    def predict(self) -> np.ndarray:
        if self.predicted:
            raise ValueError("the level before has not been told its bits")
        active = [lane for lane in self.in_step if lane.node >= 0]
        for lane in active:
            if lane.level % GROUP == 0:
                self._enter_group(lane)
        k = [self._predict(lane) for lane in active]
        self.predicted = active
        return np.array(k, np.uint32)

    def update(self, bits: np.ndarray) -> None:
        if not self.predicted or len(bits) != len(self.predicted):
            raise ValueError("as many bits as decisions were predicted are needed")
        for lane, bit in zip(self.predicted, np.asarray(bits).tolist(), strict=True):
            self._update(lane, int(bit != 0))
        self.predicted = []
        if all(lane.node < 0 for lane in self.in_step):
            for lane in self.in_step:
                self._learn_cells(lane)
            for lane in self.in_step:
                self._end_token(lane)
            for lane in self.in_step:
                self._find_matches(lane)
            self.step += 1

    def tokens(self) -> np.ndarray:
        """int32 [n] tokens of the step that has ended last."""
        if any(lane.node >= 0 for lane in self.in_step):
            raise ValueError("the step has not ended")
        return np.array([~lane.node for lane in self.in_step], np.int32)

    def encode(self, said: Distribution | None, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(k uint32, bits uint8) of the decisions, in coding order, of T steps whose tokens int32 [n, T] are known."""
        ks, all_bits = [], []
        for t in range(tokens.shape[1]):
            self.begin(None if said is None else said.step(t), len(tokens))
            while len(k := self.predict()):
                bits = [tokens[lane.number, t] >= self.tree.mid[lane.node] for lane in self.predicted]
                ks.append(k)
                all_bits.append(np.array(bits, np.uint8))
                self.update(all_bits[-1])
        return np.concatenate(ks), np.concatenate(all_bits)

    def decode(self, coder: Decoder, said: Distribution | None, tokens: np.ndarray) -> None:
        """T steps, whose decisions are read from `coder`, into tokens int32 [n, T]. Raises CorruptError."""
        decode(self, coder, said, tokens)

    # --- a token's beginning: what is expected, and the contexts

    def _begin_token(self, lane: Lane) -> None:
        text, r, n = lane.text, lane.recent, lane.number
        above = text.which ^ 1
        lane.guesses, lane.rows = [], []
        for e, match in enumerate(lane.matches):
            if match.at >= self.step * self.n_lanes:
                match.at = -1
            lane.guesses.append(self.history[match.at] if match.at >= 0 else -1)
            length = match.length
            c = length if length < 16 else 16 + (length >= 24) + (length >= 32) + (length >= 50)
            lane.rows.append((e, c * 4 + min(match.misses, 3)))
            if e == 0:
                lane.confidence = 1 + (length > 2) + (length > 7) + (length > 15) + (length > 31)
        if lane.guesses[1] == lane.guesses[0]:
            lane.guesses[1] = -1
        up = self._above(text, text.field_start[above], text.field, text.field_tokens)
        up1 = -1 if up < 0 else self._above(text, text.field_start[above], text.field, text.field_tokens + 1)
        by_column = self._above(text, text.column_start[above], text.column, text.column_tokens)
        lane.guesses += [up, -1 if by_column == up else by_column]
        lane.rows += [(2, lane.hits[0]), (3, lane.hits[1])]
        width = len(text.bytes[text.which])
        over = text.bytes[above][width : width + 4] if text.lines else b""  # bytes above the next four
        lane.follower = hash64(hash64(n, r[0]), r[1]) >> 64 - self.follower_bits
        order = [hash64(1, r[0])]  # hashes of the last one to six tokens
        for token in r[1:]:
            order.append(hash64(order[-1], token))
        self._recall_ngrams(lane, [order[n - 1] for n in ORDERS])
        lane.context = [
            0,
            order[0],
            order[1],
            order[4],
            hash64(2, text.word),
            hash64(hash64(3, int.from_bytes(over.ljust(4, b"\0"), "big")), text.latest & 255),
            hash64(hash64(4, self.followers.get(lane.follower, 0)), r[0]),
            hash64(hash64(5, text.column_shape), text.column),
            hash64(hash64(6, text.word), text.word1),
            hash64(hash64(7, r[1]), r[2]),
            hash64(hash64(8, text.first), hash64(text.field, text.field_tokens)),
            hash64(hash64(hash64(9, text.indent), hash64(text.first, r[0])), n),
            hash64(hash64(10, lane.guesses[0] + 1), hash64(lane.confidence, r[0])),
            hash64(hash64(hash64(11, up + 1), up1 + 1), n),
            hash64(hash64(12, up + 1), hash64(text.misses, text.field)),
            hash64(13, text.latest),
        ][: self.parts.contexts]
        lane.runs = []
        for g in range(EXPECTED, self.parts.guesses):
            h = hash64(lane.context[REMEMBERS[g - EXPECTED]], n)
            run = self.runs[g - EXPECTED].setdefault(h >> 64 - self.run_bits, Run())
            if run.check != h & 0xFFFF:
                run.check, run.count = h & 0xFFFF, 0
            lane.runs.append(run)
            lane.guesses.append(run.token if run.count else -1)
            lane.rows.append((g, min(run.count, RUN_LENGTHS - 1)))
        lane.alive = [token >= 0 for token in lane.guesses]
        lane.apm_hash = hash64(17, r[0])
        lane.node = lane.level = lane.position = 0

    def _recall_ngrams(self, lane: Lane, hashes: list[int]) -> None:
        """A guess from the longest context that is in the table."""
        lane.likely, guess, row = 0, -1, 0
        for i, h in enumerate(hashes):
            if found := find(self.ngrams, h):
                guess, row, lane.likely = found[0], i * CLASSES + found[1], 6 + found[1] // 2
        lane.guesses.append(guess)
        lane.rows.append((4, row))

    def _above(self, text: Text, start: list[int], field: int, tokens: int) -> int:
        """The token at the same place of the same field in the line above, or -1."""
        if text.lines == 0 or field >= len(start):
            return -1
        at = start[field] + tokens * self.n_lanes
        return self.history[at] if at < text.line_start else -1

    # --- cells, and buckets for contexts that they are too small for

    def _find_cell(self, context: int) -> tuple[list[Cell], int]:
        """The context's line, and the place of its cell there or -1."""
        line = self.cells.setdefault(context >> 64 - self.table_bits, [])
        return line, next((w for w, cell in enumerate(line) if cell.check == check_of(context)), -1)

    def _recall_cells(self, lane: Lane) -> None:
        lane.cells = []
        for context in lane.context:
            line, w = self._find_cell(context)
            if w < 0:  # the newest; the last one is forgotten
                w = 0
                line.insert(0, Cell(check_of(context)))
                del line[CELLS:]
            lane.cells.append(replace(line[w]))
            if w >= CELLS // 2:  # it is forgotten later
                line[w - CELLS // 2], line[w] = line[w], line[w - CELLS // 2]

    def _learn_cells(self, lane: Lane) -> None:
        token = ~lane.node
        for context, recalled in zip(lane.context, lane.cells, strict=True):
            if recalled.many:
                continue
            line, w = self._find_cell(context)
            if w < 0 or line[w].many:  # forgotten already, or another lane has come first
                continue
            cell = line[w]
            if cell.n == 0 or token == cell.first:
                cell.first, cell.n = token, min(CELL_MOST[0], cell.n + 1)
            elif cell.k == 0 or token == cell.second:
                cell.second, cell.k = token, min(CELL_MOST[1], cell.k + 1)
            else:
                cell.many = True

    def _enter_group(self, lane: Lane) -> None:
        """Finds the lane's buckets for the next GROUP levels, or makes them in the place of others."""
        lane.bucket = [
            self._find_bucket(hash64(context, lane.node)) if cell.many else None
            for context, cell in zip(lane.context, lane.cells, strict=True)
        ]
        lane.position = 0

    def _find_bucket(self, h: int) -> np.ndarray:
        """Its slots int16 [SLOTS]."""
        line, check = h >> 64 - self.table_bits, h & 0xFFFF
        checks, slots = self.checks[line], self.slots[line]
        there = np.flatnonzero(checks == check)
        if len(there):
            return slots[there[0]]
        w = int(np.argmin(slots[:, 0] & 15))  # the first of the least used
        if check // WAYS % 4 == 0:  # another one ages now and then
            slots[check % WAYS, 0] -= int(slots[check % WAYS, 0]) & 15 > 0
        checks[w], slots[w] = check, 0
        return slots[w]

    def _slot(self, lane: Lane, i: int) -> int:
        """What context i knows of the node: its bucket's slot; what its cell says while that has seen nothing."""
        bucket = lane.bucket[i]
        slot = 0 if bucket is None else int(bucket[lane.position])
        return slot or _SETTLED[self._known(lane, i)]

    def _known(self, lane: Lane, i: int) -> int:
        """What context i's cell says of the node, as an index of SETTLED and CELL_ROW."""
        cell, mid = lane.cells[i], self.tree.mid[lane.node]
        return int(cell.first >= mid) << 11 | int(cell.second >= mid) << 10 | cell.n << 4 | cell.k

    # --- a decision

    def _predict(self, lane: Lane) -> int:
        tree, node, level = self.tree, lane.node, lane.level
        lo, mid, hi = int(tree.lo[node]), int(tree.mid[node]), int(tree.hi[node])
        C, G, model = self.parts.contexts, self.parts.guesses, self.parts.model
        x = [0] * (model + 4)
        slots = [self._slot(lane, i) for i in range(C)]
        lane.used = []
        for i, slot in enumerate(slots):
            n, p = slot & 15, slot >> 4
            row = _CELL_ROW[self._known(lane, i)] if lane.bucket[i] is None else n * 32 + _QUANTIZED[p + 2048]
            lane.used.append(i * 512 + row)
            if n:
                x[i] = stretch22(self.slot_map.p[lane.used[i]])
            x[C + i] = p * (n + 1) >> 4
        order = max((i for i in range(4) if slots[i] & 15), default=0)
        for g, (expected, (row, c)) in enumerate(zip(lane.guesses, lane.rows, strict=True)):
            if lane.alive[g]:
                p = self.guess_map.p[(row * CONFIDENCES + c) * LEVELS + level]
                sign = 1 if expected >= mid else -1
                x[2 * C + g] = sign * clamp(log2(p + 1) - log2((1 << 22) - p), 4095)
                x[2 * C + G + g] = sign * linear22(p)
        if self.said is not None:
            below = [self._below(lane.number, edge) for edge in (lo, mid, hi)]
            x[model] = clamp(log2(below[2] - below[1]) - log2(below[1] - below[0]), 4095)
            x[model + 1] = linear22(squash(x[model] * 256) >> 2)
            z = x[model] * 256 + self.correction.of(node, self.said.features[lane.number])
            z = clamp(z, 16 * UNIT - 1)
            lane.p_corrected = squash(z)
            x[model + 2] = clamp(z >> 8, 4095)
        x[model + 3] = 256
        lane.input = np.array(x, np.int64)

        text = lane.text
        confidence = lane.confidence if lane.alive[0] else 0
        near = 2 * lane.alive[2] + lane.alive[1]
        lane.chosen = [
            lane.recent[0],
            node,
            min(text.field, FIELDS - 1) * 4 + min(text.field_tokens, 3),
            min(text.column, FIELDS - 1) * 8 + min(text.column_tokens, 7),
            ((confidence or lane.likely * lane.alive[4]) * 4 + near) * 2 + (level > 3),
        ]
        lane.final = self.final_weights[order * 6 + confidence]
        lane.stretched, lane.p_set = [], []
        z = 0
        for weights, chosen, v in zip(self.weights, lane.chosen, lane.final, strict=False):
            zj = clamp(int(lane.input @ weights[chosen]) >> 5, 16 * UNIT - 1)
            lane.p_set.append(squash(zj))
            lane.stretched.append(zj >> 8)
            z += (zj >> 8) * (v >> 2) >> 8
        lane.p_mixed = squash(z)
        i, part = divmod(clamp(z, 12 * UNIT - 1) + 12 * UNIT, UNIT)
        total = lane.p_mixed * (32 - APM_SHARE * self.parts.apms)
        rows = (node, hash64(lane.apm_hash, node) >> 64 - APM_BITS)
        lane.apm_used = []
        for apm, row in zip(self.apm, rows, strict=False):
            total += ((apm[row][i] * (UNIT - part) + apm[row][i + 1] * part) >> 8) * APM_SHARE
            lane.apm_used.append((row, i + (part >= UNIT // 2)))
        return max(1, min((1 << 24) - 1, total >> 5))

    def _below(self, lane: int, i: int) -> int:
        """The model's weight of ids [0, i)."""
        assert self.said is not None
        base, local = self.said.base[lane], self.said.local[lane]
        group = i >> 6
        if group == len(base):  # i = V, a multiple of 64
            return int(base[group - 1]) + int(local[i - 1])
        return int(base[group]) + (int(local[i - 1]) if i & 63 else 0)

    def _update(self, lane: Lane, bit: int) -> None:
        mid = int(self.tree.mid[lane.node])
        if ((1 << 24) - lane.p_mixed if bit else lane.p_mixed) >= SURE:
            self._learn(lane, bit, mid)
        for cell in lane.cells:
            cell.n *= int(bit == (cell.first >= mid))  # a token on the other side says nothing below
            cell.k *= int(bit == (cell.second >= mid))
        lane.alive = [alive and bit == (e >= mid) for alive, e in zip(lane.alive, lane.guesses, strict=True)]
        self.decisions += 1
        lane.position = 2 * lane.position + 1 + bit
        lane.level += 1
        lane.node = int((self.tree.right if bit else self.tree.left)[lane.node])

    def _learn(self, lane: Lane, bit: int, mid: int) -> None:
        slots = [moved(self._slot(lane, i), bit) for i in range(self.parts.contexts)]  # all before any is written
        for bucket, slot, used in zip(lane.bucket, slots, lane.used, strict=True):
            if bucket is not None:
                bucket[lane.position] = slot
            self.slot_map.learn(used, bit)
        for g, (expected, (row, c)) in enumerate(zip(lane.guesses, lane.rows, strict=True)):
            if lane.alive[g]:
                self.guess_map.learn((row * CONFIDENCES + c) * LEVELS + lane.level, int(bit == (expected >= mid)))
        target = (1 << 24) - 1 if bit else 0
        rate = LEARN_FLOOR + LEARN_EXTRA * 64 // (64 + self.decisions // 64)
        final_error = ((target - lane.p_mixed) >> 6) * 2 >> 6
        for j, (weights, p_set) in enumerate(zip(self.weights, lane.p_set, strict=True)):
            error = (((target - p_set) >> 6) * rate + 512) >> 10
            w = weights[lane.chosen[j]]
            np.clip(w + ((lane.input * error + (1 << 14)) >> 15), -WEIGHT_MAX, WEIGHT_MAX, out=w)
            step = (lane.stretched[j] * final_error + 2048) >> 12
            lane.final[j] = clamp(lane.final[j] + step, (1 << 20) - 1)
        if self.said is not None:
            error = (2 * target - lane.p_corrected - lane.p_mixed) >> 1
            self.correction.learn(lane.node, self.said.features[lane.number], error)
        for apm, (row, i) in zip(self.apm, lane.apm_used, strict=True):
            apm[row][i] += ((65535 + 31 if bit else 0) - apm[row][i]) >> 5

    # --- a token's end: it is compared with what was expected, and becomes history

    def _end_token(self, lane: Lane) -> None:
        token, text = ~lane.node, lane.text
        here = self.step * self.n_lanes + lane.number
        after = here + self.n_lanes
        self.history[here] = token
        for match in lane.matches:
            if match.at < 0:
                continue
            if self.history[match.at] == token:
                match.length = min(60, match.length + 1)
                match.misses -= match.misses > 0 and match.length % 8 == 0
                match.at += self.n_lanes
            else:
                match.length = 0
                match.misses += 1
                match.at = match.at + self.n_lanes if match.misses <= 7 else -1
        for e in range(2):
            if lane.guesses[2 + e] >= 0:
                right = lane.guesses[2 + e] == token
                lane.hits[e] = (lane.hits[e] * 2 + right) & 15
                if e == 0:
                    text.misses = min(3, text.misses + (not right))
        for run in lane.runs:
            if run.count and run.token == token:
                run.count = min(255, run.count + 1)
            else:
                run.token, run.count = token, 1
        self.followers[lane.follower] = (self.followers.get(lane.follower, 0) << 16 | token) & 0xFFFFFFFF
        lane.recent = [token, *lane.recent[:-1]]
        text.field_tokens += 1
        text.column_tokens += 1
        for c in self.pieces[token]:
            text.read(c, after)

    def _find_matches(self, lane: Lane) -> None:
        after = (self.step + 1) * self.n_lanes + lane.number
        for e, (match, need) in enumerate(zip(lane.matches, MATCH_LENGTHS, strict=True)):
            if self.step + 1 < need:
                continue
            h = 0 if e == 0 else lane.number  # short matches stay in their lane
            for r in lane.recent[:need]:
                h = hash64(h, r)
            entry = h >> 64 - self.match_bits
            candidate = self.match_table[e].get(entry, 0)
            self.match_table[e][entry] = after
            if candidate == 0 or (match.at >= 0 and match.length >= 16):
                continue
            length = self._common(candidate, after)
            if length >= need and length > (match.length if match.at >= 0 else 0):
                match.at, match.length, match.misses = candidate, length, 0

    def _common(self, a: int, b: int) -> int:
        """How many tokens before the indices a and b are the same, at most MATCH_MAX."""
        for n in range(MATCH_MAX):
            back = (n + 1) * self.n_lanes
            if min(a, b) < back or self.history[a - back] != self.history[b - back]:
                return n
        return MATCH_MAX

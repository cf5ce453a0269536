"""The mixer, plainly: this is its specification; docs/MIXER.md says the same in words.

Knows: tokens and the bytes of their pieces, the tree, lanes, a model's weights of the ids where there is one.
Does not know: the coder, models, blocks.
Integers only. `hash64` is modulo 2^64; >> rounds towards minus infinity. Log2 odds are in 1/256 where they are inputs,
in 1/UNIT where they are sums. Indices into history are step * n_lanes + lane.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmcompress.mixer.tables import LOG2, SQUASH, STRETCH, sizes
from lmcompress.tree import Tree

N_CTX = 18  # contexts with a slot for each node
REMEMBERS = (1, 2, 5, 8)  # contexts that also remember the token that came last
EXPERTS = 4  # expected tokens: long match, short match, line above by field, line above by column
SETS = 5  # weight sets that predict side by side
FIRST_EXPERT = 2 + 2 * N_CTX
FIRST_RUN = FIRST_EXPERT + 2 * EXPERTS
BIAS = FIRST_RUN + 2 * len(REMEMBERS)
INPUTS = BIAS + 1
HISTORY = 6
FIELDS = 128
LINE = 256
GROUP = 4
APM_BITS = 12
APM_SHARE = (4, 6, 4)
CONFIDENCES = 80
LEVELS = 32
RUN_LENGTHS = 16
MATCH_LENGTHS = (6, 2)  # tokens hashed to find the long and the short match
MATCH_MAX = 40
LEARN_FLOOR, LEARN_EXTRA = 16, 100
FIRST_WEIGHT = 25
UNIT = 65536
MASK = (1 << 64) - 1
RATE = [131072 // (2 * n + 3) for n in range(1024)]  # 1 / (n + 1.5), 16 bits after the point
QUANTIZED = [min(31, max(0, int((s + 3072) / 192))) for s in STRETCH.tolist()]  # rounds towards zero
_LOG2, _STRETCH, _SQUASH = LOG2.tolist(), STRETCH.tolist(), SQUASH.tolist()


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


class Statistics:
    """Adaptive probabilities that a bit is 1: 22 bits and a count, which moves them fast at first."""

    def __init__(self, odds: Sequence[int]) -> None:
        """`odds`: log2 odds to begin with, in 1/256."""
        self.p = [squash(z * 256) >> 2 for z in odds]
        self.n = [0] * len(self.p)

    def learn(self, i: int, bit: int) -> None:
        self.p[i] += ((((1 << 22) - 1 if bit else 0) - self.p[i]) * RATE[self.n[i]]) >> 16
        self.n[i] += self.n[i] < 255


class Text:
    """What the bytes of a lane say about where in the text it is. Hashes are 0 where nothing was hashed yet. Of the
    pairs, entry `which` is the line being written, the other one the line above."""

    def __init__(self, lane: int) -> None:
        self.word = self.word1 = 0  # letters since the last other byte; the word before
        self.lines = 0  # ended, 2 for more
        self.which = 0
        self.bytes = [b"", b""]
        self.field_start: list[list[int]] = [[lane], [lane]]
        self.column_start: list[list[int]] = [[lane], [lane]]
        self._new_line(lane)

    def _new_line(self, start: int) -> None:
        self.first = self.shape = 0  # the line's first word; the line, each row of digits as one 0
        self.field_shape = 0  # the field likewise; fields end at any of " ,;|\t"
        self.column_shape = self.column_raw = self.previous_column = 0  # the same between ",;|\t" outside quotes
        self.in_first, self.in_digits, self.quoted, self.indent = True, False, False, 0
        self.field = self.field_tokens = self.column = self.column_tokens = 0
        self.misses = 0  # of the expectations from the line above in this field
        self.line_start = start
        self.bytes[self.which] = b""
        self.field_start[self.which] = [start]
        self.column_start[self.which] = [start]

    def read(self, c: int, after: int) -> None:
        """One byte of a token; the lane's next token will have the index `after`."""
        if ord("a") <= (c | 32) <= ord("z") or c >= 0x80:
            self.word = hash64(self.word, c | 32)
        elif self.word:
            self.word1, self.word = self.word, 0
        if c == ord("\n"):
            self.which ^= 1
            self.lines = min(2, self.lines + 1)
            self._new_line(after)
            return
        digit = ord("0") <= c <= ord("9")
        shown = ord("0") if digit else c
        if len(self.bytes[self.which]) < LINE:
            self.bytes[self.which] += bytes([c])
        if not (digit and self.in_digits):
            self.shape = hash64(self.shape, shown)
        self.in_digits = digit
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
            self.field_shape = self.field_tokens = self.misses = 0
            self.field = min(65535, self.field + 1)
            if self.field < FIELDS:
                self.field_start[self.which].append(after)
        else:
            self.field_shape = hash64(self.field_shape, shown)
        if c in b",;|\t" and not self.quoted:
            self.previous_column = self.column_raw
            self.column_shape = self.column_raw = self.column_tokens = 0
            self.column = min(65535, self.column + 1)
            if self.column < FIELDS:
                self.column_start[self.which].append(after)
        else:
            self.column_shape = hash64(self.column_shape, shown)
            self.column_raw = hash64(self.column_raw, c)


class Match:
    def __init__(self) -> None:
        self.at = -1  # index of the token expected next, or -1
        self.length = self.misses = 0


class Run:
    """The token that came last in a context, and how often in a row; `check` tells contexts of one cell apart."""

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
        self.expected: list[int] = []  # tokens [EXPERTS], -1 for none
        self.context: list[int] = []  # hashes [N_CTX]
        self.runs: list[Run] = []  # [len(REMEMBERS)]
        self.indirect = (0, 0)  # cells that learn it
        self.apm_hash = (0, 0)
        self.node = -1  # < 0: ~token
        self.level = 0
        self.position = 0  # the node's number among those of its bucket
        self.bucket = [0] * N_CTX  # first slots' indices
        # of the decision under way: which statistics spoke, and what came of it
        self.slot_used: list[int | None] = []
        self.expert_used: list[int | None] = []
        self.run_used: list[int | None] = []
        self.input = np.zeros(INPUTS, np.int64)
        self.chosen: list[int] = []  # weight sets [SETS]
        self.final: list[int] = []  # weights of the sets' predictions
        self.stretched: list[int] = []
        self.p_set: list[int] = []
        self.p_mixed = 0
        self.apm_used: list[tuple[int, int]] = []


class Mixer:
    """What is learned of one block: `n_lanes` lanes with about `n_tokens` tokens together, tables of about
    2^`mixer_bits` bytes; `pieces[i]` are the bytes of id i.

    A step of lanes 0..n-1: begin, then predict and update by turns until predict returns nothing, then tokens. Each
    prediction of a level is made before any update of that level; updates come in lane order. `encode` is a whole step
    of known tokens. base uint64 [n, ceil(V/64)] and local uint32 [n, V] are a model's cumulated weights, or both None.
    k uint32 in [1, 2^24 - 1]: P(bit = 1) = k / 2^24. Raises ValueError for calls out of order."""

    def __init__(self, tree: Tree, pieces: Sequence[bytes], mixer_bits: int, n_lanes: int, n_tokens: int) -> None:
        self.tree, self.pieces, self.n_lanes = tree, pieces, n_lanes
        V = tree.vocab_size
        self.table_bits, self.run_bits, self.match_bits, self.indirect_bits = sizes(mixer_bits, n_tokens)
        # lines of two buckets: a check, then slots (p ^ 2048) << 4 | count of the nodes of GROUP levels
        self.table = np.zeros(32 << self.table_bits, np.uint16)
        self.runs: list[dict[int, Run]] = [{} for _ in REMEMBERS]
        self.match_table: tuple[dict[int, int], dict[int, int]] = ({}, {})
        self.indirect: dict[int, int] = {}
        self.slot_map = Statistics([q * 192 + 96 - 3072 for _ in range(N_CTX * 16) for q in range(32)])
        lengths = [256 + c // 4 * 100 for c in range(CONFIDENCES)]
        odds = lengths + lengths + [512] * (2 * CONFIDENCES)
        self.expert_map = Statistics([z for z in odds for _ in range(LEVELS)])
        self.run_map = Statistics([512] * (len(REMEMBERS) * RUN_LENGTHS * LEVELS))
        even = np.arange(INPUTS) % 2 == 0
        first = np.where(even, FIRST_WEIGHT << 10, 0)
        first[0], first[BIAS] = 1 << 18, 0
        self.weights = [np.tile(first, (n, 1)) for n in (48, 8 * FIELDS, 1024 + LEVELS, V, 4 * FIELDS)]
        self.final_weights = [[(1 << 18) // SETS] * SETS for _ in range(30)]
        row = [squash((q - 12) * UNIT) >> 8 for q in range(25)]
        self.apm = [[list(row) for _ in range(n)] for n in (V - 1, 1 << APM_BITS, 1 << APM_BITS)]
        self.history: list[int] = []
        self.step = self.decisions = 0
        self.lanes = [Lane(number) for number in range(n_lanes)]
        self.in_step: list[Lane] = []
        self.predicted: list[Lane] = []

    def begin(self, base: np.ndarray | None, local: np.ndarray | None, n: int) -> None:
        if any(lane.node >= 0 for lane in self.in_step) or not 1 <= n <= self.n_lanes:
            raise ValueError("the step before has not ended, or a step without lanes")
        self.base, self.local = base, local
        self.in_step = self.lanes[:n]
        self.history += [0] * self.n_lanes
        for lane in self.in_step:
            self._begin_token(lane)

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
                self._end_token(lane)
            self.step += 1

    def tokens(self) -> np.ndarray:
        """int32 [n] tokens of the step that has ended last."""
        if any(lane.node >= 0 for lane in self.in_step):
            raise ValueError("the step has not ended")
        return np.array([~lane.node for lane in self.in_step], np.int32)

    def encode(
        self, base: np.ndarray | None, local: np.ndarray | None, tokens: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        self.begin(base, local, len(tokens))
        ks, all_bits = [], []
        while len(k := self.predict()):
            bits = [tokens[lane.number] >= self.tree.mid[lane.node] for lane in self.predicted]
            ks.append(k)
            all_bits.append(np.array(bits, np.uint8))
            self.update(all_bits[-1])
        return np.concatenate(ks), np.concatenate(all_bits)

    # --- a token's beginning: what is expected, and the contexts

    def _begin_token(self, lane: Lane) -> None:
        text, r = lane.text, lane.recent
        above = text.which ^ 1
        expected = []
        for match in lane.matches:
            if match.at >= self.step * self.n_lanes:
                match.at = -1
            expected.append(self.history[match.at] if match.at >= 0 else -1)
        if expected[1] == expected[0]:
            expected[1] = -1
        up = self._above(text, text.field_start[above], text.field, text.field_tokens)
        up1 = -1 if up < 0 else self._above(text, text.field_start[above], text.field, text.field_tokens + 1)
        by_column = self._above(text, text.column_start[above], text.column, text.column_tokens)
        lane.expected = [*expected, up, -1 if by_column == up else by_column]
        width = len(text.bytes[text.which])
        over = text.bytes[above][width : width + 4] if text.lines else b""  # bytes above the next four
        n = lane.number
        lane.indirect = (
            hash64(hash64(n, r[0]), r[1]) >> 64 - self.indirect_bits,
            (hash64(n, text.shape) >> 64 - self.indirect_bits) + (1 << self.indirect_bits),
        )
        followers, shape_followers = (self.indirect.get(cell, 0) for cell in lane.indirect)
        c = [0, hash64(1, r[0])]
        c.append(hash64(c[1], r[1]))
        c.append(hash64(c[2], r[2]))
        c.append(hash64(hash64(c[3], r[3]), r[4]))
        c.append(hash64(2, text.word))
        c.append(hash64(hash64(3, text.word), text.word1))
        c.append(hash64(hash64(4, r[1]), r[2]))
        c.append(hash64(hash64(5, followers), r[0]))
        c.append(hash64(hash64(6, text.shape), shape_followers & 0xFFFF))
        c.append(hash64(hash64(7, text.first), hash64(text.field, text.field_tokens)))
        c.append(hash64(hash64(8, text.indent), hash64(text.first, r[0])))
        c.append(hash64(hash64(9, text.field_shape), text.field))
        c.append(hash64(hash64(10, up + 1), up1 + 1))
        c.append(hash64(hash64(11, up + 1), hash64(text.misses, text.field)))
        c.append(hash64(hash64(12, int.from_bytes(over.ljust(4, b"\0"), "big")), self.pieces[r[0]][-1]))
        c.append(hash64(hash64(13, text.column_shape), text.column))
        c.append(hash64(hash64(14, text.column_raw), hash64(text.previous_column, text.column)))
        lane.context = c
        lane.runs = []
        for table, i in zip(self.runs, REMEMBERS, strict=True):
            h = hash64(c[i], n)
            run = table.setdefault(h >> 64 - self.run_bits, Run())
            if run.check != h & 0xFFFF:
                run.check, run.count = h & 0xFFFF, 0
            lane.runs.append(run)
        lane.apm_hash = (hash64(17, r[0]), hash64(c[2], 18))
        lane.node = lane.level = lane.position = 0

    def _above(self, text: Text, start: list[int], field: int, tokens: int) -> int:
        """The token at the same place of the same field in the line above, or -1."""
        if text.lines == 0 or field >= len(start):
            return -1
        at = start[field] + tokens * self.n_lanes
        return self.history[at] if at < text.line_start else -1

    def _enter_group(self, lane: Lane) -> None:
        """Finds the lane's buckets for the next GROUP levels, or makes them in the place of others."""
        for i in range(N_CTX):
            h = hash64(hash64(lane.context[i], i), lane.node)
            check = h & 0xFFFF
            a = (h >> 64 - self.table_bits) * 32
            b = a + 16
            if self.table[a] != check:
                if self.table[b] == check:
                    a = b
                else:
                    if self.table[a + 1] & 15 > self.table[b + 1] & 15:
                        a, b = b, a
                    self.table[b + 1] -= int(self.table[b + 1]) & 15 > 0  # who stays ages
                    self.table[a : a + 16] = 0
                    self.table[a] = check
            lane.bucket[i] = a + 1
        lane.position = 0

    # --- a decision

    def _predict(self, lane: Lane) -> int:
        tree, node, level = self.tree, lane.node, lane.level
        lo, mid, hi = int(tree.lo[node]), int(tree.mid[node]), int(tree.hi[node])
        x = [0] * INPUTS
        if self.base is not None:
            below = [self._below(lane.number, edge) for edge in (lo, mid, hi)]
            x[0] = clamp(log2(below[2] - below[1]) - log2(below[1] - below[0]), 4095)
            x[1] = linear22(squash(x[0] * 256) >> 2)
        order = 0
        lane.slot_used = [None] * N_CTX
        for i in range(N_CTX):
            slot = int(self.table[lane.bucket[i] + lane.position])
            n, p = slot & 15, slot >> 4 ^ 2048
            if n:
                used = (i * 16 + n) * 32 + QUANTIZED[p]
                lane.slot_used[i] = used
                x[2 + 2 * i] = stretch22(self.slot_map.p[used])
                x[3 + 2 * i] = (p - 2048) * (n + 1) >> 4
                order = i if i <= 4 else order
        confidence = 0
        lane.expert_used = [None] * EXPERTS
        for e, expected in enumerate(lane.expected):
            if not lo <= expected < hi:
                continue
            if e < 2:
                length, misses = lane.matches[e].length, lane.matches[e].misses
                long = 16 + (length >= 24) + (length >= 32) + (length >= 50)
                c = (length if length < 16 else long) * 4 + min(misses, 3)
                if e == 0:
                    confidence = 1 + (length > 2) + (length > 7) + (length > 15) + (length > 31)
            else:
                c = lane.hits[e - 2]
            used = (e * CONFIDENCES + c) * LEVELS + level
            p = self.expert_map.p[used]
            sign = 1 if expected >= mid else -1
            lane.expert_used[e] = used
            x[FIRST_EXPERT + 2 * e] = sign * clamp(log2(p + 1) - log2((1 << 22) - p), 4095)
            x[FIRST_EXPERT + 2 * e + 1] = sign * linear22(p)
        lane.run_used = [None] * len(REMEMBERS)
        for i, run in enumerate(lane.runs):
            if run.count and lo <= run.token < hi:
                used = (i * RUN_LENGTHS + min(run.count, RUN_LENGTHS - 1)) * LEVELS + level
                p = self.run_map.p[used]
                sign = 1 if run.token >= mid else -1
                lane.run_used[i] = used
                x[FIRST_RUN + 2 * i] = sign * stretch22(p)
                x[FIRST_RUN + 2 * i + 1] = sign * linear22(p)
        x[BIAS] = 256
        lane.input = np.array(x, np.int64)

        text = lane.text
        near = 2 * (lo <= lane.expected[2] < hi) + (lo <= lane.expected[1] < hi)
        lane.chosen = [
            (confidence * 4 + near) * 2 + (level > 3),
            min(text.column, FIELDS - 1) * 8 + min(text.column_tokens, 7),
            node if node < 1024 else 1024 + level,
            lane.recent[0],
            min(text.field, FIELDS - 1) * 4 + min(text.field_tokens, 3),
        ]
        lane.final = self.final_weights[order * 6 + confidence]
        lane.stretched, lane.p_set = [], []
        z = 0
        for j in range(SETS):
            w = self.weights[j][lane.chosen[j]]
            zj = clamp(int(((lane.input * (w >> 2)) >> 8).sum()), 16 * UNIT - 1)
            lane.p_set.append(squash(zj))
            lane.stretched.append(zj >> 8)
            z += lane.stretched[j] * (lane.final[j] >> 2) >> 8
        lane.p_mixed = squash(z)
        i, part = divmod(clamp(z, 12 * UNIT - 1) + 12 * UNIT, UNIT)
        total = lane.p_mixed * (32 - sum(APM_SHARE))
        rows = (node, *(hash64(h, node) >> 64 - APM_BITS for h in lane.apm_hash))
        lane.apm_used = []
        for apm, row, share in zip(self.apm, rows, APM_SHARE, strict=True):
            total += ((apm[row][i] * (UNIT - part) + apm[row][i + 1] * part) >> 8) * share
            lane.apm_used.append((row, i + (part >= UNIT // 2)))
        return max(1, min((1 << 24) - 1, total >> 5))

    def _below(self, lane: int, i: int) -> int:
        """The model's weight of ids [0, i)."""
        assert self.base is not None and self.local is not None
        group = i >> 6
        if group == self.base.shape[1]:  # i = V, a multiple of 64
            group -= 1
            return int(self.base[lane, group]) + int(self.local[lane, i - 1])
        return int(self.base[lane, group]) + (int(self.local[lane, i - 1]) if i & 63 else 0)

    def _update(self, lane: Lane, bit: int) -> None:
        mid = int(self.tree.mid[lane.node])
        for i in range(N_CTX):
            at = lane.bucket[i] + lane.position
            slot = int(self.table[at])
            n, p = slot & 15, slot >> 4 ^ 2048
            if (used := lane.slot_used[i]) is not None:
                self.slot_map.learn(used, bit)
            p += ((4095 - p) * RATE[n] + 65535 if bit else -p * RATE[n]) >> 16  # by one at least
            self.table[at] = (p ^ 2048) << 4 | min(n + 1, max(n, 12))
        for expected, used in zip(lane.expected, lane.expert_used, strict=True):
            if used is not None:
                self.expert_map.learn(used, bit == (expected >= mid))
        for run, used in zip(lane.runs, lane.run_used, strict=True):
            if used is not None:
                self.run_map.learn(used, bit == (run.token >= mid))
        target = (1 << 24) - 1 if bit else 0
        rate = LEARN_FLOOR + LEARN_EXTRA * 64 // (64 + (self.decisions >> 6))
        final_error = ((target - lane.p_mixed) >> 6) * 2 >> 6
        for j in range(SETS):
            error = ((target - lane.p_set[j]) >> 6) * rate >> 8
            w = self.weights[j][lane.chosen[j]]
            np.clip(w + ((lane.input * error + 2048) >> 12), -(1 << 20), (1 << 20) - 1, out=w)
            step = (lane.stretched[j] * final_error + 2048) >> 12
            lane.final[j] = clamp(lane.final[j] + step, (1 << 20) - 1)
        for apm, (row, i) in zip(self.apm, lane.apm_used, strict=True):
            apm[row][i] += ((65535 + 31 if bit else 0) - apm[row][i]) >> 5
        self.decisions += 1
        lane.position = 2 * lane.position + 1 + bit
        lane.level += 1
        lane.node = int((self.tree.right if bit else self.tree.left)[lane.node])

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
            if lane.expected[2 + e] >= 0:
                right = lane.expected[2 + e] == token
                lane.hits[e] = (lane.hits[e] * 2 + right) & 15
                if e == 0:
                    text.misses = min(3, text.misses + (not right))
        for run in lane.runs:
            if run.count and run.token == token:
                run.count = min(255, run.count + 1)
            else:
                run.token, run.count = token, 1
        for cell in lane.indirect:
            self.indirect[cell] = (self.indirect.get(cell, 0) << 16 | token) & 0xFFFFFFFF
        lane.recent = [token, *lane.recent[:-1]]
        text.field_tokens += 1
        text.column_tokens += 1
        for c in self.pieces[token]:
            text.read(c, after)
        for e, (match, need) in enumerate(zip(lane.matches, MATCH_LENGTHS, strict=True)):
            if self.step + 1 < need:
                continue
            h = 0 if e == 0 else lane.number  # short matches stay in their lane
            for r in lane.recent[:need]:
                h = hash64(h, r)
            cell = h >> 64 - self.match_bits
            candidate = self.match_table[e].get(cell, 0)
            self.match_table[e][cell] = after
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

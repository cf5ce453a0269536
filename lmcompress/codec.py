"""One block: bytes to a payload and back.

Knows: how tokens are laid out in lanes, the order of decisions, what a payload begins with. Does not know: archives,
how probabilities come about, what forms there are.

Payload: varint number of tokens, varint number of lanes, then the range coder's bytes; before these a 0 and a byte for the
form where the content is not the tokens' text itself (forms.py). A block of no bytes has an empty payload. Lane l of L has
its share of the tokens in order; the first (tokens mod L) lanes have one more. Decoding reads one decision for each lane at
each level of the tree; docs/FORMAT.md has the order in words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import isqrt
from typing import NamedTuple

import numpy as np

from lmcompress import forms
from lmcompress.bits import Reader, Writer
from lmcompress.coder import Decoder, Encoder
from lmcompress.config import HEAD_SIZE, CodecConfig
from lmcompress.errors import CorruptError, UnsupportedError
from lmcompress.modelfile import Model
from lmcompress.predictor import BATCH, Engines, Predictor, Vocabulary

Progress = Callable[[float], None]  # told now and then what share of a block is done

MAX_LANES = 1024
WORK = 8 << 20  # bytes in which network and mixer work
STEPS = 64  # between two reports of progress
TRIAL = 8192  # bytes of a block on which forms are tried
WHOLE_TRIAL = 1 << 18  # bytes of text up to which all of it is coded in every way that is left
SOME_NUMBERS, MANY_NUMBERS = 1.01, 1.2  # as many tokens with digits by themselves as without, at least
STRANGE = 2.3  # bytes a token in text that the vocabulary was not made for, at most
WORTH = 1.01  # of what the network takes, up to which learning alone is chosen: it is ten times as fast, or more
PROMISING = 1.02  # and on a part: the longer a text is, the more there is to learn
LEARNED_UNIT = 1 << 18  # of lanes without the network, at least
NETWORK, LIGHT = 1, 2  # flags of the codec parameters
VERSION = 2 << 2  # of the mixer's arithmetic, above the flags; any other integer that it gives is a new one


def pack(config: CodecConfig) -> bytes:
    """Three bytes for an archive's header: log2 of the unit of lanes, the mixer's bits, flags and the mixer's version."""
    flags = NETWORK * config.network | LIGHT * config.light | VERSION
    return bytes([config.lane_unit.bit_length() - 1, config.mixer_bits, flags])


def unpack(data: bytes) -> CodecConfig:
    """Raises UnsupportedError for parameters that this version cannot follow."""
    unit_log, mixer_bits, flags = data if len(data) == 3 else (0, 0, 0)
    flags -= VERSION
    if not 10 <= unit_log <= 30 or not (mixer_bits == 0 or 16 <= mixer_bits <= 28) or not 0 <= flags <= NETWORK | LIGHT:
        raise UnsupportedError("the archive's codec parameters need another version of lmcompress")
    if not mixer_bits and flags != NETWORK:
        raise UnsupportedError(
            "the archive's codec parameters name neither network nor mixer, or a light one that is none"
        )
    return CodecConfig(1 << unit_log, mixer_bits, bool(flags & NETWORK), bool(flags & LIGHT))


def most_lanes(config: CodecConfig, n_bytes: int, n_tokens: int) -> int:
    """How many lanes a block of so many bytes and tokens has at most.

    Rows at once make a token cheaper, and lanes know less of each other the more there are: their number grows with
    the square root of the text."""
    return max(1, min(isqrt(n_bytes // config.lane_unit), MAX_LANES, n_tokens))


def memory(config: CodecConfig, model: Model | None, raw_size: int) -> int:
    """Bytes that decoding a block of that size takes at most, the model aside: space to work in, the mixer's tables and correction,
    what lanes remember and what the network says of their next tokens, and the block's tokens and text themselves
    (docs/LOG.md)."""
    lane = correction = 0
    if model is not None and config.network:
        shape = model.config
        correction = 2 * shape.vocab_size * (shape.d_model + 1) if config.mixer_bits else 0
        lane = 2 * HEAD_SIZE * shape.n_layer * shape.window + 8 * shape.vocab_size + 3 * shape.d_model
    return (
        WORK
        + (5 << config.mixer_bits) // 4
        + correction
        + lane * most_lanes(config, raw_size, raw_size)
        + 20 * raw_size
    )


class Way(NamedTuple):
    """How a text may be coded."""

    network: bool
    alone: bool  # digits and codes are pieces by themselves


LEARNING = Way(False, True)


class Trial(NamedTuple):
    """A part of a text on which the ways to code it are tried. Those that take more of the best one's bytes than is said are out."""

    least: int  # bytes of text to be worth it
    size: int  # bytes
    alone: float  # with the network, digits alone, where there are many
    learning: float


TRIALS = (
    Trial(1 << 15, 1 << 14, 1.10, 1.25),
    Trial(1 << 17, 1 << 16, 1.00, 1.06),
    Trial(1 << 21, 1 << 18, 1.00, 1.00),
)


class Codec:
    """Encoder and decoder of blocks, several at once if called from several threads. `model` None: bytes instead of a
    vocabulary's pieces, and no network. threads: of a block that does not say otherwise."""

    def __init__(self, model: Model | None, config: CodecConfig, threads: int = 1, engine: str = "auto") -> None:
        self.config = config
        self.vocabulary = Vocabulary(model)
        self.engines = Engines(model, config, threads, engine)
        self.engine_name = self.engines.name

    def encode(self, data: bytes, progress: Progress | None = None, threads: int = 0) -> tuple[bool, bytes]:
        """Whether the block is coded without the network that the configuration has, and its payload."""
        if not data:
            return False, b""
        form, text = self._form(data, threads)
        payloads: dict[Way, bytes] = {}
        ways = self._ways(text, threads)
        for i, way in enumerate(ways):
            told = None if progress is None else partial(_tell, progress, i, len(ways))
            payloads[way] = self._code(len(data), *self._segment(data, form, text, way), way.network, told, threads)
        way = _best({way: len(payload) for way, payload in payloads.items()}, WORTH)
        return way.network != self.config.network, payloads[way]

    def _form(self, data: bytes, threads: int) -> tuple[int, bytes]:
        """The form in which a part of the content takes fewest bytes, and the text of all of it. Whether CR LF helps or
        disturbs, above all, depends on what the model has read."""
        cost = self.vocabulary.tokenizer.cost
        form, text = forms.to_text(data, cost)
        if form == forms.PLAIN:
            return form, text
        part = _middle(data, TRIAL)
        choices: list[int | None] = [forms.FLAGS]
        choices += [forms.FLAGS & ~forms.LINES] if form & forms.LINES else []
        choices += [None] if form & ~forms.FLAGS != forms.MAIL and form != forms.LINES else []
        if len(choices) == 1:
            return form, text
        way = Way(self.config.network, not self.config.network)
        sizes = [self._size(part, *_with(flags, part, cost), way, threads) for flags in choices]
        best = choices[sizes.index(min(sizes))]  # the first of equals
        return (form, text) if best == forms.FLAGS else _with(best, data, cost)

    def _ways(self, text: bytes, threads: int) -> list[Way]:
        """Those ways to code a text of which parts of it do not tell that another takes fewer bytes.

        Networks may have read numbers in pieces, but the mixer learns digits alone on the way; and on what the network has
        not read, the mixer may do as well in one lane without it. Both show the more the longer the text is."""
        if not self.config.network:
            return [LEARNING]
        part = _middle(text, TRIALS[0].size)
        together, alone = (len(self.vocabulary.tokenizer.encode(part, alone)) for alone in (False, True))
        many = alone >= MANY_NUMBERS * together
        ways = [Way(True, False)]
        if alone >= SOME_NUMBERS * together:
            ways.append(Way(True, True))
        if self.config.mixer_bits and (many or len(part) <= STRANGE * together):
            ways.append(LEARNING)
        best = ways[0]
        for trial in TRIALS:
            if len(ways) == 1 or len(text) < trial.least:
                break
            part = _middle(text, trial.size)
            sizes = {way: self._size(part, forms.PLAIN, part, way, threads) for way in ways}
            best = _best(sizes, PROMISING)
            if best == LEARNING:
                return [best]
            more = {Way(True, False): 1.0, Way(True, True): trial.alone if many else 1.0, LEARNING: trial.learning}
            ways = [way for way in ways if sizes[way] <= more[way] * sizes[best]]
        return ways if len(text) <= WHOLE_TRIAL else [best]

    def _segment(self, data: bytes, form: int, text: bytes, way: Way) -> tuple[int, np.ndarray]:
        tokens = self.vocabulary.tokenizer.encode(text, way.alone).astype(np.int32)
        if len(tokens) > len(data):
            return self._segment(data, forms.PLAIN, data, way)
        return form, tokens

    def _size(self, data: bytes, form: int, text: bytes, way: Way, threads: int) -> int:
        return len(self._code(len(data), *self._segment(data, form, text, way), way.network, None, threads))

    def _code(
        self, size: int, form: int, tokens: np.ndarray, network: bool, progress: Progress | None, threads: int
    ) -> bytes:
        """The payload of a block of `size` bytes."""
        n_lanes = most_lanes(self._with(network), size, len(tokens))
        lanes, counts = layout(tokens, n_lanes)
        previous = np.concatenate([np.full((n_lanes, 1), self.vocabulary.start, np.int32), lanes[:, :-1]], axis=1)
        predictor = Predictor(self.engines, self.vocabulary, n_lanes, len(tokens), threads, network)
        coder = Encoder(self.engines.coder)
        for start, stop, m in spans(counts):
            for i, (k, bits) in enumerate(predictor.encode(previous[:m, start:stop], lanes[:m, start:stop])):
                coder.encode(bits, k)
                if progress is not None:
                    progress((start + i * max(1, BATCH // m)) / len(lanes[0]))
        written = Writer()
        if form != forms.PLAIN:
            written.varint(0).put(bytes([form]))
        return bytes(written.varint(len(tokens)).varint(n_lanes).put(coder.finish()))

    def decode(
        self, payload: bytes, raw_size: int, learned: bool = False, progress: Progress | None = None, threads: int = 0
    ) -> bytes:
        """The block's bytes, `raw_size` of them. learned: without the network that the configuration has. Raises CorruptError
        where the payload gives anything else."""
        if learned and not (self.config.network and self.config.mixer_bits):
            raise CorruptError("a block does without a network, but its archive has none, or no mixer")
        config = self._with(self.config.network and not learned)
        if raw_size == 0:
            if payload:
                raise CorruptError("an empty block has a payload")
            return b""
        reader = Reader(payload)
        form, n_tokens = head(reader, raw_size)
        n_lanes = reader.varint(most_lanes(config, raw_size, n_tokens))
        if n_lanes == 0:
            raise CorruptError("a block without tokens or lanes")
        lanes, counts = layout(np.zeros(n_tokens, np.int32), n_lanes)
        predictor = Predictor(self.engines, self.vocabulary, n_lanes, n_tokens, threads, config.network)
        coder = Decoder(reader.take(reader.remaining), self.engines.coder)
        previous = np.full(n_lanes, self.vocabulary.start, np.int32)
        for start, stop, m in spans(counts):
            for first in range(start, stop, STEPS):
                part = lanes[:m, first : min(first + STEPS, stop)]
                predictor.decode(coder, previous[:m], part)
                previous = part[:, -1]
                if progress is not None:
                    progress(first / len(lanes[0]))
        tokens = np.concatenate([lane[:count] for lane, count in zip(lanes, counts, strict=True)])
        tokenizer = self.vocabulary.tokenizer
        if tokenizer.lengths[tokens].sum() > forms.GROWTH * raw_size:
            raise CorruptError("a block's tokens have more text than its size allows")
        return forms.to_data(form, tokenizer.decode(tokens), raw_size)

    def _with(self, network: bool) -> CodecConfig:
        """The configuration of a block with the network, or without."""
        if network == self.config.network:
            return self.config
        return replace(self.config, network=False, lane_unit=max(self.config.lane_unit, LEARNED_UNIT))

    def memory(self, raw_size: int) -> int:
        """What memory() says of this codec."""
        return memory(self.config, self.engines.model, raw_size)


def head(reader: Reader, raw_size: int) -> tuple[int, int]:
    """The form and the number of tokens that a payload begins with. Raises CorruptError."""
    n_tokens, form = reader.varint(raw_size), forms.PLAIN
    if n_tokens == 0:
        (form,) = reader.take(1)
        if form == forms.PLAIN:
            raise CorruptError("a block without tokens")
        n_tokens = reader.varint(raw_size)
    return form, n_tokens


def _best(sizes: Mapping[Way, int], worth: float) -> Way:
    """Of a text's ways and what they take, the first of the smallest; learning alone where it takes at most `worth` of that."""
    best = min(sizes, key=lambda way: sizes[way])
    return LEARNING if LEARNING in sizes and sizes[LEARNING] <= worth * sizes[best] else best


def _tell(progress: Progress, done: int, of: int, share: float) -> None:
    progress((done + share) / of)


def _middle(data: bytes, size: int) -> bytes:
    """From an even place on, so that units of UTF-16 stay whole."""
    return data[max(0, len(data) - size) // 4 * 2 :][:size]


def _with(flags: int | None, data: bytes, cost: forms.Cost) -> tuple[int, bytes]:
    """A form that may have these flags, with its text; None: the content as it is."""
    return (forms.PLAIN, data) if flags is None else forms.to_text(data, cost, flags)


def layout(tokens: np.ndarray, n_lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanes int32 [L, T] filled up with zeros, and their counts int64 [L]: tokens [n] in order, as evenly as can be."""
    share, extra = divmod(len(tokens), n_lanes)
    counts = np.full(n_lanes, share, np.int64)
    counts[:extra] += 1
    lanes = np.zeros((n_lanes, int(counts[0])), np.int32)
    lanes[np.arange(lanes.shape[1]) < counts[:, None]] = tokens
    return lanes, counts


def spans(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """(first step, step after the last, lanes 0..m-1 that run): all lanes, then those that have one token more."""
    full, longest = int(counts[-1]), int(counts[0])
    spans = [(0, full, len(counts)), (full, longest, int((counts > full).sum()))]
    return [s for s in spans if s[0] < s[1]]

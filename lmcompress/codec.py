"""One block: bytes to a payload and back.

Knows: how tokens are laid out in lanes, the order of decisions, what a payload begins with. Does not know: archives,
how probabilities come about, what forms there are, how one chooses.

Payload: varint number of tokens, varint number of lanes times that of the model's trees plus the number of the tree in
use, then the range coder's bytes; before these a 0 and a byte for the form where the content is not the tokens' text itself
(forms.py). A block of no bytes has an empty payload. Lane l of L has its share of the tokens in order; the first (tokens
mod L) lanes have one more. Decoding reads one decision for each lane at each level of the tree; docs/FORMAT.md has the order
in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import isqrt

import numpy as np

from lmcompress import choice, forms
from lmcompress.bits import Reader, Writer
from lmcompress.choice import ALONE, LEARNING, PIECES, Way
from lmcompress.coder import Decoder, Encoder
from lmcompress.config import HEAD_SIZE, CodecConfig
from lmcompress.errors import CorruptError, UnsupportedError
from lmcompress.modelfile import Model
from lmcompress.predictor import BATCH, Engines, Predictor, Vocabulary

Progress = Callable[[float], None]  # told now and then what share of a block is done

MAX_LANES = 1024
WORK = 8 << 20  # bytes in which network and mixer work
STEPS = 64  # between two reports of progress
LEARNED_UNIT = 1 << 18  # of lanes without the network, at least
NETWORK, LIGHT = 1, 2  # flags of the codec parameters
VERSION = 5 << 2  # of the mixer's arithmetic, above the flags; any other integer that it gives is a new one


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
        remembered = sum(layer.window for layer in shape.layers if layer.n_head)
        lane = 2 * HEAD_SIZE * remembered + 8 * shape.vocab_size + 3 * shape.d_model
    return (
        WORK
        + (5 << config.mixer_bits) // 4
        + correction
        + lane * most_lanes(config, raw_size, raw_size)
        + 20 * raw_size
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
        tokenizer, network = self.vocabulary.tokenizer, self.config.network
        size = partial(self._size, threads)
        read = ALONE if self.vocabulary.alone else PIECES
        form, text = choice.form_of(data, tokenizer.cost, read if network else LEARNING, size)
        ways = choice.ways_of(text, tokenizer, read, self.config.mixer_bits > 0, size) if network else [LEARNING]
        payloads: dict[Way, bytes] = {}
        for i, way in enumerate(ways):
            told = None if progress is None else partial(_tell, progress, i, len(ways))
            payloads[way] = self._code(data, form, text, way, told, threads)
        way = choice.best_of({way: len(payload) for way, payload in payloads.items()}, choice.WORTH)
        return way.network != network, payloads[way]

    def _size(self, threads: int, data: bytes, form: int, text: bytes, way: Way) -> int:
        return len(self._code(data, form, text, way, None, threads))

    def _code(self, data: bytes, form: int, text: bytes, way: Way, progress: Progress | None, threads: int) -> bytes:
        """The payload of a block in a form, which gives a text, coded in a way; as it is if the form's text has more tokens
        than there are bytes."""
        encode = self.vocabulary.tokenizer.encode
        tokens = encode(text, way.alone).astype(np.int32)
        if len(tokens) > len(data):
            form, tokens = forms.PLAIN, encode(data, way.alone).astype(np.int32)
        n_tokens, tree = len(tokens), self.vocabulary.nearest(tokens)
        n_lanes = most_lanes(self._with(way.network), len(data), n_tokens)
        lanes, counts = layout(tokens, n_lanes)
        started = np.insert(lanes, 0, self.vocabulary.start, axis=1)
        previous, lanes = started[:, :-1], started[:, 1:]
        del tokens  # `started` alone is kept: either is as large as the block
        predictor = Predictor(self.engines, self.vocabulary, tree, n_lanes, n_tokens, threads, way.network)
        coder = Encoder(self.engines.coder)
        for start, stop, m in spans(counts):
            for i, (k, bits) in enumerate(predictor.encode(previous[:m, start:stop], lanes[:m, start:stop])):
                coder.encode(bits, k)
                if progress is not None:
                    progress((start + i * max(1, BATCH // m)) / len(lanes[0]))
        written = Writer()
        if form != forms.PLAIN:
            written.varint(0).put(bytes([form]))
        return bytes(written.varint(n_tokens).varint(n_lanes * self.vocabulary.trees + tree).put(coder.finish()))

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
        form, n_tokens, n_lanes, tree = head(reader, raw_size, self.vocabulary.trees)
        if not 1 <= n_lanes <= most_lanes(config, raw_size, n_tokens):
            raise CorruptError("a block without lanes, or with more than it can have")
        coder = Decoder(reader.take(reader.remaining), self.engines.coder)
        # mixer, network and lanes go before the text comes
        tokens = tokens_of(*self._decode_lanes(coder, config, tree, n_lanes, n_tokens, progress, threads))
        tokenizer = self.vocabulary.tokenizer
        if tokenizer.size(tokens) > forms.GROWTH * raw_size:
            raise CorruptError("a block's tokens have more text than its size allows")
        text = tokenizer.decode(tokens)
        del tokens
        return forms.to_data(form, text, raw_size)

    def _decode_lanes(
        self,
        coder: Decoder,
        config: CodecConfig,
        tree: int,
        n_lanes: int,
        n_tokens: int,
        progress: Progress | None,
        threads: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The lanes and counts that layout() gave. Raises CorruptError."""
        lanes, counts = layout(np.zeros(n_tokens, np.int32), n_lanes)
        predictor = Predictor(self.engines, self.vocabulary, tree, n_lanes, n_tokens, threads, config.network)
        previous = np.full(n_lanes, self.vocabulary.start, np.int32)
        for start, stop, m in spans(counts):
            for first in range(start, stop, STEPS):
                part = lanes[:m, first : min(first + STEPS, stop)]
                predictor.decode(coder, previous[:m], part)
                previous = part[:, -1]
                if progress is not None:
                    progress(first / len(lanes[0]))
        return lanes, counts

    def _with(self, network: bool) -> CodecConfig:
        """The configuration of a block with the network, or without."""
        if network == self.config.network:
            return self.config
        return replace(self.config, network=False, lane_unit=max(self.config.lane_unit, LEARNED_UNIT))

    def memory(self, raw_size: int) -> int:
        """What memory() says of this codec."""
        return memory(self.config, self.engines.model, raw_size)


def head(reader: Reader, raw_size: int, trees: int) -> tuple[int, int, int, int]:
    """What a payload begins with: the form, the number of tokens, that of lanes (unchecked), which of the model's trees is in
    use. Raises CorruptError."""
    n_tokens, form = reader.varint(raw_size), forms.PLAIN
    if n_tokens == 0:
        (form,) = reader.take(1)
        n_tokens = 0 if form == forms.PLAIN else reader.varint(raw_size)
    if n_tokens == 0:
        raise CorruptError("a block without tokens")
    return form, n_tokens, *divmod(reader.varint((MAX_LANES + 1) * trees - 1), trees)


def _tell(progress: Progress, done: int, of: int, share: float) -> None:
    progress((done + share) / of)


def layout(tokens: np.ndarray, n_lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """Lanes int32 [L, T] filled up with zeros, and their counts int64 [L]: tokens [n] in order, as evenly as can be."""
    share, extra = divmod(len(tokens), n_lanes)
    counts = np.full(n_lanes, share, np.int64)
    counts[:extra] += 1
    lanes = np.zeros((n_lanes, int(counts[0])), np.int32)
    lanes[np.arange(lanes.shape[1]) < counts[:, None]] = tokens
    return lanes, counts


def tokens_of(lanes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The tokens [n] that layout() was given."""
    return np.concatenate([lane[:count] for lane, count in zip(lanes, counts, strict=True)])


def spans(counts: np.ndarray) -> list[tuple[int, int, int]]:
    """(first step, step after the last, lanes 0..m-1 that run): all lanes, then those that have one token more."""
    full, longest = int(counts[-1]), int(counts[0])
    spans = [(0, full, len(counts)), (full, longest, int((counts > full).sum()))]
    return [s for s in spans if s[0] < s[1]]

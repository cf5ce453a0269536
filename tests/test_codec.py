"""Blocks: the round trip on every engine, lanes, and what damaged payloads give."""

from __future__ import annotations

import dataclasses
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcompress import choice, forms, modelfile
from lmcompress.bits import Reader, Writer, crc32
from lmcompress.choice import ALONE, LEARNING, PIECES, Way
from lmcompress.codec import MAX_LANES, VERSION, Codec, head, layout, pack, spans, tokens_of, unpack
from lmcompress.coder import BACKENDS
from lmcompress.config import CodecConfig, ModelConfig
from lmcompress.container import LM, Block, Header
from lmcompress.distribution import Distribution
from lmcompress.errors import CorruptError, UnsupportedError
from lmcompress.methods import BlockDecoder
from lmcompress.predictor import NetworkAlone
from lmcompress.tree import Tree
from tests.models import random_model
from tests.test_choice import DATES, GEORGIAN, RECORDS, SENTENCE

ENGINES = ["reference", *(["native"] if "native" in BACKENDS else [])]
CONFIGS = [
    CodecConfig(1024, 0),
    CodecConfig(1024, 16),
    CodecConfig(1024, 18, network=False),
    CodecConfig(1024, 16, light=True),
    CodecConfig(1024, 17, network=False, light=True),
]
TEXT = (Path(__file__).parent.parent / "corpora" / "samples" / "alice29.txt").read_bytes()
MODEL = random_model(ModelConfig(512, 64, 1, 1, 64, 16))
SAMPLES = {
    "empty": b"",
    "one byte": b"x",
    "zeros": bytes(700),
    "text": TEXT[:2100],
    "invalid UTF-8": "Größe 中文".encode()[:-1] * 10 + b"\xff\xed\xa0\x80" + TEXT[:100],
    "noise": random.Random(0).randbytes(200),
}


@pytest.mark.usefixtures("network_used")
@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", SAMPLES)
def test_round_trip_between_engines(name: str, config: CodecConfig) -> None:
    data = SAMPLES[name]
    codecs = [Codec(MODEL, config, engine=engine, threads=1 + i) for i, engine in enumerate(ENGINES)]
    payloads = {codec.encode(data) for codec in codecs}
    assert len(payloads) == 1, "engines differ"
    ((learned, payload),) = payloads
    assert not learned
    for codec in codecs:
        assert codec.decode(payload, len(data)) == data


@pytest.mark.parametrize("config", CONFIGS[1:3])
def test_without_a_model_bytes_are_the_symbols(config: CodecConfig) -> None:
    codec = Codec(None, config)
    learned, payload = codec.encode(TEXT[:20000])
    assert len(payload) < 12000
    assert codec.decode(payload, 20000, learned) == TEXT[:20000]


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=500))
def test_round_trip_of_anything(data: bytes) -> None:
    codec = Codec(MODEL, CONFIGS[1])
    learned, payload = codec.encode(data)
    assert codec.decode(payload, len(data), learned) == data


@pytest.mark.parametrize(
    "text, ways",
    [
        (RECORDS, [PIECES, ALONE, LEARNING]),
        (DATES, [PIECES, ALONE]),
        (SENTENCE, [PIECES]),
        (GEORGIAN, [PIECES, LEARNING]),
    ],
    ids=["records", "dates", "sentence", "georgian"],
)
def test_the_smallest_of_a_texts_ways(text: bytes, ways: list[Way]) -> None:
    """Digits may stay alone, the mixer may do without the network; without one both is so."""
    codec = Codec(modelfile.load("fast"), CodecConfig(1024, 16))
    sizes = {way: codec._size(1, text, forms.PLAIN, text, way) for way in ways}
    told: list[float] = []
    learned, payload = codec.encode(text, told.append)
    of_this_size = [way for way in ways if sizes[way] == len(payload) and way.network != learned]
    assert of_this_size
    assert len(payload) <= (choice.WORTH if learned else 1) * min(sizes.values())
    assert codec.decode(payload, len(text), learned) == text
    tokens = codec.vocabulary.tokenizer.encode(text, of_this_size[0].alone)
    assert head(Reader(payload), len(text), codec.vocabulary.trees)[:2] == (forms.PLAIN, len(tokens))
    assert told == sorted(told) and max(told) < 1
    alone = Codec(modelfile.load("fast"), CodecConfig(1024, 16, network=False))
    learned, payload = alone.encode(text)
    assert not learned and len(payload) == alone._size(1, text, forms.PLAIN, text, LEARNING)


def test_a_network_gets_text_cut_as_what_it_has_read() -> None:
    fast = modelfile.load("fast")
    for card in ({}, {"recipe": {"alone": True}}):
        codec = Codec(dataclasses.replace(fast, card=card), CodecConfig(1024, 0))
        learned, payload = codec.encode(b"1998 " * 9)
        form, n_tokens, *_ = head(Reader(payload), 45, len(fast.depths))
        assert form == forms.PLAIN and (n_tokens == 45 if card else n_tokens < 25)
        assert codec.decode(payload, 45, learned) == b"1998 " * 9


def test_a_block_without_its_network_is_the_same_on_every_engine() -> None:
    text, config = GEORGIAN[:1500], CodecConfig(1024, 16)
    codecs = [Codec(MODEL, config, engine=engine) for engine in ENGINES]
    payloads = {codec.encode(text) for codec in codecs}
    assert len(payloads) == 1
    ((learned, payload),) = payloads
    assert learned, "a network that knows nothing was used"
    assert {codec.decode(payload, len(text), True) for codec in codecs} == {text}


def test_a_block_without_its_network_has_long_lanes() -> None:
    codec = Codec(MODEL, CodecConfig(1024, 16))
    payload = bytes(Writer().varint(2000).varint(2 * len(MODEL.depths))) + bytes(900)
    with pytest.raises(CorruptError, match="more than it can have"):
        codec.decode(payload, 1 << 19, True)
    assert codec._with(False) == CodecConfig(1 << 18, 16, False)
    assert Codec(MODEL, CodecConfig(1 << 20, 16))._with(False) == CodecConfig(1 << 20, 16, False)


@pytest.mark.parametrize("config", [CodecConfig(1024, 0), CodecConfig(1024, 16, network=False)])
def test_what_has_no_network_or_no_mixer_has_no_blocks_without(config: CodecConfig) -> None:
    codec = Codec(MODEL, config)
    learned, payload = codec.encode(TEXT[:900])
    assert not learned and codec.decode(payload, 900) == TEXT[:900]
    with pytest.raises(CorruptError, match="network"):
        codec.decode(payload, 900, True)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("n_lanes", [0, 1, 2])
def test_a_block_in_a_form_without_tokens(config: CodecConfig, n_lanes: int) -> None:
    payload = bytes(Writer().varint(0).put(bytes([forms.CAPITALS])).varint(0).varint(n_lanes)) + bytes(9)
    with pytest.raises(CorruptError):
        Codec(MODEL, config).decode(payload, 20)


@given(st.integers(1, 3000), st.integers(1, 40))
def test_lanes_hold_the_tokens_in_order(n: int, n_lanes: int) -> None:
    n_lanes = min(n, n_lanes)
    lanes, counts = layout(np.arange(n, dtype=np.int32), n_lanes)
    assert np.concatenate([lane[:c] for lane, c in zip(lanes, counts, strict=True)]).tolist() == list(range(n))
    assert tokens_of(lanes, counts).tolist() == list(range(n))
    assert counts.max() - counts.min() <= 1 and (np.diff(counts) <= 0).all()
    assert sum((stop - start) * m for start, stop, m in spans(counts)) == n


def test_the_network_alone_codes_its_own_shares() -> None:
    """The decisions along a symbol's path multiply to its share of the weights."""
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 1 << 20, 200).astype(np.int64)
    from lmcompress.engine.reference import cumulate_weights

    base, local = cumulate_weights(np.stack([weights] * 200))
    tree = Tree(np.array([8] * 144 + [7] * 56, np.uint8))
    said = Distribution(base[:, None], local[:, None], np.zeros((200, 1, 0), np.int8))
    k, bits = NetworkAlone(tree).encode(said, np.arange(200, dtype=np.int32)[:, None])
    p = np.where(bits, k, (1 << 24) - k.astype(np.int64)) / (1 << 24)
    depth, share = np.array([8] * 144 + [7] * 56), np.ones(200)
    active = np.arange(200)
    start = 0
    for level in range(8):
        active = active[depth[active] > level]
        share[active] *= p[start : start + len(active)]
        start += len(active)
    assert np.allclose(share, weights / weights.sum(), rtol=2e-3)


@pytest.mark.parametrize("config", CONFIGS)
def test_a_text_goes_by_the_tree_in_which_its_paths_are_short(config: CodecConfig) -> None:
    low = np.full(512, 10, np.uint8)
    low[:128], low[128:256] = 8, 9  # half of a tree, a quarter, and what is left of it
    model = dataclasses.replace(MODEL, depths=np.array([low[::-1], low]))
    codecs = [Codec(model, config, engine=engine) for engine in ENGINES]
    for token, tree in ((511, 0), (46, 1)):
        text = model.tokenizer.pieces[token] * 40
        assert codecs[0].vocabulary.nearest(np.full(40, token)) == tree
        payloads = {codec.encode(text) for codec in codecs}
        assert len(payloads) == 1
        ((learned, payload),) = payloads
        assert head(Reader(payload), len(text), 2)[2:] == (1, tree)
        assert {codec.decode(payload, len(text), learned) for codec in codecs} == {text}


def test_a_model_whose_depths_are_no_tree_is_refused() -> None:
    for depth in (0, 200, 8):
        with pytest.raises(CorruptError):
            Codec(dataclasses.replace(MODEL, depths=np.full((1, 512), depth, np.uint8)), CONFIGS[1]).encode(TEXT)


@pytest.mark.usefixtures("network_used")
def test_damaged_payloads_give_an_error_or_the_stated_size() -> None:
    codec = Codec(MODEL, CONFIGS[1])
    data = TEXT[:3000]
    payload = codec.encode(data)[1]
    rng = random.Random(1)
    damaged = [payload[: rng.randrange(len(payload))] for _ in range(10)] + [b"", b"\xff" * 40]
    for _ in range(30):
        changed = bytearray(payload)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        damaged.append(bytes(changed))
    for case, learned in itertools.product(damaged, (False, True)):
        try:
            assert len(codec.decode(case, len(data), learned)) == len(data)
        except CorruptError:
            pass


def test_headers_that_ask_for_too_much_are_refused() -> None:
    codec = Codec(MODEL, CONFIGS[0])
    for payload in (b"\xff\xff\xff\xff\x7f\x01", b"\x10\x00", b"\x10\xff\x7f", b"\x10\x09"):
        with pytest.raises(CorruptError):
            codec.decode(payload, 2000)
    with pytest.raises(CorruptError):
        codec.decode(b"\x01\x01\x00", 0)
    assert MAX_LANES <= 1024


def test_memory_counts_tables_lanes_and_text() -> None:
    def memory(config: CodecConfig, size: int) -> int:
        return Codec(MODEL, config).memory(size)

    few, many = CodecConfig(1 << 20, 22), CodecConfig(1, 22)
    assert memory(few, 1 << 20) >= (1 << 22) + 20 * (1 << 20)
    state = 2 * 64 * MODEL.config.n_layer * MODEL.config.window  # bytes, of keys and values
    assert memory(many, 1 << 20) - memory(few, 1 << 20) >= (1024 - 1) * state
    assert memory(CodecConfig(1 << 10, 22, network=False), 1 << 20) < memory(many, 1 << 20)
    tables, weights = 5 << 20, 2 * MODEL.config.vocab_size * MODEL.config.d_model
    assert memory(few, 1 << 20) - memory(CodecConfig(1 << 20, 0), 1 << 20) >= tables + weights


@pytest.mark.parametrize("mixer_bits", [0, 16])
def test_a_network_without_a_model_is_no_header(mixer_bits: int) -> None:
    header = Header(20, pack(CodecConfig(1 << 14, mixer_bits)))
    block = Block(LM, 9, 2, 0, crc32(b"ab"), b"ab")
    with pytest.raises(CorruptError, match="no model"):
        BlockDecoder(header, None, 1, 1 << 30).open(block)


@pytest.mark.parametrize("config", CONFIGS)
def test_parameters_come_back(config: CodecConfig) -> None:
    assert unpack(pack(config)) == config


def test_documents_name_the_version_of_the_mixer() -> None:
    version, docs = VERSION >> 2, Path(__file__).parent.parent / "docs"
    assert f"the mixer's arithmetic, {version}, so that flags are {4 * version} and" in (docs / "FORMAT.md").read_text()
    assert (
        (docs / "MIXER.md")
        .read_text()
        .startswith(f"# The mixer: every operation (version {version} of its arithmetic)\n")
    )


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"\x0e\x16", b"\x05\x16\x15", b"\x0e\x28\x15", b"\x0e\x00\x14", b"\x0e\x00\x17"),
        *(b"\x0e\x16\x01", b"\x0e\x16\x0d", b"\x0e\x16\x19"),  # another version of the mixer
    ],
)
def test_unknown_parameters_are_refused(data: bytes) -> None:
    with pytest.raises(UnsupportedError):
        unpack(data)

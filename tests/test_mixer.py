"""The mixer: reference and compiled one give the same integers, step by step and whole steps, with and without a
model's weights; and it learns."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lmcompress import ngrams
from lmcompress.coder import BACKENDS, Decoder, Encoder
from lmcompress.config import ModelConfig
from lmcompress.distribution import Distribution
from lmcompress.engine.reference import cumulate_weights
from lmcompress.errors import CorruptError
from lmcompress.mixer import prior, reference, tables
from lmcompress.tokenizer import Tokenizer, byte_tokenizer
from lmcompress.training.data import is_set_aside
from lmcompress.tree import Tree, weight_balanced

native = pytest.importorskip("lmcompress.mixer.native")
_native = pytest.importorskip("lmcompress._native")

SAMPLES = Path(__file__).parent.parent / "corpora" / "samples"
PROSE = """It was a bright cold day in the harbour, and the boats were coming in.
"Where is he?" said the old man; "he was to be here at nine, and it is ten."
Nobody knew. Die Straße war leer, und niemand wußte, wohin er gegangen war. 港口很冷，船都回来了。
"""
LOG = "".join(
    f"2024-03-{1 + i // 40:02} 12:{i % 60:02}:{i * 7 % 60:02} host{i % 3} app[{1000 + i // 5}]: "
    + ("session opened for user root by (uid=0)\n", f"connection from 10.0.0.{i * 37 % 251} closed\n")[i * i % 3 == 1]
    for i in range(120)
)
TABLE = "id,name,price,\t|note\n" + "".join(
    f'{i},"item {i % 7}, large",{i * 31 % 900}.{i % 10}0,,{"yes" if i % 4 else "no"};{"x" * (i % 5)}\n'
    for i in range(90)
)
CODE = "".join(f"    if value_{i % 5} > {i}:\n        total += table[value_{i % 5}]\n\n" for i in range(30))
LONG_LINE = ",".join(str(i * i) for i in range(150)) + "\n" + "  " * 300 + "\n"
TEXTS = {"prose": PROSE, "log": LOG[:1200], "table": TABLE[:1200], "code": CODE[:800], "long line": LONG_LINE}


def vocabulary() -> Tokenizer:
    """Bytes and the pairs and longer pieces that the test texts have often; a size that 64 does not divide."""
    everything = "".join(TEXTS.values()).encode()
    counts: dict[bytes, int] = {}
    for length in (2, 3, 5):
        for i in range(len(everything) - length):
            piece = everything[i : i + length]
            counts[piece] = counts.get(piece, 0) + length
    pieces = sorted(counts, key=lambda p: (-counts[p], p))[:170] + [bytes([i]) for i in range(256)]
    pieces.sort()
    return Tokenizer(tuple(pieces), tuple(100 + 10 * len(p) for p in pieces))


def steps(tokens: np.ndarray, n_lanes: int) -> list[np.ndarray]:
    """The tokens of each step, laid out as a block's lanes are."""
    lanes = np.array_split(tokens, n_lanes)  # the first ones have one more
    return [np.array([lane[t] for lane in lanes if t < len(lane)], np.int32) for t in range(len(lanes[0]))]


FEATURES = 128


def said(rng: np.random.Generator, shape: tuple[int, int], V: int) -> Distribution:
    """What a network might say of steps [n, T]; features as extreme as they can be, or small."""
    n = shape[0] * shape[1]
    weights = (2.0 ** rng.uniform(0, 24, (n, V))).astype(np.int64) + 1
    weights[:, rng.integers(V)] = (1 << 24) + 1
    features = rng.integers(-127, 128, (n, FEATURES)) >> rng.integers(0, 7, (n, 1))
    return Distribution(*(a.reshape(*shape, -1) for a in (*cumulate_weights(weights), features.astype(np.int8))))


def cost(k: np.ndarray, bits: np.ndarray) -> float:
    p = k / 2**24
    return float(-np.log2(np.where(bits, p, 1 - p)).sum())


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
@pytest.mark.parametrize("n_lanes", [1, 3, 8])
@pytest.mark.parametrize("name", TEXTS)
def test_native_is_the_reference(name: str, n_lanes: int, light: bool) -> None:
    tokenizer = vocabulary()
    tokens = tokenizer.encode(TEXTS[name].encode()).astype(np.int32)
    tree = Tree(weight_balanced(np.bincount(tokens, minlength=tokenizer.vocab_size) + 1))
    args = (tree, tokenizer.pieces, 16, n_lanes, len(tokens), light, FEATURES)
    a, b = reference.Mixer(*args), native.Mixer(*args)
    rng = np.random.default_rng(0)
    for i, step in enumerate(steps(tokens, n_lanes)):
        network = said(rng, (len(step), 1), tokenizer.vocab_size) if i % 3 else None
        k, bits = a.encode(network, step[:, None])
        k_native, bits_native = b.encode(network, step[:, None])
        np.testing.assert_array_equal(bits, bits_native)
        np.testing.assert_array_equal(k, k_native)
        assert k.dtype == k_native.dtype == np.uint32


def table_for(tokens: np.ndarray, n_lines: int) -> np.ndarray:
    """N-grams of half of the contexts of lanes int [L, T], of all lengths, a third of them wrong."""
    rng = np.random.default_rng(1)
    keys, expected = np.zeros((n_lines, ngrams.WAYS), np.uint16), np.zeros((n_lines, ngrams.WAYS), np.uint16)
    for lane in tokens.tolist():
        for t, token in enumerate(lane):
            h = 1
            for n, before in enumerate([*lane[:t][::-1], *[0] * 6][:6], 1):
                h = reference.hash64(h, before)
                line = (h >> 32) * n_lines >> 32
                way = int((keys[line] > 0).sum())
                if n in ngrams.ORDERS and way < ngrams.WAYS and rng.random() < 0.5:
                    keys[line, way] = max(1, h & ngrams.CHECK) * ngrams.CLASSES + rng.integers(ngrams.CLASSES)
                    expected[line, way] = token if rng.random() < 0.7 else rng.integers(256)
    return ngrams.table_of(keys, expected)


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
@pytest.mark.parametrize("n_lines", [1, 77, 1000])
def test_n_grams(n_lines: int, light: bool) -> None:
    tokenizer = vocabulary()
    tokens = tokenizer.encode((PROSE + LOG[:900]).encode()).astype(np.int32)
    tokens = tokens[: len(tokens) // 3 * 3].reshape(3, -1)
    tree = Tree(weight_balanced(np.bincount(tokens.ravel(), minlength=tokenizer.vocab_size) + 1))
    args = (tree, tokenizer.pieces, 16, 3, tokens.size, light, 0)
    table = table_for(tokens, n_lines)
    a, b, without = reference.Mixer(*args, table), native.Mixer(*args, table), native.Mixer(*args)
    found, costs = set(), np.zeros(2)
    for t in range(tokens.shape[1]):
        a.begin(None, 3)
        found |= {lane.rows[4] for lane in a.lanes if lane.guesses[4] >= 0}
        ks, bits = [], []
        while len(k := a.predict()):
            bits.append(np.array([tokens[lane.number, t] >= tree.mid[lane.node] for lane in a.predicted], np.uint8))
            ks.append(k)
            a.update(bits[-1])
        k, same_bits = b.encode(None, tokens[:, t : t + 1])
        np.testing.assert_array_equal(np.concatenate(ks), k)
        np.testing.assert_array_equal(np.concatenate(bits), same_bits)
        costs += cost(k, same_bits), cost(*without.encode(None, tokens[:, t : t + 1]))
    assert len(found) > (5 if n_lines == 1 else 25) and {row // 8 for _, row in found} == {0, 1, 2, 3}
    assert n_lines == 1 or costs[0] < 0.97 * costs[1]


def test_n_grams_have_whole_lines() -> None:
    tokenizer = byte_tokenizer()
    with pytest.raises(ValueError, match="belong together"):
        native.Mixer(Tree(np.full(256, 8, np.uint8)), tokenizer.pieces, 16, 1, 9, False, 0, np.zeros(33, np.uint16))


def test_bytes_without_a_model() -> None:
    data = np.frombuffer((LOG[:600] + PROSE).encode(), np.uint8).astype(np.int32)
    args = (Tree(np.full(256, 8, np.uint8)), byte_tokenizer().pieces, 18, 2, len(data))
    a, b = reference.Mixer(*args), native.Mixer(*args)
    for step in steps(data, 2):
        np.testing.assert_array_equal(a.encode(None, step[:, None])[0], b.encode(None, step[:, None])[0])


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
@pytest.mark.parametrize("n_lanes", [1, 4])
def test_cells_at_their_bounds(n_lanes: int, light: bool) -> None:
    """Counts that end, a third token, lines that forget, contexts that several lanes meet in the same step."""
    rng = np.random.default_rng(0)
    text = b"ab" * 100 + b"ac" * 40 + b"ad" + b"ab" * 9 + rng.integers(97, 123, 900).astype(np.uint8).tobytes()
    data = np.tile(np.frombuffer(text, np.uint8).astype(np.int32), (n_lanes, 1))  # all lanes have the same
    args = (Tree(np.full(256, 8, np.uint8)), byte_tokenizer().pieces, 16, n_lanes, data.size, light)
    a, b = reference.Mixer(*args), native.Mixer(*args)
    most, contexts = [0, 0], set()
    for t in range(len(text)):
        k, bits = a.encode(None, data[:, t : t + 1])
        np.testing.assert_array_equal(k, b.encode(None, data[:, t : t + 1])[0])
        contexts.update(c for lane in a.lanes for c in lane.context)
        cells = [cell for line in a.cells.values() for cell in line]
        most = [max(most[0], *(cell.n for cell in cells)), max(most[1], *(cell.k for cell in cells))]
    assert most == [63, 15] and any(cell.many for cell in cells)
    assert max(map(len, a.cells.values())) == reference.CELLS
    assert len(cells) < len(contexts)


def test_a_cell_says_what_a_bucket_would() -> None:
    """Of a context that two tokens have followed, one after the other, the slots are those that its decisions would have left."""
    for side, other, n, k in [(0, 0, 1, 0), (1, 0, 3, 0), (0, 1, 2, 5), (1, 0, 63, 15), (1, 1, 7, 2), (0, 1, 0, 4)]:
        slot = 0
        for bit in [side] * n + [other] * k:
            slot = tables.moved(slot, bit)
        at = side << 11 | other << 10 | n << 4 | k
        assert tables.SETTLED[at] == slot and slot & 15 == min(12, n + k)
        alone = n == 0 or k == 0 or side == other
        assert (tables.CELL_ROW[at] >= tables.CELL_ROWS) == alone
    assert (tables.CELL_ROW < 512).all() and len(
        set(tables.CELL_ROW[tables.CELL_ROW >= tables.CELL_ROWS].tolist())
    ) > 80
    assert not tables.SETTLED[0::1024].any()  # never seen


@pytest.mark.parametrize("implementation", [reference, native], ids=["reference", "native"])
def test_decoding_follows_encoding(implementation) -> None:
    tokenizer = vocabulary()
    tokens = tokenizer.encode(LOG[:1500].encode()).astype(np.int32)
    tree = Tree(weight_balanced(np.bincount(tokens, minlength=tokenizer.vocab_size) + 1))
    one, other = (implementation.Mixer(tree, tokenizer.pieces, 20, 5, len(tokens)) for _ in range(2))
    for step in steps(tokens, 5):
        k, bits = one.encode(None, step[:, None])
        other.begin(None, len(step))
        at = 0
        while len(now := other.predict()):
            np.testing.assert_array_equal(now, k[at : at + len(now)])
            other.update(bits[at : at + len(now)])
            at += len(now)
        assert at == len(k)
        np.testing.assert_array_equal(other.tokens(), step)


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_steps_decode_with_every_coder(backend: str, light: bool) -> None:
    tokenizer = vocabulary()
    tokens = tokenizer.encode(TABLE[:1500].encode()).astype(np.int32)
    tokens = tokens[: len(tokens) // 3 * 3].reshape(3, -1)
    tree = Tree(weight_balanced(np.bincount(tokens.ravel(), minlength=tokenizer.vocab_size) + 1))
    one, other, third = (native.Mixer(tree, tokenizer.pieces, 20, 3, tokens.size, light, FEATURES) for _ in range(3))
    coder = Encoder(backend)
    rng = np.random.default_rng(1)
    network = []
    for at in range(0, tokens.shape[1], 7):
        part = tokens[:, at : at + 7]
        network.append(said(rng, part.shape, tokenizer.vocab_size) if at % 2 else None)
        k, bits = one.encode(network[-1], part)
        coder.encode(bits, k)
    data = coder.finish()
    out = np.full(tokens.shape, -1, np.int32)
    coder = Decoder(data, backend)
    for i, step in enumerate(network):
        other.decode(coder, step, out[:, 7 * i : 7 * i + 7])
    np.testing.assert_array_equal(out, tokens)
    if backend == "native":
        with pytest.raises(CorruptError):
            third.decode(Decoder(b"\xff" * 99, backend), None, out)
        with pytest.raises(ValueError):
            one.decode(coder, None, out.astype(np.int64))


def test_whole_texts_and_what_they_cost() -> None:
    """Long enough for tables to fill up, counts to reach their bounds and buckets to be replaced."""
    tokenizer = vocabulary()
    text = (LOG + TABLE + CODE).encode()
    tokens = tokenizer.encode(text).astype(np.int32)
    tree = Tree(weight_balanced(np.bincount(tokens, minlength=tokenizer.vocab_size) + 1))
    a, b = (m.Mixer(tree, tokenizer.pieces, 16, 4, len(tokens)) for m in (reference, native))
    total = 0.0
    for step in steps(tokens, 4):
        k, bits = a.encode(None, step[:, None])
        np.testing.assert_array_equal(k, b.encode(None, step[:, None])[0])
        assert k.min() >= 1 and k.max() < 1 << 24
        total += cost(k, bits)
    assert total / len(text) < 0.9  # bits per byte; xz -9e needs 0.900


@pytest.mark.parametrize("implementation", [reference, native], ids=["reference", "native"])
def test_calls_out_of_order(implementation) -> None:
    mixer = implementation.Mixer(Tree(np.full(256, 8, np.uint8)), byte_tokenizer().pieces, 16, 2, 100)
    assert len(mixer.predict()) == 0
    with pytest.raises(ValueError):
        mixer.begin(None, 3)
    mixer.begin(None, 2)
    with pytest.raises(ValueError):
        mixer.begin(None, 2)
    with pytest.raises(ValueError):
        mixer.tokens()
    mixer.predict()
    with pytest.raises(ValueError):
        mixer.predict()
    with pytest.raises(ValueError):
        mixer.update(np.zeros(1, np.uint8))


def test_native_refuses_wrong_weights() -> None:
    mixer = native.Mixer(Tree(np.full(256, 8, np.uint8)), byte_tokenizer().pieces, 16, 2, 100, False, 64)
    base, local = cumulate_weights(np.ones((2, 1, 256), np.int64))
    right = Distribution(base, local, np.ones((2, 1, 64), np.int8))
    for wrong in [
        right._replace(base=base[:1]),
        right._replace(base=base.astype(np.uint32)),
        right._replace(local=local[..., :255]),
        right._replace(features=right.features[..., :63]),
        right._replace(features=right.features.astype(np.int16)),
        right[:2],
        list(right),
    ]:
        with pytest.raises((ValueError, TypeError)):
            _native.mixer_begin(mixer.capsule, wrong, 2)
    with pytest.raises(ValueError):
        mixer.encode(None, np.array([[256]], np.int32))
    mixer.begin(Distribution(*(array[:, 0] for array in right)), 2)
    assert len(mixer.predict()) == 2


@pytest.mark.parametrize(("n_features", "loud"), [(64, 2), (64, 30), (2048, 2048)])
def test_the_correction_at_its_bounds(n_features: int, loud: int) -> None:
    """Features that always say the same: the weights grow until they may not, or the sum does."""
    tree, T = Tree(np.full(256, 8, np.uint8)), 400
    a, b = (m.Mixer(tree, byte_tokenizer().pieces, 16, 2, 2 * T, True, n_features) for m in (reference, native))
    features = np.zeros((2, T, n_features), np.int8)
    features[..., :loud:2], features[..., 1:loud:2] = 127, -127
    network = Distribution(*cumulate_weights(np.ones((2, T, 256), np.int64)), features)
    tokens = np.tile(np.array([[255], [254]], np.int32), (1, T))
    k, _ = a.encode(network, tokens)
    np.testing.assert_array_equal(k, b.encode(network, tokens)[0])
    bounds = a.correction.weights.min(), a.correction.weights.max()
    assert bounds == (-8192, 8192) if loud == 2 else bounds[1] > 0


def round_log2(a: int, b: int, unit: int) -> int:
    """unit * log2(a / b), rounded to the nearest integer, for integers a, b > 0."""
    if a < b:
        return -round_log2(b, a, unit)
    # 2 unit log2(a/b) = log2((a/b)^(2 unit)); its floor f gives the rounded value (f + 1) // 2
    num, den = a ** (2 * unit), b ** (2 * unit)
    f = num.bit_length() - den.bit_length()
    if num < den << f:
        f -= 1
    return (f + 1) // 2


def power(numerator: int, bits: int) -> int:
    """floor(2^bits * 2^(numerator / 64)) for 0 <= numerator < 64."""
    target = 1 << (64 * bits + numerator)
    low, high = 1 << bits, 2 << bits
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if middle**64 <= target else (low, middle)
    return low


def squash() -> list[int]:
    """round(2^24 / (1 + 2^(-i/64))) for i = -1280 to 1281."""
    powers = [power(i, 40) for i in range(64)]  # 2^(i/64), 40 bits after the point
    table = []
    for i in range(-1280, 1282):
        whole, part = divmod(i, 64)
        odds = powers[part] << (whole + 20)  # 2^(i/64), 60 bits after the point
        table.append((2 * (odds << 24) + odds + (1 << 60)) // (2 * (odds + (1 << 60))))
    return table


def test_tables() -> None:
    """Exact integer arithmetic gives the same, and no entry is near a half, so that no other floating point would not."""
    odds = [(2 * i + 1, 8191 - 2 * i) for i in range(4096)]
    np.testing.assert_array_equal(tables.STRETCH, [round_log2(a, b, 256) for a, b in odds])
    np.testing.assert_array_equal(tables.LOG2, [round_log2(2049 + 2 * i, 2048, 256) for i in range(1024)])
    np.testing.assert_array_equal(tables.SQUASH, squash())
    i = np.arange(2562)
    values = (
        256 * np.log2([a / b for a, b in odds]),
        256 * np.log2((2049 + 2 * i[:1024]) / 2048),
        2**24 / (1 + 2.0 ** ((1280 - i) / 64)),
    )
    for value in values:
        assert np.abs(value - np.floor(value) - 0.5).min() > 1e-4


def test_short_texts_have_small_tables() -> None:
    table, run, match, indirect = tables.sizes(26, 300)
    assert (64 << table) + (32 << run) + (16 << match) + (8 << indirect) < 1 << 20
    assert tables.sizes(22, 10**7)[0] == 15


@pytest.mark.parametrize("light", [False, True], ids=["full", "light"])
def test_what_is_known_at_first(light: bool) -> None:
    from benchmarks.prior import ignorant

    tokenizer, parts = vocabulary(), prior.LIGHT if light else prior.FULL
    text = (SAMPLES / "alice29.txt").read_bytes()[1000:5000]
    tokens = tokenizer.encode(text).astype(np.int32)[None]
    V = tokenizer.vocab_size
    tree = Tree(weight_balanced(np.bincount(tokens[0], minlength=V) + 1))
    nothing, args = ignorant(parts, V), (tree, tokenizer.pieces, 18, 1, tokens.size, light)
    knowing, other = native.Mixer(*args), native.Mixer(*args, first=nothing)
    for name in vars(nothing):
        np.testing.assert_array_equal(getattr(knowing.learned(), name), getattr(prior.first(light, False, V), name))
        np.testing.assert_array_equal(getattr(other.learned(), name), getattr(nothing, name))
    assert cost(*knowing.encode(None, tokens)) < 0.99 * cost(*other.encode(None, tokens))
    # a summary weighs what moved
    learned = other.learned()
    entry = prior.summary(learned, light, nothing, V)
    assert np.shape(entry["weights"]) == (parts.sets, parts.inputs)
    assert np.shape(entry["slots"]["p"]) == (512,) and np.shape(entry["guesses"]["n"]) == (parts.guesses, 80)
    moved = learned.weights[:V] != nothing.weights[:V]
    span = [learned.weights[:V][moved.any(1)].min(0), learned.weights[:V][moved.any(1)].max(0)]
    assert all(low <= w <= high for w, low, high in zip(entry["weights"][0], *span, strict=False))
    with pytest.raises(ValueError, match="belong together"):
        native.Mixer(*args, first=ignorant(parts, V + 1))


def test_prior_of_a_folder(tmp_path) -> None:
    from benchmarks.prior import make
    from tests.models import random_model

    (tmp_path / "some").mkdir()
    texts = (f"{PROSE}{LOG}{i}".encode() for i in range(10_000))
    (tmp_path / "some" / "text").write_bytes(next(text for text in texts if is_set_aside(text)))
    made = json.loads(make(tmp_path, random_model(ModelConfig(256, 64, 1, 1, 64, 8)), 3000))
    kept = json.loads(prior.FILE.read_text())
    assert made.keys() == kept.keys()
    for kind, entry in made.items():
        for name, values in entry.items():
            same = kept[kind][name]
            assert np.shape(values) == np.shape(same) if isinstance(values, list) else values.keys() == same.keys()

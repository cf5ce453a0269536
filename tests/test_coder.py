"""The range coder: three backends, one bitstream; the shortest one; and no data that does harm."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lmcompress.coder import BACKENDS, ONE, Decoder, Encoder
from lmcompress.errors import CorruptError

EXTREMES = [1, 2, 3, ONE // 2 - 1, ONE // 2, ONE // 2 + 1, ONE - 3, ONE - 2, ONE - 1]
K = st.one_of(st.sampled_from(EXTREMES), st.integers(1, ONE - 1))
DECISIONS = st.lists(st.tuples(st.integers(0, 1), K), max_size=200)

each_backend = pytest.mark.parametrize("backend", BACKENDS)


def encode(bits, k, backend, calls=1):
    encoder = Encoder(backend)
    for part in np.array_split(np.arange(len(bits)), calls):
        encoder.encode(bits[part], k[part])
    return encoder.finish()


def decode(data, k, backend, calls=1):
    decoder = Decoder(data, backend)
    parts = [decoder.decode(k[part]) for part in np.array_split(np.arange(len(k)), calls)]
    return np.concatenate(parts)


def outcome(data, k, backend):
    """Bits, or CorruptError: all that decoding may come to."""
    try:
        return decode(data, k, backend).tolist()
    except CorruptError as error:
        return str(error)


def check(bits, k, calls=1):
    """The bytes, after checking that every backend writes them and reads them back."""
    bits, k = np.asarray(bits, np.uint8), np.asarray(k, np.uint32)
    data = {encode(bits, k, backend, calls) for backend in BACKENDS}
    assert len(data) == 1
    (data,) = data
    for backend in BACKENDS:
        decoded = decode(data, k, backend, calls)
        assert decoded.dtype == np.uint8 and np.array_equal(decoded, bits)
    return data


def test_all_backends_are_here():
    assert BACKENDS == ("constriction", "native", "plain")
    assert Encoder().backend == Decoder(b"").backend == "constriction"


def test_by_hand():
    # [0, 1) is cut at f0 = 3/4 - 2^-24; of bit 1's part, [3/4 - 2^-24, 1), 0xC0 / 256 has fewest digits
    assert check([1], [ONE // 4]) == b"\xc0"
    # bit 0 has [0, f0), and 0 has no digits at all
    assert check([0], [ONE // 4]) == b""
    assert check([0] * 100, [1] * 100) == b""
    # the rarest decision costs 23 or 24 bits: the interval begins at 1 - 2^-23, or ends at 2^-24
    assert check([1], [1]) == b"\xff\xff\xfe"
    assert check([0], [ONE - 1]) == b""
    assert check([0, 1], [ONE - 1, ONE // 2]) == b"\x00\x00\x00\x80"


def test_no_decisions():
    assert check([], []) == b""


@settings(max_examples=300, deadline=None)
@given(DECISIONS, st.integers(1, 5))
@example([(1, 1)] * 40, 1)
@example([(0, ONE - 1)] * 40, 1)
@example([(1, ONE - 1)] * 40, 1)
def test_round_trip(decisions, calls):
    check([bit for bit, _ in decisions], [k for _, k in decisions], calls)


@pytest.mark.parametrize("k", EXTREMES)
@pytest.mark.parametrize("bit", [0, 1])
def test_long_runs(k, bit):
    data = check(np.full(20000, bit), np.full(20000, k))
    assert len(data) <= 20000 * -np.log2((k if bit else ONE - k - 1 or 1) / ONE) / 8 + 5


def test_carry_through_many_words():
    """Every decision takes the part of the interval that holds 1/2, until the last but one settles on which side of it the
    number is: then a carry runs through all words, or does not."""
    width, bits, k = (1 << 64) - 1, [], []
    middle = 1 << 63  # relative to low, in units that shrink as in the coder
    while True:
        scale = width >> 24
        share = middle // scale + 1 - len(bits) % 2  # bit 0's ends just above the middle, or just below
        k1 = min(max(ONE - share - (share > ONE // 2), 1), ONE - 1)
        k.append(k1)
        if len(bits) == 300:
            break
        split = scale * (ONE - k1 - (k1 < ONE // 2))
        bit = int(middle >= split)
        width = (scale << 24) - split if bit else split
        middle -= split * bit
        bits.append(bit)
        if width < 1 << 32:
            width, middle = width << 32, middle << 32
    below = check([*bits, 0, 0, 1], [*k, ONE // 2, ONE // 3])
    above = check([*bits, 1, 0, 1], [*k, ONE // 2, ONE // 3])
    assert below.startswith(b"\x7f" + b"\xff" * 99) and above.startswith(b"\x80" + bytes(99))


def test_a_million_decisions_cost_what_they_should():
    rng = np.random.default_rng(1)
    k = rng.integers(1, ONE, 1_000_000).astype(np.uint32)
    bits = (rng.integers(0, ONE, len(k)) < k).astype(np.uint8)
    data = encode(bits, k, BACKENDS[0])
    assert data == encode(bits, k, BACKENDS[1], calls=100)
    for backend in BACKENDS[:2]:
        assert np.array_equal(decode(data, k, backend, calls=100), bits)
    ideal = -np.log2(np.where(bits, k, ONE - k) / ONE).sum() / 8
    assert ideal - 1 < len(data) < ideal * 1.0003 + 1  # an interval's remainder below 2^-8 of it is lost each time
    part = slice(100_000)
    assert encode(bits[part], k[part], "plain") == encode(bits[part], k[part], BACKENDS[0])
    assert np.array_equal(decode(data, k[part], "plain"), bits[part])


@each_backend
def test_shortest(backend):
    """No string of fewer bytes decodes to the same decisions, whatever its last byte."""
    rng = np.random.default_rng(2)
    for _ in range(200):
        n = rng.integers(0, 40)
        k = rng.integers(1, ONE, n).astype(np.uint32)
        bits = rng.integers(0, 2, n).astype(np.uint8)
        data = encode(bits, k, backend)
        assert data == data.rstrip(b"\0")
        shorter = {data[:-1], data[:-2]}
        if len(data) > 1:
            shorter.add((int.from_bytes(data[:-1], "big") + 1).to_bytes(len(data), "big")[1:])
        for other in shorter - {data}:
            assert outcome(other, k, backend) != bits.tolist()


@each_backend
def test_zeros_follow_the_data(backend):
    rng = np.random.default_rng(3)
    k = rng.integers(1, ONE, 500).astype(np.uint32)
    bits = rng.integers(0, 2, 500).astype(np.uint8)
    data = encode(bits, k, backend)
    for more in range(12):
        assert np.array_equal(decode(data + bytes(more), k, backend), bits)


@each_backend
def test_more_after_finish(backend):
    k = np.full(100, ONE // 3, np.uint32)
    bits = (np.arange(100) % 3 == 0).astype(np.uint8)
    encoder = Encoder(backend)
    encoder.encode(bits, k)
    first = encoder.finish()
    assert encoder.finish() == first == encode(bits, k, backend)
    encoder.encode(bits, k)
    assert encoder.finish() == encode(np.tile(bits, 2), np.tile(k, 2), backend)


@each_backend
def test_impossible_data(backend):
    """The interval of an encoder ends a little below 1, and rounding leaves parts of it unused: nothing is coded there."""
    with pytest.raises(CorruptError, match="no encoder"):
        decode(b"\xff" * 8, np.array([ONE // 2], np.uint32), backend)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64), st.lists(K, max_size=300))
@example(b"\xff" * 64, [ONE - 1] * 300)
@example(b"", [1] * 300)
def test_any_data_is_decoded_alike(data, k):
    k = np.array(k, np.uint32)
    first, *others = (outcome(data, k, backend) for backend in BACKENDS)
    assert all(other == first for other in others)


def test_truncation_and_damage():
    rng = np.random.default_rng(4)
    k = rng.integers(1, ONE, 400).astype(np.uint32)
    bits = (rng.integers(0, ONE, len(k)) < k).astype(np.uint8)
    data = encode(bits, k, BACKENDS[0])
    for end in range(len(data)):
        results = [outcome(data[:end], k, backend) for backend in BACKENDS]
        assert results[0] != bits.tolist() and results.count(results[0]) == len(results)
    for _ in range(200):
        damaged = bytearray(data)
        damaged[rng.integers(len(data))] ^= rng.integers(1, 256)
        results = [outcome(bytes(damaged), k, backend) for backend in BACKENDS]
        assert results.count(results[0]) == len(results)


def test_native_refuses_what_would_break_it():
    for bits, k in (([0], [0]), ([0], [ONE]), ([2], [5]), ([0], [5, 5])):
        with pytest.raises(ValueError):
            Encoder("native").encode(np.array(bits, np.uint8), np.array(k, np.uint32))
    for k in (0, ONE, 2**32 - 1):
        with pytest.raises(ValueError):
            Decoder(b"abc", "native").decode(np.array([k], np.uint32))

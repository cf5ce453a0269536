"""Any bytes to ids and back; the compiled segmentation is the plain one."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcompress import tokenizer as module
from lmcompress.tokenizer import Tokenizer, byte_tokenizer, segment_reference

WORDS = (
    [
        b"th",
        b"the",
        b" the",
        b"he",
        b"in",
        b"ing",
        b" a",
        b"and",
        b" and",
        b"\r\n",
        b"    ",
        b"aa",
        b"aaa",
        b"aaaaa",
        b"\0\0",
    ]
    + "der Straße 的 了 一个 人工智能 é ї 🙂".encode().split()
    + [b"\xc3", b"\xe7\x9a", b"12", b" 1", b"1.", b"fa", b"face", b"FA"]
)
SINGLES = [bytes([i]) for i in range(256)]
PIECES = tuple(SINGLES + [word for word in dict.fromkeys(WORDS) if len(word) > 1])
# cheap long pieces, with ties and with pieces that never pay
COSTS = tuple([60] * 256 + [40 + 7 * i % 90 for i in range(len(PIECES) - 256)])
TOKENIZER = Tokenizer(PIECES, COSTS)

TEXT = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(str.encode),
    st.lists(st.sampled_from(PIECES), max_size=100).map(b"".join),
    st.text("ato hen\0", max_size=300).map(str.encode),
    st.lists(st.text("12faFAthe", max_size=9), max_size=30).map(lambda words: " ".join(words).encode()),
)


def check(data, tokenizer=TOKENIZER, alone=False):
    ids = tokenizer.encode(data, alone)
    assert ids.dtype == np.uint16 and (ids < tokenizer.vocab_size).all()
    assert tokenizer.decode(ids) == data
    assert tokenizer.size(ids) == len(data)
    return ids


@settings(max_examples=500, deadline=None)
@given(TEXT, st.booleans())
def test_round_trip_and_reference(data, alone):
    assert np.array_equal(check(data, alone=alone), segment_reference(PIECES, COSTS, data, alone))


@pytest.mark.parametrize(
    "text",
    [
        "1|2|1|2",  # digits
        "face| the| |1|2|1|.",
        "f|a|c|e|1",  # four hexadecimal digits of one case, some of them letters
        "F|A|C|E|1",
        "FA|c|e|1",
        "fa|1",  # three
        "-|f|a|c|e|1|-",
        "face|x|1",
        "th|1|2|the",  # two changes between letters and digits
        "t|h|1|t|h|2",  # three
        "1|t|h|e|2|t|h|e",
        "1|the|2",
        "th|1|_|th|2",  # words are of letters and digits
        "é|1|2|the|ї|1",
    ],
)
def test_codes_and_digits(text):
    """What is alone is a piece by itself, the rest is cut as ever."""
    expected = text.encode().split(b"|")
    ids = check(b"".join(expected), alone=True)
    assert [PIECES[i] for i in ids] == expected


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_bytes(data):
    assert check(data, byte_tokenizer()).tolist() == list(data)


def test_bytes_in_another_order():
    order = list(range(256))
    random.Random(0).shuffle(order)
    tokenizer = Tokenizer(tuple(bytes([i]) for i in order), (1,) * 256)
    assert tokenizer.decode(tokenizer.encode(bytes(range(256)))) == bytes(range(256))
    assert tokenizer.pieces[tokenizer.encode(b"A")[0]] == b"A"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, len(PIECES) - 1), max_size=100))
def test_ids_that_no_segmentation_gives(ids):
    assert TOKENIZER.decode(np.array(ids, np.int32)) == b"".join(PIECES[i] for i in ids)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(min_size=2, max_size=4), max_size=20, unique=True),
    st.data(),
    st.text("ab", max_size=10).map(str.encode),
)
def test_cheapest_of_all(more, data, text):
    """Against every segmentation there is; among equals the last piece is shortest, then the last but one."""
    pieces = tuple(dict.fromkeys([*SINGLES, b"ab", b"ba", b"aab", b"abab", *more]))
    costs = tuple(data.draw(st.lists(st.integers(1, 5), min_size=len(pieces), max_size=len(pieces))))
    index = {piece: i for i, piece in enumerate(pieces)}
    every = []
    for cuts in itertools.product([False, True], repeat=max(len(text) - 1, 0)):
        edges = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(text)] if text else [0]
        parts = [text[a:b] for a, b in itertools.pairwise(edges)]
        if all(part in index for part in parts):
            ids = [index[part] for part in parts]
            every.append((sum(costs[i] for i in ids), [len(part) for part in reversed(parts)], ids))
    expected = min(every)[2]
    assert segment_reference(pieces, costs, text).tolist() == expected
    assert Tokenizer(pieces, costs).encode(text).tolist() == expected


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0" * 1000,
        b"\xff\xfe\xfd" * 50,
        b"the \xed\xa0\x80 lone surrogate \xed\xbf\xbf",
        "cut 的".encode()[:-1],
        "cut 的".encode()[-1:],
        b"\xc0\xaf overlong \xf8\x88\x80\x80\x80",
        "\u2028\u0085 line ends \r\r\n\n".encode(),
        bytes(range(256)) * 3,
    ],
)
def test_odd_bytes(data):
    assert np.array_equal(check(data), segment_reference(PIECES, COSTS, data))


@pytest.mark.parametrize("shift", range(-6, 7))
def test_around_a_window(shift):
    data = b" the" * 20000
    data = data[shift % 4 :][: module.WINDOW + shift] + b"aaaaaaaa"
    assert np.array_equal(check(data), segment_reference(PIECES, COSTS, data))


def test_ten_megabytes_on_one_line():
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, len(PIECES), 9_000_000)
    data = b"".join(PIECES[i] for i in chosen).replace(b"\n", b" ").replace(b"\r", b" ")[:10_000_000]
    assert len(data) == 10_000_000
    assert len(check(data)) < len(data)
    check(b"a" * 10_000_000)


@pytest.mark.parametrize("alone", [False, True])
def test_without_the_extension(monkeypatch, alone):
    data = b"and then the string 7fa3 " * 10 + b"\0\xff"
    ids = TOKENIZER.encode(data, alone)
    monkeypatch.setattr(module, "_native", None)
    assert np.array_equal(Tokenizer(PIECES, COSTS).encode(data, alone), ids)


@pytest.mark.parametrize(
    ("pieces", "costs"),
    [
        (PIECES[1:], COSTS[1:]),  # a byte that cannot be written
        (PIECES, COSTS[1:]),
        ((*PIECES, b""), (*COSTS, 1)),
        ((*PIECES, b"x" * 65), (*COSTS, 1)),
        (PIECES, (*COSTS[:-1], 0)),
        (PIECES, (*COSTS[:-1], 65536)),
    ],
)
def test_vocabularies_that_cannot_work(pieces, costs):
    with pytest.raises(ValueError):
        Tokenizer(tuple(pieces), tuple(costs)).encode(b"text")


def test_longest_piece():
    piece = bytes(range(64))
    tokenizer = Tokenizer((*PIECES, piece), (*COSTS, 1))
    assert check(piece * 3, tokenizer).tolist() == [len(PIECES)] * 3

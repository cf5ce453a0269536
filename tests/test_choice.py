"""What is tried before a block is coded, and what is chosen."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lmcompress import choice, forms, modelfile
from lmcompress.choice import ALONE, LEARNING, PIECES, WORTH, Way

RECORDS = "\n".join(f"{random.Random(i).random():.6f},{1000 + 7 * i}" for i in range(300)).encode()
SENTENCE = b"Nobody in the house knows who wrote the letters. " * 20
DATES = (SENTENCE[:490] + b"It was written in 1998 and printed in 2004, 2007 and 2010.\n") * 2
GEORGIAN = "".join(chr(0x10D0 + random.Random(i).randrange(33) if i % 7 else 32) for i in range(1500)).encode()
NUMBERS = "\n".join(f"{random.Random(i).random():.9f}" for i in range(7000)).encode()
PROSE = (Path(__file__).parent.parent / "corpora" / "samples" / "alice29.txt").read_bytes()[:30_000].replace(b"\r", b"")
TOKENIZER = modelfile.load("fast").tokenizer


def test_where_the_network_gains_little_it_is_left_out() -> None:
    assert choice.best_of({PIECES: 1000, ALONE: 990, LEARNING: 999}, WORTH) == LEARNING
    assert choice.best_of({PIECES: 1000, ALONE: 990, LEARNING: 1000}, WORTH) == ALONE
    assert choice.best_of({PIECES: 1000, ALONE: 1000}, WORTH) == PIECES


@pytest.mark.parametrize(
    "text, times, sizes, tried, ways",
    [
        (SENTENCE, 1, {}, [], [PIECES]),
        (SENTENCE, 200, {}, [], [PIECES]),
        (SENTENCE, 300, {}, [], [PIECES, LEARNING]),
        (DATES, 300, {PIECES: 98, ALONE: 99}, [14], [PIECES, LEARNING]),
        (PROSE, 300, {}, [], [PIECES]),
        (DATES, 1, {}, [], [PIECES, ALONE]),
        (RECORDS, 1, {}, [], [PIECES, ALONE, LEARNING]),
        (GEORGIAN, 1, {}, [], [PIECES, LEARNING]),
        (DATES, 50, {PIECES: 99, ALONE: 98}, [14], [ALONE]),
        (RECORDS, 9, {PIECES: 90, ALONE: 98, LEARNING: 110}, [14], [PIECES, ALONE, LEARNING]),
        (RECORDS, 9, {PIECES: 90, ALONE: 98, LEARNING: 113}, [14], [PIECES, ALONE]),
        (RECORDS, 9, {PIECES: 90, ALONE: 100, LEARNING: 113}, [14], [PIECES]),
        (RECORDS, 9, {PIECES: 91, ALONE: 90, LEARNING: 113}, [14], [ALONE]),
        (RECORDS, 9, {PIECES: 99, ALONE: 90, LEARNING: 91}, [14], [LEARNING]),
        (RECORDS, 32, {PIECES: 100, ALONE: 104, LEARNING: 116}, [14, 16], [PIECES, ALONE]),
        (RECORDS, 32, {PIECES: 100, ALONE: 105, LEARNING: 116}, [14, 16], [PIECES]),
        (RECORDS, 32, {PIECES: 105, ALONE: 100, LEARNING: 114}, [14, 16], [ALONE, LEARNING]),
        (NUMBERS, 14, {PIECES: 100, ALONE: 101, LEARNING: 109}, [14, 16, 18], [PIECES, LEARNING]),
        (NUMBERS, 14, {PIECES: 100, ALONE: 101, LEARNING: 111}, [14, 16, 18], [PIECES]),
        (RECORDS, 70, {PIECES: 100, ALONE: 101, LEARNING: 120}, [14, 16], [PIECES, LEARNING]),
        (RECORDS, 70, {PIECES: 100, ALONE: 101, LEARNING: 102}, [14], [LEARNING]),
        (GEORGIAN, 36, {PIECES: 99, LEARNING: 104}, [14, 16], [PIECES, LEARNING]),
    ],
)
def test_ways_are_tried_on_parts_that_grow(
    text: bytes, times: int, sizes: dict[Way, int], tried: list[int], ways: list[Way]
) -> None:
    whole, parts = text * times, set[bytes]()

    def size(part: bytes, form: int, text: bytes, way: Way) -> int:
        assert text == part and form == forms.PLAIN
        parts.add(part)
        return sizes[way]

    assert choice.ways_of(whole, TOKENIZER, PIECES, True, size) == ways
    middles = {choice.middle(whole, 1 << log) for log in tried}
    assert parts == middles | ({choice.sample(whole, 1 << tried[-1])} if ways == [LEARNING] else set())


def test_where_the_middle_is_not_like_the_rest_all_is_tried() -> None:
    whole = PROSE * 5 + RECORDS * 20 + PROSE * 5

    def size(part: bytes, form: int, text: bytes, way: Way) -> int:
        return len(part) * (1 if way.network or part in whole else 2)

    assert choice.ways_of(RECORDS * 80, TOKENIZER, PIECES, True, lambda *a: 1) == [LEARNING]
    assert choice.ways_of(whole, TOKENIZER, PIECES, True, size) == [PIECES, LEARNING]


@pytest.mark.parametrize("text, ways", [(RECORDS, [ALONE, LEARNING]), (DATES, [ALONE]), (GEORGIAN, [ALONE, LEARNING])])
def test_a_network_that_has_read_digits_alone_gets_them(text: bytes, ways: list[Way]) -> None:
    assert choice.ways_of(text, TOKENIZER, ALONE, True, lambda *a: 1) == ways


def test_a_sample_has_parts_of_all_of_a_text() -> None:
    text = random.Random(0).randbytes(500_000)
    parts = [choice.sample(text, 1 << 14)[i : i + choice.PART] for i in range(0, 1 << 14, choice.PART)]
    places = [text.index(part) for part in parts]
    assert places[0] == 0 and places[-1] == len(text) - choice.PART
    assert max(b - a for a, b in zip(places, places[1:], strict=False)) < 170_000
    assert choice.sample(text[:9000], 1 << 14) == text[:9000]


def test_without_a_mixer_there_is_no_learning() -> None:
    assert choice.ways_of(RECORDS, TOKENIZER, PIECES, False, lambda *a: 1) == [PIECES, ALONE]
    assert choice.ways_of(GEORGIAN * 99, TOKENIZER, PIECES, False, lambda *a: 1) == [PIECES]

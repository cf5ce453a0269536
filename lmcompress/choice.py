"""How a block is coded in fewest bytes: in which form, cut into which tokens, with the network or without.

Knows: what there is to choose from, and on how much of a block it is worth trying. Does not know: how anything is coded; it
asks for the size. All of this is the encoder's own affair.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lmcompress import forms
from lmcompress.tokenizer import Tokenizer

FORM_TRIAL = 8192  # bytes of a block on which forms are tried
PART = 4096  # bytes in a row of a sample
SOME_NUMBERS, MANY_NUMBERS = 1.01, 1.2  # as many tokens with digits by themselves as without, at least
STRANGE = 2.3  # bytes a token in text that the vocabulary was not made for, at most
LONG = 1 << 18  # bytes of text from which on it is coded with the network once only, and repeats matter
REPETITIVE = 0.2  # of a text, what zlib leaves of it at most
WORTH = 1.01  # of what the network takes, up to which learning alone is chosen: it is ten times as fast, or more
PROMISING = 1.02  # and on a part: the longer a text is, the more there is to learn


class Way(NamedTuple):
    """How a text may be coded."""

    network: bool
    alone: bool  # digits and codes are pieces by themselves


PIECES, ALONE, LEARNING = Way(True, False), Way(True, True), Way(False, True)
Size = Callable[[bytes, int, bytes, Way], int]  # bytes that content takes in a form, which gives a text, coded in a way


class Trial(NamedTuple):
    """A part of a text on which ways are tried. Those that take more of the best one's bytes than is said are out."""

    least: int  # bytes of text to be worth it
    size: int  # bytes
    alone: float  # where there are many numbers
    learning: float


TRIALS = (
    Trial(1 << 15, 1 << 14, 1.10, 1.25),
    Trial(1 << 17, 1 << 16, 1.04, 1.15),
    Trial(1 << 20, 1 << 18, 1.00, 1.10),
)


def form_of(data: bytes, cost: forms.Cost, way: Way, size: Size) -> tuple[int, bytes]:
    """The form in which a part of the content takes fewest bytes, and the text of all of it. Whether CR LF helps or
    disturbs, above all, depends on what the model has read."""
    form, text = forms.to_text(data, cost)
    if form == forms.PLAIN:
        return form, text
    part = middle(data, FORM_TRIAL)
    choices: list[int | None] = [forms.FLAGS]
    choices += [forms.FLAGS & ~forms.LINES] if form & forms.LINES else []
    charset = form & ~forms.FLAGS
    choices += [None] if charset not in (forms.MAIL, *forms.LETTERS.values()) and form != forms.LINES else []
    if len(choices) == 1:
        return form, text
    sizes = [size(part, *_with(flags, part, cost), way) for flags in choices]
    best = choices[sizes.index(min(sizes))]  # the first of equals
    return (form, text) if best == forms.FLAGS else _with(best, data, cost)


def ways_of(text: bytes, tokenizer: Tokenizer, read: Way, mixer: bool, size: Size) -> list[Way]:
    """Those ways to code a text with a network that has read text cut as `read` is, and a mixer or none, of which parts of it
    do not tell that another takes fewer bytes.

    Where networks have read numbers in pieces, the mixer learns digits alone on the way; and on what the network has
    not read, or what comes again and again, the mixer may do as well in one lane without it. Both show the more the longer
    the text is."""
    part = middle(text, TRIALS[0].size)
    together, alone = (len(tokenizer.encode(part, alone)) for alone in (False, True))
    many = alone >= MANY_NUMBERS * together
    ways = [read]
    if read == PIECES and alone >= SOME_NUMBERS * together:
        ways.append(ALONE)
    if mixer and (many or len(part) <= STRANGE * together):
        ways.append(LEARNING)
    for trial in TRIALS:
        if len(ways) == 1 or len(text) < trial.least:
            break
        part = middle(text, trial.size)
        sizes = {way: size(part, forms.PLAIN, part, way) for way in ways}
        rival = min((way for way in ways if way.network), key=lambda way: sizes[way])
        if best_of(sizes, PROMISING) == LEARNING:
            part = sample(text, trial.size)  # all of it may not be like its middle
            if best_of({way: size(part, forms.PLAIN, part, way) for way in (rival, LEARNING)}, PROMISING) == LEARNING:
                return [LEARNING]
        more = {PIECES: 1.0, ALONE: trial.alone if many else 1.0, LEARNING: trial.learning}
        ways = [way for way in ways if sizes[way] <= more[way] * sizes[rival]]
    if len(text) >= LONG and {PIECES, ALONE} <= set(ways):
        ways.remove(PIECES if sizes[ALONE] < sizes[PIECES] else ALONE)
    if mixer and LEARNING not in ways and len(text) >= LONG and _repetitive(text):
        ways.append(LEARNING)  # a tenth of the time more; no sample shows what comes again far away
    return ways


def best_of(sizes: Mapping[Way, int], worth: float) -> Way:
    """The first of the smallest; learning alone where it takes at most `worth` of that."""
    best = min(sizes, key=lambda way: sizes[way])
    return LEARNING if LEARNING in sizes and sizes[LEARNING] <= worth * sizes[best] else best


def middle(data: bytes, size: int) -> bytes:
    """From an even place on, so that units of UTF-16 stay whole."""
    return data[max(0, len(data) - size) // 4 * 2 :][:size]


def sample(text: bytes, size: int) -> bytes:
    """Parts from everywhere, the beginning and the end among them."""
    if len(text) <= size:
        return text
    gaps = size // PART - 1
    return b"".join(text[(start := (len(text) - PART) * i // gaps) : start + PART] for i in range(gaps + 1))


def _repetitive(text: bytes) -> bool:
    part = middle(text, 1 << 16)
    return len(zlib.compress(part, 1)) <= REPETITIVE * len(part)


def _with(flags: int | None, data: bytes, cost: forms.Cost) -> tuple[int, bytes]:
    """A form that may have these flags, with its text; None: the content as it is."""
    return (forms.PLAIN, data) if flags is None else forms.to_text(data, cost, flags)

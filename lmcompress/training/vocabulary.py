"""A vocabulary of byte strings from text.

Knows: sentencepiece's trainer, hard expectation-maximization of piece costs. Does not know: models.
sentencepiece (BPE) sees bytes, not characters: printable ASCII as itself, each other byte as one private character. So
pieces may hold line ends, halves of a Chinese character (a rare one costs two pieces, not three), any bytes.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import sentencepiece

from lmcompress.tokenizer import Tokenizer

_BASE = 0x4E00  # bytes that are not printable ASCII become the characters from here on
_TO_TEXT = {b: chr(b) if 0x20 <= b < 0x7F else chr(_BASE + b) for b in range(256)}
_TO_BYTE = {c: b for b, c in _TO_TEXT.items()}
_CHUNK = 4000  # characters in one training sentence
COST_UNIT = 64  # a cost of 64 is one bit


def learn(texts: Sequence[bytes], vocab_size: int, alone: bool = False) -> Tokenizer:
    """A vocabulary of `vocab_size` pieces: all 256 bytes (the separator 0x00 is id 0), and the most useful of what BPE
    finds in `texts`; costs are -log2 of the piece's share of the tokens.

    BPE proposes half as many pieces again as are wanted; those that save least are dropped in three rounds, as in the
    pruning of unigram vocabularies (Kudo 2018)."""
    pieces = [bytes([b]) for b in range(256)]
    if vocab_size > 256:
        pieces += [p for p in _propose(texts, vocab_size * 3 // 2, alone) if len(p) > 1]
    tokenizer = Tokenizer(tuple(pieces), (1,) * len(pieces))  # fewest pieces first, then what the counts say
    surplus = len(pieces) - vocab_size
    if surplus < 0:
        raise ValueError(f"the text gives only {len(pieces)} pieces")
    for keep in (vocab_size + surplus * 2 // 3, vocab_size + surplus // 3, vocab_size, vocab_size, vocab_size):
        tokenizer, counts = _recount(tokenizer, texts, alone)
        tokenizer, counts = _recount(tokenizer, texts, alone)
        saving = counts * _saving(tokenizer)
        saving[:256] = np.inf
        kept = np.sort(np.argsort(-saving, kind="stable")[:keep])
        tokenizer = Tokenizer(tuple(tokenizer.pieces[i] for i in kept), tuple(tokenizer.costs[i] for i in kept))
    return tokenizer


def _recount(tokenizer: Tokenizer, texts: Sequence[bytes], alone: bool) -> tuple[Tokenizer, np.ndarray]:
    """One step of hard expectation-maximization: segment, count, set the costs by the counts."""
    counts = np.full(tokenizer.vocab_size, 0.5)
    for text in texts:
        counts += np.bincount(tokenizer.encode(text, alone), minlength=tokenizer.vocab_size)
    bits = -np.log2(counts / counts.sum())
    return Tokenizer(tokenizer.pieces, tuple(int(c) for c in np.maximum(1, np.rint(COST_UNIT * bits)))), counts


def _saving(tokenizer: Tokenizer) -> np.ndarray:
    """float64 [vocab_size]: by how much each piece is cheaper than the cheapest way to write it with the others."""
    cost = dict(zip(tokenizer.pieces, tokenizer.costs, strict=True))
    saving = np.zeros(tokenizer.vocab_size)
    for i, piece in enumerate(tokenizer.pieces):
        if len(piece) > 1:
            best = [0.0] + [np.inf] * len(piece)
            for end in range(1, len(piece) + 1):
                best[end] = min(
                    best[start] + cost[piece[start:end]]
                    for start in range(end)
                    if end - start < len(piece) and piece[start:end] in cost
                )
            saving[i] = best[-1] - tokenizer.costs[i]
    return saving


def _propose(texts: Sequence[bytes], size: int, alone: bool) -> list[bytes]:
    """About `size` pieces by BPE over bytes."""
    table = [_TO_TEXT[b] for b in range(256)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(
            "".join(table[b] for b in text[i : i + _CHUNK]) for text in texts for i in range(0, len(text), _CHUNK)
        ),
        model_writer=model,
        model_type="bpe",
        vocab_size=size,
        required_chars="".join(c for c in table if c != " "),
        character_coverage=1.0,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_by_unicode_script=False,
        split_digits=alone,
        allow_whitespace_only_pieces=True,
        max_sentence_length=3 * _CHUNK + 16,
        max_sentencepiece_length=16,
        bos_id=-1,
        eos_id=-1,
        unk_piece="\u2047",
        minloglevel=1,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    learned = [processor.id_to_piece(i).replace("\u2581", " ") for i in range(processor.get_piece_size())]
    return [bytes(_TO_BYTE[c] for c in text) for text in learned if all(c in _TO_BYTE for c in text)]

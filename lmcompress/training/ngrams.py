"""The n-grams of a model: what follows a few tokens in the text that it was trained on.

    python -m lmcompress.training.ngrams --data FOLDER --lines N [--table FILE] MODEL OUT

Knows: text by category, tokens, models' tables of n-grams. Does not know: weights.
For each context of lmcompress/ngrams.py's ORDERS the most frequent next token is counted, in documents, not in places: what one
document repeats says little of others. Kept are those that are expected to save most against the next shorter context
(the cost-based pruning of Stolcke 1998, with a count less than there are, as in Ney et al. 1994), as many as the table holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np

from lmcompress import modelfile
from lmcompress.errors import LMCompressError
from lmcompress.modelfile import Model
from lmcompress.ngrams import CHECK, CLASSES, MAX_LINES, ORDERS, WAYS, check_of, line_of, table_of
from lmcompress.training import data

SHORTER = {2: 1, 3: 2, 4: 3, 6: 4}  # what a context is compared with
LEAST = 2  # documents that have an n-gram
DISCOUNT = 0.8  # of the documents that have it, in its probability
BOUNDS = (0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.92)  # of the probabilities of classes
CHUNK = 1 << 22  # places whose hashes are made at a time
PARTS = 16  # of all contexts, by their hashes, that are sorted at a time
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
CONTEXT = ~np.uint64(0x7FFF)  # of a hash, without the lowest bits, which make room for a token while n-grams are sorted


@dataclass(frozen=True, eq=False)
class Text:
    """Tokens of documents, one after the other."""

    ids: np.ndarray  # uint16 [n]
    document: np.ndarray  # int32 [n], its number
    since: np.ndarray  # int32 [n], tokens before it in its document

    def hashes(self, at: np.ndarray, order: int) -> np.ndarray:
        """uint64 [m]: of the `order` tokens before each of the places at int [m], as mixers have it; what is before a document is 0."""
        h = np.ones(len(at), np.uint64)
        for back in range(1, order + 1):
            h += np.where(self.since[at] >= back, self.ids[at - back], 0).astype(np.uint64)
            h += np.uint64(1)
            h *= MULTIPLIER
            h ^= h >> np.uint64(29)
        return h


@dataclass(frozen=True, eq=False)
class Counts:
    """Of contexts of one length, those that have a token in LEAST documents or more, in the order of `context`."""

    context: np.ndarray  # uint64 [C], hashes & CONTEXT
    at: np.ndarray  # int32 [C], a place in the text where `token` has followed
    token: np.ndarray  # uint16 [C], the most frequent one
    often: np.ndarray  # int32 [C], documents in which it has followed
    total: np.ndarray  # int32 [C], the sum of that for all tokens
    pair: np.ndarray  # uint64 [P], context and token, in order: all that LEAST documents or more have
    pair_often: np.ndarray  # int32 [P]

    def share(self, context: np.ndarray, token: np.ndarray) -> np.ndarray:
        """float64 [n]: how often the tokens have followed the contexts; both are known together."""
        often = self.pair_often[np.searchsorted(self.pair, context | token)]
        return often / self.total[np.searchsorted(self.context, context)]


def read(folder: Path, model: Model) -> Text:
    """The training documents that are not set aside, as the model's tokens."""
    parts = [
        model.tokenizer.encode(data.SEPARATOR + document, model.alone).astype(np.uint16)
        for _, document in data.documents(folder)
        if not data.is_validation(document) and not data.is_set_aside(document)
    ]
    sizes = np.array([len(part) for part in parts])
    since = np.arange(sizes.sum(), dtype=np.int32) - np.repeat(np.cumsum(sizes) - sizes, sizes).astype(np.int32)
    return Text(np.concatenate(parts), np.repeat(np.arange(len(parts), dtype=np.int32), sizes), since)


def count(text: Text, order: int) -> Counts:
    """What follows the contexts of `order` tokens."""
    places = np.arange(len(text.ids), dtype=np.int32)
    hashes = np.concatenate([text.hashes(places[i : i + CHUNK], order) for i in range(0, len(places), CHUNK)])
    hashes &= CONTEXT
    hashes[text.since == 0] = 0  # nothing comes before a document
    parts = []
    for part in range(PARTS):
        at = np.flatnonzero((hashes >> np.uint64(60) == part) & (hashes > 0)).astype(np.int32)
        pair = hashes[at] | text.ids[at]
        by_pair = np.argsort(pair, kind="stable")  # and by document in each
        pair, at = pair[by_pair], at[by_pair]
        new = np.concatenate([[True], pair[1:] != pair[:-1]]) if len(pair) else np.zeros(0, bool)
        other = new.copy()
        other[1:] |= text.document[at[1:]] != text.document[at[:-1]]
        begin = np.flatnonzero(new)
        if not len(begin):
            continue
        often = np.add.reduceat(other.astype(np.int64), begin)
        places_of = np.diff(np.concatenate([begin, [len(pair)]]))
        pair, at = pair[begin], at[begin]
        context = pair & CONTEXT
        first = np.flatnonzero(np.concatenate([[True], context[1:] != context[:-1]]))
        rank = often << 32 | places_of  # the token that most documents have; of these the one that comes up most
        best = np.repeat(np.maximum.reduceat(rank, first), np.diff(np.concatenate([first, [len(context)]]))) == rank
        places_best = np.flatnonzero(best)
        best[places_best[1:][context[places_best[1:]] == context[places_best[:-1]]]] = False  # one of each context
        total = np.add.reduceat(often, first)
        kept = np.flatnonzero(best)
        enough = often[kept] >= LEAST
        kept, total = kept[enough], total[enough]
        pairs = often >= LEAST
        token = (pair[kept] & ~CONTEXT).astype(np.uint16)
        parts.append((context[kept], at[kept], token, often[kept], total, pair[pairs], often[pairs]))
    return Counts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def learn(text: Text, n_lines: int) -> np.ndarray:
    """A table uint16 [n_lines, 2, WAYS]."""
    counts = {order: count(text, order) for order in sorted({*ORDERS, *(SHORTER[order] for order in ORDERS)})}
    line, check, key, token, gain = ([] for _ in range(5))
    for order in ORDERS:
        known, shorter = counts[order], counts[SHORTER[order]]
        before = text.hashes(known.at, SHORTER[order]) & CONTEXT
        p = (known.often - DISCOUNT) / known.total
        saved = np.log2(p / shorter.share(before, known.token))  # bits, each time that it comes up
        hashes = text.hashes(known.at, order)
        line.append(line_of(hashes, n_lines))
        check.append(check_of(hashes))
        key.append((check[-1] * CLASSES + np.searchsorted(BOUNDS, p)).astype(np.uint16))
        token.append(known.token)
        gain.append((known.often - 1) * p * saved)
    lines, checks, keys, tokens, gains = map(np.concatenate, (line, check, key, token, gain))
    best = np.flatnonzero(gains > 0)
    best = best[np.lexsort((-gains[best], lines[best]))]
    _, once = np.unique(
        lines[best] * (CHECK + 1) + checks[best], return_index=True
    )  # of those that one check would find
    best = best[np.sort(once)]
    begin = np.searchsorted(lines[best], np.arange(n_lines))
    way = np.arange(len(best)) - begin[lines[best]]
    best, way = best[way < WAYS], way[way < WAYS]
    table = np.zeros((2, n_lines, WAYS), np.uint16)
    table[0, lines[best], way], table[1, lines[best], way] = keys[best], tokens[best]
    return table_of(*table)


@click.command("ngrams")
@click.option("--data", "source", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="The folder of text that the model was trained on.")  # fmt: skip
@click.option("--lines", type=click.IntRange(0, MAX_LINES), default=1 << 17, show_default=True,
              help="Of the table, 64 bytes each.")  # fmt: skip
@click.option("--table", type=click.Path(dir_okay=False, path_type=Path), default=None,
              help="A file of n-grams, .lmn, in the folder of OUT, that OUT names instead of having them itself, so that models of one vocabulary share "
                   "them; written if it is not there.")  # fmt: skip
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(source: Path, lines: int, table: Path | None, model: str, out: Path) -> None:
    """Give a model a table of n-grams: MODEL is a shipped one's name or a file, OUT the file to write."""
    if table is not None and table.suffix != modelfile.TABLE_SUFFIX:
        raise click.UsageError(f"{table}: models look for their n-grams in files {modelfile.TABLE_SUFFIX}")
    try:
        loaded = modelfile.load(model)
    except (OSError, LMCompressError) as error:
        raise click.ClickException(f"{model}: {error}") from None
    digest = b""
    try:
        if table is not None and table.exists():
            found, digest = modelfile.read_table(table)
        else:
            found = counted(source, loaded, lines)
            if table is not None:
                data = modelfile.dumps_table(found)
                table.write_bytes(data)
                digest = data[-modelfile.DIGEST_SIZE :]
        out.write_bytes(modelfile.dumps(replace(loaded, ngrams=found), digest))
    except (OSError, LMCompressError) as error:
        raise click.ClickException(str(error)) from None


def counted(source: Path, model: Model, lines: int) -> np.ndarray:
    """A table of a folder's text. Raises click.ClickException."""
    text = read(source, model)
    if not len(text.ids):
        raise click.ClickException(f"{source} has no text to train on")
    table = learn(text, lines)
    click.echo(f"{len(text.ids)} tokens, {(table[:, 0] > 0).sum()} n-grams in {table.nbytes} bytes")
    return table


if __name__ == "__main__":
    main()

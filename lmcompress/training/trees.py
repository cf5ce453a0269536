"""The trees over a vocabulary: one for each kind of text, kinds being what training text falls into.

    python -m lmcompress.training.trees --data FOLDER MODEL OUT

Knows: text by category, tokens, models' trees. Does not know: weights.
Parts of text are clustered by their tokens (k-means with the cost of coding a part by a cluster's frequencies as distance): a
tree balanced by all text has paths a seventh longer than one for the kind of text at hand (docs/LOG.md), and each step of a path
takes its time.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click
import numpy as np

from lmcompress import modelfile
from lmcompress.errors import LMCompressError
from lmcompress.tokenizer import Tokenizer
from lmcompress.training import data
from lmcompress.tree import weight_balanced

TREES = 16
PART = 1 << 16  # bytes of text, about
EACH = 96  # parts of a category, at most
STARTS = 6  # clusterings, of which the one with the shortest paths is kept
ROUNDS = 30
COMMON = 0.02  # the share of all text in a kind's frequencies: what its parts lack may still come
UNIT = 1 << 40  # of weights


def parts(folder: Path, seed: int = 0) -> list[bytes]:
    """Parts of a folder's training documents, of each category as many, if it has them."""
    rng = np.random.default_rng(seed)
    chosen = []
    for _, documents in sorted(data.training_documents(folder).items()):
        texts: list[bytes] = []
        for i in rng.permutation(len(documents)):
            start = int(rng.integers(0, max(1, len(documents[i]) - 2 * PART)))
            text = documents[i][start : start + 2 * PART]
            if texts and len(texts[-1]) < PART:
                texts[-1] += data.SEPARATOR + text
            elif len(texts) < EACH:
                texts.append(text)
            else:
                break
        chosen += texts
    return [text for text in chosen if text]


def shares(texts: list[bytes], tokenizer: Tokenizer) -> np.ndarray:
    """float64 [2 n, V]: how often each token comes up in each text, of 1; digits and codes in pieces, and then by themselves."""
    rows = []
    for alone in (False, True):
        for text in texts:
            counts = np.bincount(tokenizer.encode(text, alone), minlength=len(tokenizer.pieces))
            rows.append(counts / counts.sum())
    return np.array(rows)


def learn(share: np.ndarray, n: int = TREES, seed: int = 0) -> np.ndarray:
    """uint8 [K, V], K <= n: depths of trees in which texts with such shares, float64 [m, V], have short paths."""
    rng = np.random.default_rng(seed)
    best: tuple[float, np.ndarray] | None = None
    for _ in range(STARTS):
        kinds = _cluster(share, rng.integers(0, n, len(share)))
        depths = np.array([weight_balanced(np.maximum(kind * UNIT, 1).astype(np.int64)) for kind in kinds])
        length = float((share @ depths.T).min(axis=1).mean())
        if best is None or length < best[0]:
            best = length, depths
    assert best is not None
    return best[1]


def _cluster(share: np.ndarray, kind: np.ndarray) -> np.ndarray:
    """float64 [K, V]: the frequencies of kinds of texts, which begin as int [m] says; some may go."""
    common = share.mean(axis=0)
    for _ in range(ROUNDS):
        kinds = np.array([share[kind == k].mean(axis=0) for k in np.unique(kind)])
        kinds = (1 - COMMON) * kinds + COMMON * common
        nearest = np.argmax(share @ np.log2(np.maximum(kinds, 1e-12)).T, axis=1)
        if (nearest == kind).all():
            break
        kind = nearest
    return kinds


@click.command("trees")
@click.option("--data", "source", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="The folder of text that the model was trained on.")  # fmt: skip
@click.argument("model")
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(source: Path, model: str, out: Path) -> None:
    """Give a model other trees: MODEL is a shipped one's name or a file, OUT the file to write."""
    try:
        loaded = modelfile.load(model)
    except (OSError, LMCompressError) as error:
        raise click.ClickException(f"{model}: {error}") from None
    texts = parts(source)
    if not texts:
        raise click.ClickException(f"{source} has no text to train on")
    share = shares(texts, loaded.tokenizer)
    depths = learn(share)
    for name, trees in (("before", loaded.depths), ("now", depths)):
        click.echo(f"{name}: {len(trees)}, {(share @ trees.T).min(axis=1).mean():.2f} decisions a token")
    out.write_bytes(modelfile.dumps(replace(loaded, depths=depths)))


if __name__ == "__main__":
    main()

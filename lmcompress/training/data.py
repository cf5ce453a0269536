"""From a folder of text to token ids on disk, and from there to training sequences.

Knows: shards, documents, the validation split, sampling weights. Does not know: models.
A source is any folder: `CATEGORY.NN.txt.zst` shards (documents joined by one 0x00 byte), or plain files
(each one document, its category the folder it lies in).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import zstandard

from lmcompress.tokenizer import Tokenizer

SEPARATOR = b"\0"  # between documents; its piece also starts every sequence and every lane
WEIGHTS = {  # times a category's share in bytes; 1 where not named
    "en_books": 2.0, "en_wiki": 2.0, "en_prose": 2.0,
    "zh_wiki": 2.0, "zh_law": 1.0, "zh_classics": 1.0, "zh_poetry_json": 1.0,
    "deb_languages": 1.5, "deb_docs": 1.5, "deb_code": 1.0, "deb_data": 1.0,  # corpora/debian.py
}  # fmt: skip


def _part(document: bytes) -> int:
    """SHA-256, read as a big-endian number, modulo 128."""
    return hashlib.sha256(document).digest()[-1] % 128


def is_validation(document: bytes) -> bool:
    """True for one document in 128."""
    return _part(document) == 0


def is_set_aside(document: bytes) -> bool:
    """True for another document in 128, which n-grams are not counted in: what mixers know of them at first is learned from these."""
    return _part(document) == 1


def documents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """(category, document) of every document under `folder`, in a fixed order."""
    for path in sorted(p for p in Path(folder).rglob("*") if p.is_file()):
        if path.name.endswith(".txt.zst"):
            with path.open("rb") as file:
                text = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file).read()
            for document in text.split(SEPARATOR):
                yield path.name.split(".")[0], document
        else:
            yield path.parent.name, path.read_bytes().replace(SEPARATOR, b"")


def training_documents(folder: Path, set_aside: bool = False) -> dict[str, list[bytes]]:
    """By category, those that are not of the validation split; or those that are set aside only."""
    by_category: dict[str, list[bytes]] = {}
    for category, document in documents(folder):
        if is_set_aside(document) if set_aside else not is_validation(document):
            by_category.setdefault(category, []).append(document)
    return by_category


def sample(folder: Path, total: int, seed: int = 0, set_aside: bool = False) -> list[bytes]:
    """About `total` bytes of training documents in the proportions of WEIGHTS, cut to 64 KiB each; or of those that are set aside only."""
    by_category = training_documents(folder, set_aside)
    mass = {c: WEIGHTS.get(c, 1.0) * sum(map(len, d)) for c, d in by_category.items()}
    rng = np.random.default_rng(seed)
    chosen = []
    for category, docs in sorted(by_category.items()):
        budget = total * mass[category] / sum(mass.values())
        for i in rng.permutation(len(docs)):
            if budget <= 0:
                break
            start = int(rng.integers(0, max(1, len(docs[i]) - 65536)))
            chosen.append(docs[i][start : start + 65536])
            budget -= len(chosen[-1])
    return chosen


def tokenize(folder: Path, tokenizer: Tokenizer, out: Path, alone: bool = False) -> None:
    """Writes CATEGORY.train.u16 and CATEGORY.val.u16 (little-endian ids, each document preceded by the
    separator's id) and index.json with tokens and bytes of each."""
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, object] = {}
    index: dict[str, dict[str, int]] = {}
    for category, document in documents(folder):
        name = f"{category}.{'val' if is_validation(document) else 'train'}"
        if name not in files:
            files[name] = (out / f"{name}.u16").open("wb")
            index[name] = {"tokens": 0, "bytes": 0}
        ids = tokenizer.encode(SEPARATOR + document, alone)
        files[name].write(ids.astype("<u2").tobytes())
        index[name]["tokens"] += len(ids)
        index[name]["bytes"] += len(document) + 1
    for file in files.values():
        file.close()
    (out / "index.json").write_text(json.dumps(index, indent=1, sort_keys=True))


class Mix:
    """Training sequences from tokenized categories, drawn by weight, at random places."""

    def __init__(self, folder: Path, length: int, seed: int = 0) -> None:
        self.length = length
        self.index = json.loads((folder / "index.json").read_text())
        names = sorted(n[: -len(".train")] for n in self.index if n.endswith(".train"))
        self.ids = {c: np.memmap(folder / f"{c}.train.u16", dtype="<u2", mode="r") for c in names}
        self.names = [c for c in names if len(self.ids[c]) > length + 1]
        mass = np.array([WEIGHTS.get(c, 1.0) * self.index[f"{c}.train"]["bytes"] for c in self.names])
        # sequences hold tokens, weights speak of bytes
        mass *= [self.index[f"{c}.train"]["tokens"] / self.index[f"{c}.train"]["bytes"] for c in self.names]
        self.p = mass / mass.sum()
        self.seed = seed

    def batch(self, step: int, size: int) -> np.ndarray:
        """int64 [size, length + 1], the batch of this step: the same for the same arguments, whatever came before."""
        rng = np.random.default_rng([self.seed, step])
        out = np.empty((size, self.length + 1), np.int64)
        for row, category in enumerate(rng.choice(len(self.names), size=size, p=self.p)):
            ids = self.ids[self.names[category]]
            start = int(rng.integers(0, len(ids) - self.length))
            out[row, 1:] = ids[start : start + self.length]
        out[:, 0] = 0  # every sequence starts as a lane does; the separator is id 0
        return out


def validation(folder: Path, length: int, limit: int) -> dict[str, tuple[np.ndarray, float]]:
    """Per category: int64 [n, length + 1] sequences of about `limit` tokens of the validation split, and the
    bytes that their targets cover."""
    index = json.loads((folder / "index.json").read_text())
    result = {}
    for name in sorted(n for n in index if n.endswith(".val")):
        ids = np.fromfile(folder / f"{name}.u16", dtype="<u2").astype(np.int64)
        n = min(len(ids), limit) // length
        if n == 0:
            continue
        step = len(ids) // n
        rows = np.stack([np.concatenate([[0], ids[i * step : i * step + length]]) for i in range(n)])
        result[name[: -len(".val")]] = (rows, n * length * index[name]["bytes"] / index[name]["tokens"])
    return result

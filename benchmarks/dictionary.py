"""zstd's dictionary, trained on the text that lmcompress's models are tuned on: the fair rival on small files.

Knows: the pool's layout and its validation split. Does not know: what the dictionary is used for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import zstandard

from benchmarks.corpora import manifest_kinds

PIECE = 16384  # bytes of a training sample, at most
SEGMENT = (
    512  # bytes that are chosen together: best on 1 KiB pieces of held-out documents, 3.28 bits per byte (64: 3.47)
)


def train(pool: Path, size: int) -> bytes:
    """A dictionary of at most `size` bytes. Documents are separated by 0x00; one in 128 is of the validation split, and those
    that corpora/samples shows are left out."""
    shown = manifest_kinds()
    samples: list[bytes | bytearray | memoryview] = []
    for shard in sorted(pool.glob("*.txt.zst")):
        with shard.open("rb") as file:
            text = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file).read()
        for document in text.split(b"\0"):
            digest = hashlib.sha256(document)
            if digest.digest()[-1] % 128 == 0 and digest.hexdigest() not in shown:
                samples += [document[i : i + PIECE] for i in range(0, len(document), PIECE)]
    return zstandard.train_dictionary(size, samples, k=SEGMENT, d=8, level=22).as_bytes()

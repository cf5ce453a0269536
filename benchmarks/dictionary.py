"""zstd's dictionary, trained on the text that lmcompress's models are tuned on: the fair rival on small files.

Knows: the pool's layout and its validation split. Does not know: what the dictionary is used for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import zstandard

PIECE = 4096  # bytes of a training sample: the documents are longer than the small files the dictionary is for


def train(pool: Path, size: int) -> bytes:
    """A dictionary of at most `size` bytes. Documents are separated by 0x00; one in 128 is of the validation split."""
    samples: list[bytes | bytearray | memoryview] = []
    for shard in sorted(pool.glob("*.txt.zst")):
        with shard.open("rb") as file:
            text = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(file).read()
        for document in text.split(b"\0"):
            if hashlib.sha256(document).digest()[-1] % 128 == 0:
                samples += [document[i : i + PIECE] for i in range(0, len(document), PIECE)]
    return zstandard.train_dictionary(size, samples, level=22, split_point=0.75).as_bytes()

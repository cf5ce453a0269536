"""What each part of lmcompress buys: the network, the mixer, n-grams, lanes, tables.

Knows: blocks coded with one part or another left out, each decoded again and compared. Does not know: rivals, speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.table import Table

from lmcompress.codec import Codec
from lmcompress.config import CodecConfig
from lmcompress.modelfile import Model
from lmcompress.ngrams import NONE

LANES = (1, 8, 32)


def coded(model: Model | None, config: CodecConfig, data: bytes, threads: int) -> float:
    """Bits per byte of one block, decoded again and compared."""
    codec = Codec(model, config, threads)
    learned, payload = codec.encode(data)
    if codec.decode(payload, len(data), learned) != data:
        raise AssertionError(f"{config} does not round-trip")
    return 8 * len(payload) / len(data)


def parts_table(model: Model, files: Sequence[Path], limit: int, bits: int, lane_unit: int, threads: int) -> Table:
    """Network alone, mixer alone, both; the last two without n-grams; and both in 1, 8, 32 lanes: the first `limit` bytes of each file,
    one block."""
    less = replace(model, ngrams=NONE)
    without = (f"{name}, no n-grams" for name in ("mixer", "both"))
    table = Table("bits per byte", "bytes", "network", "mixer", "both", *without, *(f"{n} lanes" for n in LANES))
    for path in files:
        data = path.read_bytes()[:limit]
        configs = [CodecConfig(lane_unit, 0), CodecConfig(lane_unit, bits, False), CodecConfig(lane_unit, bits)]
        lanes = [CodecConfig(max(1, len(data) // n**2), bits) for n in LANES]
        trials = [*((model, c) for c in configs), *((less, c) for c in configs[1:]), *((model, c) for c in lanes)]
        cells = [f"{coded(m, config, data, threads):.4f}" for m, config in trials]
        table.add_row(path.name, f"{len(data):,}", *cells)
    return table


def lanes_table(
    model: Model, files: Sequence[Path], limit: int, lane_units: Sequence[int], bits: Sequence[int], threads: int
) -> Table:
    """Every unit of lanes with every size of tables, on the first `limit` bytes of each file."""
    table = Table("unit of lanes", "tables", *(path.name for path in files))
    for size in bits:
        for unit in lane_units:
            config = CodecConfig(unit, size)
            cells = (f"{coded(model, config, path.read_bytes()[:limit], threads):.4f}" for path in files)
            table.add_row(f"{unit:,}", str(size), *cells)
    return table


def order_0(integers: np.ndarray) -> float:
    """Bytes of an array by the entropy of its values."""
    counts = np.unique(integers, return_counts=True)[1]
    return -float((counts * np.log2(counts / counts.sum())).sum()) / 8


def model_table(name_or_path: str) -> Table:
    """Bytes of a model's weights: as float32, as int8, their order-0 entropy by row; of its n-grams and its files."""
    from lmcompress import modelfile

    model = modelfile.load(name_or_path)
    matrices = [model.embed, model.head]
    matrices += [getattr(layer, name) for layer in model.layers for name in ("qkv", "o", "up", "down")]
    n, entropy = sum(m.size for m in matrices), sum(map(order_0, matrices))
    size = sum(path.stat().st_size for path in modelfile.files(name_or_path))
    table = Table("weights", "float32", "int8", "entropy of each matrix", "n-grams", "files")
    table.add_row(f"{n:,}", f"{4 * n:,}", f"{n:,}", f"{entropy:,.0f}", f"{model.ngrams.nbytes:,}", f"{size:,}")
    return table

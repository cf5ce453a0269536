"""What the inner loops cost: the range coder per call, the matrix kernels against the machine's peak, a step's parts.

Knows: clocks and the package's own parts. Does not know: files, other codecs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.table import Table

from lmcompress.coder import BACKENDS, ONE, Decoder, Encoder

CALLS = (1, 8, 32, 128, 1024, 200_000)  # decisions per call
DECISIONS = 200_000


def best(action: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of a few runs: what the code costs when nothing else disturbs it."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def coder_costs(backend: str, decisions: int) -> tuple[float, float]:
    """Seconds per call of encode and of decode, with `decisions` in each call."""
    calls = max(1, min(2000, DECISIONS // decisions) // (10 if backend == "plain" else 1))
    rng = np.random.default_rng(0)
    k = rng.integers(1, ONE, decisions).astype(np.uint32)
    bits = (rng.integers(0, ONE, decisions) < k).astype(np.uint8)

    def encode() -> Encoder:
        encoder = Encoder(backend)
        for _ in range(calls):
            encoder.encode(bits, k)
        return encoder

    data = encode().finish()

    def decode() -> None:
        decoder = Decoder(data, backend)
        for _ in range(calls):
            decoder.decode(k)

    return best(encode) / calls, best(decode) / calls


def coder_table() -> Table:
    table = Table("backend", "decisions per call", "encode us", "decode us", "encode ns each", "decode ns each")
    for backend in BACKENDS:
        for decisions in CALLS:
            encode, decode = coder_costs(backend, decisions)
            costs = [f"{1e6 * encode:.2f}", f"{1e6 * decode:.2f}"]
            costs += [f"{1e9 * seconds / decisions:.1f}" for seconds in (encode, decode)]
            table.add_row(backend, f"{decisions:,}", *costs)
    return table


def tables() -> list[Table]:
    return [coder_table()]

"""What the inner loops cost: the range coder per call, the matrix kernels against the machine's peak. (A step of the engine:
engine_speed.py.)

Knows: clocks and the package's own parts. Does not know: files, other codecs.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from rich.table import Table

from lmcompress.coder import BACKENDS, ONE, Decoder, Encoder

try:
    from lmcompress import _native
except ImportError:
    _native = None  # type: ignore[assignment]

CALLS = (1, 8, 32, 128, 1024, 200_000)  # decisions per call
DECISIONS = 200_000
ROWS = (1, 8, 16, 32, 64, 128)  # of a product: lanes in a step
GEMM = (256, 1024)  # inputs and outputs, about those of the fast model
LARGE = (256, 2048, 2048)  # rows, inputs, outputs


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
    table = Table(
        "backend", "n", "encode us", "decode us", "encode ns / n", "decode ns / n", title="n decisions per call"
    )
    for backend in BACKENDS:
        for decisions in CALLS:
            encode, decode = coder_costs(backend, decisions)
            costs = [f"{1e6 * encode:.2f}", f"{1e6 * decode:.2f}"]
            costs += [f"{1e9 * seconds / decisions:.1f}" for seconds in (encode, decode)]
            table.add_row(backend, f"{decisions:,}", *costs)
    return table


def gemm_table(seconds: float = 0.2) -> Table:
    """Products of int8 matrices on one thread, by the number of rows (lanes of a step), and a large one that stands for the
    machine's peak."""
    title = f"10^9 multiply-adds/s: rows x {GEMM[0]} x {GEMM[1]}; peak: {' x '.join(map(str, LARGE))}"
    table = Table("kernel", *(f"{rows}" for rows in ROWS), "peak", title=title)
    for kernel in _native.kernels():
        rates = [_native.bench_gemm(kernel, rows, GEMM[1], GEMM[0], seconds) for rows in ROWS]
        rates.append(_native.bench_gemm(kernel, LARGE[0], LARGE[2], LARGE[1], seconds))
        table.add_row(kernel, *(f"{rate / 1e9:.1f}" for rate in rates))
    return table


def tables() -> list[Table]:
    """Without a compiled engine, only what there is."""
    compiled = _native is not None and hasattr(_native, "bench_gemm")
    return [*([gemm_table()] if compiled else []), coder_table()]

"""What the inner loops cost: products of matrices against the machine's peak, steps of the network, calls of the range coder.

Knows: clocks and the package's own parts. Does not know: files, other codecs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from rich.table import Table

from benchmarks.measure import circumstances
from benchmarks.results import Record
from lmcompress.coder import BACKENDS, ONE, Decoder, Encoder
from lmcompress.modelfile import Model

try:
    from lmcompress import _native
except ImportError:
    _native = None  # type: ignore[assignment]

CALLS = (1, 8, 32, 128, 1024, 200_000)  # decisions per call
DECISIONS = 200_000
ROWS = (1, 8, 16, 32, 64, 128)  # of a product: lanes in a step
GEMM = (256, 1024)  # inputs and outputs, about those of the fast model
LARGE = (256, 2048, 2048)  # rows, inputs, outputs


@dataclass(frozen=True)
class Product(Record):
    """Products of int8 matrices on one thread: multiply-adds per second."""

    folder: ClassVar[str] = "kernels"

    kernel: str
    rows: int
    inputs: int
    outputs: int
    rate: float
    peak: float  # the highest that the same kernel reached in the same run, with a large product too

    def key(self) -> tuple[Any, ...]:
        return (self.processor, self.kernel, self.rows, self.inputs, self.outputs)


@dataclass(frozen=True)
class Step(Record):
    """One step of all lanes through the network, with its output distribution: seconds, of many steps."""

    folder: ClassVar[str] = "steps"

    model: str
    kernel: str
    threads: int
    lanes: int
    least: float
    median: float

    def key(self) -> tuple[Any, ...]:
        return (self.processor, self.model, self.kernel, self.threads, self.lanes)


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


def products(seconds: float) -> Iterator[Product]:
    """Of every kernel of this machine, each figure measured for so long; none without compiled kernels."""
    for kernel in _native.kernels() if _native is not None else ():
        around = circumstances()
        rates = {rows: _native.bench_gemm(kernel, rows, GEMM[1], GEMM[0], seconds) for rows in ROWS}
        peak = max(*rates.values(), _native.bench_gemm(kernel, LARGE[0], LARGE[2], LARGE[1], seconds))
        for rows, rate in rates.items():
            yield Product(**around, kernel=kernel, rows=rows, inputs=GEMM[0], outputs=GEMM[1], rate=rate, peak=peak)


def steps(model: Model, threads: Sequence[int], lanes: Sequence[int], seconds: float) -> Iterator[Step]:
    """Each figure measured for so long (and 10 steps), with windows that are full, and any tokens."""
    from lmcompress.engine.native import Engine

    rng, vocabulary = np.random.default_rng(0), model.config.vocab_size
    for n_threads in threads:
        engine = Engine(model, n_threads)
        for n_lanes in lanes:
            around, state, times = circumstances(), engine.start(n_lanes), list[float]()
            engine.run(state, rng.integers(0, vocabulary, (n_lanes, model.config.longest_window)).astype(np.int32))
            end = time.perf_counter() + seconds
            while len(times) < 10 or time.perf_counter() < end:
                tokens = rng.integers(0, vocabulary, n_lanes).astype(np.int32)
                start = time.perf_counter()
                engine.distribution(state, tokens)
                times.append(time.perf_counter() - start)
            least, median = float(min(times)), float(np.median(times))
            yield Step(
                **around, model=model.name, kernel=engine.kernel, threads=n_threads, lanes=n_lanes, least=least,
                median=median,
            )  # fmt: skip


def products_table(products: Iterable[Product]) -> list[list[str]]:
    """10^9 multiply-adds per second, and shares of the peak."""
    products = [p for p in products if (p.inputs, p.outputs) == GEMM]
    table = [
        ["processor", "kernel", *(f"{rows} row{'s' * (rows > 1)}" for rows in ROWS), "peak"],
        ["---", "---", *["---:"] * (len(ROWS) + 1)],
    ]
    for line in dict.fromkeys((p.processor, p.kernel) for p in products):
        group = [p for p in products if (p.processor, p.kernel) == line]
        cells = {p.rows: f"{p.rate / 1e9:.0f} ({p.rate / p.peak:.0%})" for p in group}
        peak = max(p.peak for p in group)
        table.append([*line, *(cells.get(rows, "") for rows in ROWS), f"{peak / 1e9:,.0f}"])
    return table


def steps_table(steps: Iterable[Step]) -> list[list[str]]:
    """Microseconds of a step: the least, the median."""
    steps = list(steps)
    lanes = sorted({step.lanes for step in steps})
    table = [["processor", "model", "kernel", "threads", *(f"{n} lanes" if n > 1 else "1 lane" for n in lanes)]]
    table.append(["---", "---", "---", *["---:"] * (1 + len(lanes))])
    for line in dict.fromkeys((step.processor, step.model, step.kernel, step.threads) for step in steps):
        cells = {
            step.lanes: f"{1e6 * step.least:,.0f} / {1e6 * step.median:,.0f}"
            for step in steps
            if (step.processor, step.model, step.kernel, step.threads) == line
        }
        table.append([*map(str, line), *(cells.get(n, "") for n in lanes)])
    return table

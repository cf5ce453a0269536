"""Speed of the compiled engine: tokens and multiply-adds per second against the matrix kernel's own peak in the same run.

    python -m benchmarks.engine_speed [--seconds 1] [--kernel NAME] [--threads 1 2] [--lanes 1 2 4 8 16 64 128]
    python -m benchmarks.engine_speed --steps   (microseconds of a step with the distribution: the least, the median)

Knows: the shape of the fast model, random weights of that shape (speed does not depend on them). Does not know: text,
coding. Each figure is the median over slices of a run; the peak is measured between the slices.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from lmcompress import _native
from lmcompress.config import HEAD_SIZE, ModelConfig
from lmcompress.engine import native
from lmcompress.modelfile import Layer, Model
from lmcompress.tokenizer import byte_tokenizer

FAST = ModelConfig(vocab_size=6144, d_model=256, n_layer=5, n_head=4, d_ff=768, window=192)
SLICE = 0.06  # seconds
BATCH = 256  # (lane, position) pairs in one call when encoding, as in predictor.py


def random_model(c: ModelConfig) -> Model:
    """A model of this shape whose activations fill their ranges."""
    rng = np.random.default_rng(0)
    d, heads = c.d_model, c.n_head * HEAD_SIZE

    def matrix(rows: int, columns: int) -> np.ndarray:
        return rng.integers(-63, 64, (rows, columns)).astype(np.int8)

    def scale(rows: int, unit: float) -> np.ndarray:
        return np.full(rows, unit, np.float32)

    layers = tuple(
        Layer(
            matrix(heads + 2 * HEAD_SIZE, d), scale(heads + 2 * HEAD_SIZE, 0.003), np.full(c.n_head, 20, np.int32),
            np.array(1.7, np.float32), matrix(d, heads), scale(d, 0.01), matrix(c.d_ff, d), scale(c.d_ff, 0.006),
            matrix(d, c.d_ff), scale(d, 0.003), np.ones(d, np.float32), np.ones(d, np.float32),
        )
        for _ in range(c.n_layer)
    )  # fmt: skip
    embed = rng.integers(-127, 128, (c.vocab_size, d)).astype(np.int8)
    head, depths = matrix(c.vocab_size, d), np.zeros(c.vocab_size, np.uint8)
    return Model(
        "random", c, byte_tokenizer(), depths, embed, layers, head, scale(c.vocab_size, 0.05), np.ones(d, np.float32)
    )


def multiply_adds(c: ModelConfig) -> int:
    """Per token with a full window: matrices and attention."""
    heads = c.n_head * HEAD_SIZE
    layer = c.d_model * (2 * heads + 2 * HEAD_SIZE + 2 * c.d_ff) + 2 * heads * c.window
    return c.n_layer * layer + c.vocab_size * c.d_model


def run(engine: native.Engine, state: Any, tokens: np.ndarray, cumulate: bool) -> int:
    """One call of the engine; how many tokens it saw."""
    if cumulate:
        engine.distribution(state, tokens)
    else:
        engine.run(state, tokens)
    return tokens.size


def rate(work: Callable[[], int], seconds: float) -> float:
    """What work() counts, per second of a slice."""
    start, count = time.perf_counter(), 0
    while (spent := time.perf_counter() - start) < seconds or count == 0:
        count += work()
    return count / spent


def step_times(engine: native.Engine, n_lanes: int, seconds: float) -> np.ndarray:
    """Microseconds of each step of so many lanes, in order of size."""
    rng = np.random.default_rng(0)
    state, times = engine.start(n_lanes), list[tuple[float, float]]()
    engine.run(state, rng.integers(0, FAST.vocab_size, (n_lanes, FAST.window)).astype(np.int32))
    end = time.perf_counter() + seconds
    while len(times) < 10 or times[-1][1] < end:
        tokens = rng.integers(0, FAST.vocab_size, n_lanes).astype(np.int32)
        start = time.perf_counter()
        engine.distribution(state, tokens)
        times.append((start, time.perf_counter()))
    return np.sort(1e6 * np.diff(times)[:, 0])


def print_steps(threads: list[int], lanes: list[int], seconds: float) -> None:
    """A row for each number of threads, two figures for each number of lanes."""
    model = random_model(FAST)
    print("least / median microseconds of a step; lanes", *(f"{n:11}" for n in lanes))
    for n_threads in threads:
        engine = native.Engine(model, n_threads)
        found = (step_times(engine, n, seconds) for n in lanes)
        print(f"{engine.name:45}", *(f"{t[0]:5.0f}/{t[len(t) // 2]:5.0f}" for t in found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--kernel", help="instruction set; the best by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 64, 128])
    parser.add_argument("--steps", action="store_true", help="the time of single steps")
    args = parser.parse_args()
    if args.kernel:
        os.environ[native.KERNEL_VARIABLE] = args.kernel
    if args.steps:
        print_steps(args.threads, args.lanes, args.seconds)
        return
    model, rng = random_model(FAST), np.random.default_rng(0)
    macs = multiply_adds(FAST)
    print(f"{macs / 1e6:.2f} M multiply-adds per token; peak: products of 256 x 2048 by 2048 x 2048, one thread")
    print("kernel threads lanes way     tokens/s  GMAC/s/thread  peak  ratio  with the distribution: tokens/s  ratio")
    for threads in args.threads:
        engine = native.Engine(model, threads)
        kernel = _native.engine_kernel(engine._engine)
        for n_lanes in args.lanes:
            for way, T in (("decode", 1), ("encode", max(1, BATCH // n_lanes))):
                state = engine.start(n_lanes)
                tokens = rng.integers(0, FAST.vocab_size, (n_lanes, T)).astype(np.int32)
                engine.run(state, rng.integers(0, FAST.vocab_size, (n_lanes, FAST.window)).astype(np.int32))

                step = partial(run, engine, state, tokens, False)
                step_and_cumulate = partial(run, engine, state, tokens, True)
                rates, whole, peaks = [], [], []
                for _ in range(max(3, int(args.seconds / SLICE / 3))):
                    rates.append(rate(step, SLICE))
                    peaks.append(_native.bench_gemm(kernel, 256, 2048, 2048, SLICE) / 1e9)
                    whole.append(rate(step_and_cumulate, SLICE))
                r, w, peak = map(statistics.median, (rates, whole, peaks))
                g, gw = (x * macs / 1e9 / threads for x in (r, w))
                print(
                    f"{kernel} {threads:7} {n_lanes:5} {way}  {r:10,.0f} {g:14.1f} {peak:5.0f} {g / peak:6.2f}"
                    f" {w:32,.0f} {gw / peak:6.2f}"
                )


if __name__ == "__main__":
    main()

"""Speed of the compiled engine: tokens and multiply-adds per second against the matrix kernel's own peak in the same run.

    python -m benchmarks.engine_speed [--model fast] [--seconds 1] [--kernel NAME] [--threads 1 2] [--lanes 1 2 4 8 16 64 128]

Knows: a model's shape. Does not know: text, coding. Each figure is the median over slices of a run; the peak is measured between
the slices. Single steps: `python -m benchmarks steps`.
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

from lmcompress import _native, modelfile
from lmcompress.config import HEAD_SIZE, ModelConfig
from lmcompress.engine import native

SLICE = 0.06  # seconds
BATCH = 256  # (lane, position) pairs in one call when encoding, as in predictor.py


def multiply_adds(c: ModelConfig) -> int:
    """Per token with a full window: matrices and attention."""
    count = c.vocab_size * c.d_model
    for n_head, d_ff, window in c.layers:
        heads = n_head * HEAD_SIZE
        count += c.d_model * (2 * heads + 2 * HEAD_SIZE * (n_head > 0) + 2 * d_ff) + 2 * heads * window
    return count


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fast", help="shipped, or a model file")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each figure")
    parser.add_argument("--kernel", help="instruction set; the best by default")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--lanes", type=int, nargs="+", default=[1, 2, 4, 8, 16, 64, 128])
    args = parser.parse_args()
    if args.kernel:
        os.environ[native.KERNEL_VARIABLE] = args.kernel
    model, rng = modelfile.load(args.model), np.random.default_rng(0)
    c, macs = model.config, multiply_adds(model.config)
    print(f"{macs / 1e6:.2f} M multiply-adds per token; peak: products of 256 x 2048 by 2048 x 2048, one thread")
    print("kernel threads lanes way     tokens/s  GMAC/s/thread  peak  ratio  with the distribution: tokens/s  ratio")
    for threads in args.threads:
        engine = native.Engine(model, threads)
        for n_lanes in args.lanes:
            for way, T in (("decode", 1), ("encode", max(1, BATCH // n_lanes))):
                state = engine.start(n_lanes)
                tokens = rng.integers(0, c.vocab_size, (n_lanes, T)).astype(np.int32)
                engine.run(state, rng.integers(0, c.vocab_size, (n_lanes, c.longest_window)).astype(np.int32))

                step = partial(run, engine, state, tokens, False)
                step_and_cumulate = partial(run, engine, state, tokens, True)
                rates, whole, peaks = [], [], []
                for _ in range(max(3, int(args.seconds / SLICE / 3))):
                    rates.append(rate(step, SLICE))
                    peaks.append(_native.bench_gemm(engine.kernel, 256, 2048, 2048, SLICE) / 1e9)
                    whole.append(rate(step_and_cumulate, SLICE))
                r, w, peak = map(statistics.median, (rates, whole, peaks))
                g, gw = (x * macs / 1e9 / threads for x in (r, w))
                print(
                    f"{engine.kernel} {threads:7} {n_lanes:5} {way}  {r:10,.0f} {g:14.1f} {peak:5.0f} {g / peak:6.2f}"
                    f" {w:32,.0f} {gw / peak:6.2f}"
                )


if __name__ == "__main__":
    main()

"""The integer Transformer compiled: the integers of engine/reference.py, fast.

Knows: how a model's arrays reach lmcompress._native, which instruction set is wanted. Does not know: arithmetic (that is
in native/, engine.c and kernels*.c), tokenizers, probabilities' use.
"""

from __future__ import annotations

import os
import weakref
from math import prod
from typing import Any

import numpy as np

from lmcompress import _native
from lmcompress.config import TURNS
from lmcompress.distribution import Distribution
from lmcompress.engine import reference
from lmcompress.errors import UnsupportedError
from lmcompress.modelfile import Model

KERNEL_VARIABLE = "LMC_KERNEL"  # an instruction set's name, for tests and measurements; by default the best there is
MAX_THREADS = 64
_LAYER = (
    "qkv",
    "qkv_scale",
    "score",
    "attn_scale",
    "o",
    "o_scale",
    "up",
    "up_scale",
    "down",
    "down_scale",
    "qkv_gain",
    "up_gain",
)


class _Memory:
    """Arrays in memory that goes round: what the system takes to hand out fresh pages is a sixth of a step's time."""

    KEPT = 4  # blocks that wait to be used again, at most

    def __init__(self) -> None:
        self._free: list[bytearray] = []

    def empty(self, shape: tuple[int, ...], dtype: type[np.generic]) -> np.ndarray:
        """An array of any content, whose memory is free again when it and its views are gone."""
        count = prod(shape)
        size = count * np.dtype(dtype).itemsize
        if size == 0:
            return np.empty(shape, dtype)
        try:
            block = self._free.pop()
        except IndexError:
            block = bytearray()
        if len(block) < size:
            block = bytearray(size)
        array = np.frombuffer(block, dtype, count)  # views of it hold it, not the block
        weakref.finalize(array, self._give_back, block).atexit = False
        return array.reshape(shape)

    def _give_back(self, block: bytearray) -> None:
        if len(self._free) < self.KEPT:
            self._free.append(block)


class Engine:
    """All lanes in one call, outside the interpreter's lock. Calls with one state take turns, those with several run at once."""

    def __init__(self, model: Model, threads: int = 1) -> None:
        """threads: of a state that does not say otherwise. Raises UnsupportedError where LMC_KERNEL names an instruction
        set that is not here."""
        kernel = os.environ.get(KERNEL_VARIABLE) or None
        if kernel is not None and kernel not in _native.kernels():
            raise UnsupportedError(f"{KERNEL_VARIABLE}={kernel}: this machine has {', '.join(_native.kernels())}")
        c = model.config
        shape = (c.vocab_size, c.d_model, np.array(c.layers, np.int32))
        tables = (
            reference.COS.astype(np.int16),
            reference.SIN.astype(np.int16),
            np.array(TURNS, np.int32),
            reference.EXP14.astype(np.int32),
            reference.EXP24.astype(np.int32),
        )
        arrays = [
            model.embed,
            *(getattr(layer, name) for layer in model.layers for name in _LAYER),
            model.head,
            model.head_scale,
            model.head_gain,
        ]
        arrays = [np.ascontiguousarray(a, dtype=a.dtype.newbyteorder("=")) for a in arrays]
        self.model, self.threads = model, max(1, min(threads, MAX_THREADS))
        self._groups = -(-c.vocab_size // reference.GROUP)
        self._logits, self._base, self._local, self._features = _Memory(), _Memory(), _Memory(), _Memory()
        self.capsule = _native.engine(kernel, shape, tables, arrays)  # for the C extension's own loops
        self.kernel = _native.engine_kernel(self.capsule)  # the instruction set
        self.name = f"native ({self.kernel}, {self.threads} thread{'s' * (self.threads > 1)})"

    def start(self, n_lanes: int, threads: int = 0) -> Any:
        """What lanes remember before their first token; `threads` share their steps, or as many as the engine says."""
        return _native.engine_start(self.capsule, n_lanes, min(threads, MAX_THREADS) or self.threads)

    def step(self, state: Any, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, V], in 1/256 of log2, of the symbols that follow tokens [n] in lanes 0..n-1.
        Raises ValueError for more lanes than the call before had, and for a token outside the vocabulary."""
        return self.run(state, np.asarray(tokens)[:, None])[:, 0]

    def run(self, state: Any, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, T, V] of T steps; tokens [n, T]."""
        ids = np.ascontiguousarray(tokens, np.int32)
        logits = self._logits.empty((*ids.shape, self.model.config.vocab_size), np.int16)
        _native.engine_run(self.capsule, state, ids, *ids.shape, logits, None)
        return logits

    def distribution(self, state: Any, tokens: np.ndarray) -> Distribution:
        """As reference.Engine.distribution, without the logits' way through memory in between."""
        ids = np.ascontiguousarray(tokens, np.int32)
        base = self._base.empty((*ids.shape, self._groups), np.uint64)
        local = self._local.empty((*ids.shape, self.model.config.vocab_size), np.uint32)
        features = self._features.empty((*ids.shape, self.model.config.d_model), np.int8)
        n, T = ids.shape if ids.ndim == 2 else (len(ids), 1)
        said = Distribution(base, local, features)
        _native.engine_run(self.capsule, state, ids, n, T, None, said)
        return said

    def timed(self, state: Any, on: bool) -> tuple[float, float, float]:
        """Seconds that steps of `state` took for matrices, attention and output distributions since timed() was called
        last; they are counted from now on if `on`."""
        return _native.engine_timed(state, on)

    def cumulate(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As reference.Engine.cumulate: base uint64 [..., ceil(V / 64)], local uint32 [..., V] of int16 [..., V]."""
        logits = np.ascontiguousarray(logits, np.int16)
        rows = logits.shape[:-1]
        base = self._base.empty((*rows, self._groups), np.uint64)
        local = self._local.empty(logits.shape, np.uint32)
        _native.engine_cumulate(self.capsule, logits, prod(rows), base, local)
        return base, local

"""The integer Transformer in numpy: this is the specification (docs/MODEL.md says it in words).

Knows: weights, the state of lanes, exact arithmetic. Does not know: tokenizers, probabilities' use, files.

Every value that passes from one line to the next is an integer. Floating point appears in three forms only, each
defined by IEEE 754 to the last bit: conversion of an integer to binary32 (round half even), one binary32 product,
one binary64 square root or quotient. Products of integer matrices are done in binary64, where every partial sum is
exact (below 2^53) in any order.

Shapes: L lanes, n <= L lanes still running, d = d_model, H = n_head, D = HEAD_SIZE, V = vocab_size, W = the longest window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lmcompress.config import HEAD_SIZE, PERIOD, ROTARY, TURNS
from lmcompress.distribution import Distribution
from lmcompress.modelfile import Model

NORM = 32  # a normalized activation of 1.0
EMBED_SHIFT = 3  # residual stream = embedding << EMBED_SHIFT; a residual of 1.0 is 256
SCORE_SHIFT = 10
GROUP = 64  # symbols in one group of the cumulated distribution

_ANGLE = np.arange(PERIOD) * (2 * np.pi / PERIOD)
# int64 [PERIOD]; no entry is within 1e-6 of a rounding boundary, so that any libm gives the same integers
COS = np.rint(16384 * np.cos(_ANGLE)).astype(np.int64)
SIN = np.rint(16384 * np.sin(_ANGLE)).astype(np.int64)
EXP14 = np.rint(2.0 ** (14 - np.arange(256) / 256)).astype(np.int64)  # attention
EXP24 = np.rint(2.0 ** (24 - np.arange(256) / 256)).astype(np.int64)  # output distribution


@dataclass
class State:
    """What lanes remember. All lanes are at the same position."""

    position: int
    keys: np.ndarray  # int8 [n_layer, L, W, D], slot = position % the layer's window
    values: np.ndarray  # int8 [n_layer, L, W, D]
    still: np.ndarray  # int8 [n_layer, L, D - ROTARY]: the unturned part of the key before


class Engine:
    """The specification, lane by lane in lockstep."""

    name = "reference"

    def __init__(self, model: Model, threads: int = 1) -> None:
        self.model = model

    def start(self, n_lanes: int, threads: int = 0) -> State:
        c = self.model.config
        shape = (c.n_layer, n_lanes, c.longest_window, HEAD_SIZE)
        return State(0, np.zeros(shape, np.int8), np.zeros(shape, np.int8), np.zeros((c.n_layer, n_lanes, HEAD_SIZE - ROTARY), np.int8))  # fmt: skip

    def step(self, state: State, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, V], in 1/256 of log2, of the symbols that follow tokens [n] in lanes 0..n-1."""
        return self._step(state, tokens)[0]

    def _step(self, state: State, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and what the output's matrix was multiplied with, int8 [n, d]."""
        model, n = self.model, len(tokens)
        x = model.embed[tokens].astype(np.int64) << EMBED_SHIFT
        for i, (layer, shape) in enumerate(zip(model.layers, model.config.layers, strict=True)):
            if shape.n_head:
                acc = product(normalize(x, layer.qkv_gain), layer.qkv)
                n_turned = len(layer.qkv) - HEAD_SIZE  # queries and key
                qk = rescale(acc[:, :n_turned], layer.qkv_scale[:n_turned], -32767, 32767)
                v = rescale(acc[:, n_turned:], layer.qkv_scale[n_turned:], -127, 127)
                qk = turn(qk.reshape(n, -1, HEAD_SIZE), state.position)
                x = add(x, product(self._attend(state, i, qk[:, :-1], qk[:, -1], v), layer.o), layer.o_scale)
            if shape.d_ff:
                u = rescale(product(normalize(x, layer.up_gain), layer.up), layer.up_scale, 0, 255)
                x = add(x, product((u * u + 128) >> 8, layer.down), layer.down_scale)
        state.position += 1
        x = normalize(x, model.head_gain)
        return rescale(product(x, model.head), model.head_scale, -32767, 32767).astype(np.int16), x.astype(np.int8)

    def run(self, state: State, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, T, V] of T steps; tokens [n, T]."""
        return self._run(state, tokens)[0]

    def _run(self, state: State, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, features = zip(*(self._step(state, column) for column in tokens.T), strict=True)
        return np.stack(logits, axis=1), np.stack(features, axis=1)

    def distribution(self, state: State, tokens: np.ndarray) -> Distribution:
        """Of what follows tokens [n], or [n, T]: cumulate() of the logits, and the features."""
        logits, features = self._step(state, tokens) if tokens.ndim == 1 else self._run(state, tokens)
        return Distribution(*self.cumulate(logits), features)

    def _attend(self, state: State, i: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Attention outputs int64 [n, H * D] of layer i: q [n, H, D]; k, v [n, D] join the state first."""
        layer, n, window = self.model.layers[i], len(q), self.model.config.layers[i].window
        slot = state.position % window
        state.keys[i, :n, slot, :ROTARY] = k[:, :ROTARY]
        state.keys[i, :n, slot, ROTARY:] = state.still[i, :n]
        state.still[i, :n] = k[:, ROTARY:]
        state.values[i, :n, slot] = v
        seen = min(state.position + 1, window)
        keys = state.keys[i, :n, :seen].astype(np.float64)
        values = state.values[i, :n, :seen].astype(np.float64)
        scores = (q.astype(np.float64) @ keys.transpose(0, 2, 1)).astype(np.int64)  # [n, H, seen], |s| <= 2^20
        below = (scores.max(-1, keepdims=True) - scores) * layer.score[:, None] >> SCORE_SHIFT
        weights = EXP14[below & 255] >> np.minimum(below >> 8, 15)
        total = (weights.astype(np.float64) @ values).astype(np.int64)
        assert np.abs(total).max() < 2**31
        r = (np.float64(layer.attn_scale) / weights.sum(-1, keepdims=True)).astype(np.float32)
        return clamp_round(total.astype(np.float32) * r, -127, 127).reshape(n, -1)

    def cumulate(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The distribution that logits int16 [..., V] stand for, as weights summed over ids: base uint64
        [..., ceil(V / 64)] before each group of 64, local uint32 [..., V] inclusive within the group."""
        below = logits.max(-1, keepdims=True).astype(np.int64) - logits
        weights = (EXP24[below & 255] >> np.minimum(below >> 8, 31)) + 1
        return cumulate_weights(weights)


def cumulate_weights(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """base, local of weights int64 [..., V], each at most 2^24 + 1."""
    V = weights.shape[-1]
    padded = np.concatenate([weights, np.zeros((*weights.shape[:-1], -V % GROUP), np.int64)], -1)
    local = padded.reshape(*weights.shape[:-1], padded.shape[-1] // GROUP, GROUP).cumsum(-1)
    base = local[..., -1].cumsum(-1) - local[..., -1]
    return base.astype(np.uint64), local.reshape(padded.shape)[..., :V].astype(np.uint32)


def product(x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Integers x [n, K] times int8 w [M, K]: int64 [n, M], |result| < 2^31."""
    acc = x.astype(np.float64) @ w.T.astype(np.float64)
    assert np.abs(acc).max(initial=0) < 2**31
    return acc.astype(np.int64)


def clamp_round(y: np.ndarray, low: int, high: int) -> np.ndarray:
    """float32 to int64: nearest integer, half to even, kept within the bounds."""
    assert y.dtype == np.float32
    return np.clip(np.rint(y), low, high).astype(np.int64)


def rescale(acc: np.ndarray, scale: np.ndarray, low: int, high: int) -> np.ndarray:
    """Accumulators [n, M] times float32 scale [M]: one conversion, one product, one rounding."""
    return clamp_round(acc.astype(np.float32) * scale, low, high)


def add(x: np.ndarray, acc: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The residual stream [n, d] and what a matrix gave for it; stays within int16."""
    return np.clip(x + rescale(acc, scale, -32767, 32767), -32767, 32767)


def inverse_rms(x: np.ndarray, unit: float) -> np.ndarray:
    """float32 [..., 1]: unit * sqrt(K) / sqrt(sum of squares) of integers x [..., K]; 0 for a row of zeros.
    unit * sqrt(K) is one binary64 constant."""
    energy = np.square(x).sum(-1, keepdims=True)
    assert energy.max(initial=0) < 2**53
    gain = np.float64(unit) * np.sqrt(np.float64(x.shape[-1]))
    root = np.sqrt(energy.astype(np.float64))
    return np.where(energy == 0, 0.0, gain / np.maximum(root, 1.0)).astype(np.float32)


def normalize(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Integers in [-127, 127]: x [n, d] over its root mean square, 1.0 being NORM, times the channels' float32 gain [d],
    powers of two, so that the product with them is exact."""
    return clamp_round(x.astype(np.float32) * inverse_rms(x, NORM) * gain, -127, 127)


def turn(t: np.ndarray, position: int) -> np.ndarray:
    """Heads [n, h, D] in int16 range, normalized and the first ROTARY components turned by the position."""
    half = ROTARY // 2
    angle = position * np.array(TURNS) % PERIOD
    cos, sin = COS[angle], SIN[angle]
    a, b, rest = t[..., :half], t[..., half:ROTARY], t[..., ROTARY:]
    turned = np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)
    assert np.abs(turned).max(initial=0) < 2**31
    r = inverse_rms(t, NORM)
    r_turned = r * np.float32(2.0**-14)  # exact: a power of two
    return np.concatenate(
        [
            clamp_round(turned.astype(np.float32) * r_turned, -127, 127),
            clamp_round(rest.astype(np.float32) * r, -127, 127),
        ],
        -1,
    )

"""The integer Transformer in torch, on a CPU or a GPU: the integers of engine/reference.py.

Knows: what the reference knows, and devices. Does not know: gradients (training/model.py has the same integers with them).
Products of integer matrices are float64, where they are exact in any order; elementwise operations are those that
IEEE 754 defines, one at a time, so nothing can be fused or reordered.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmcompress.config import HEAD_SIZE, PERIOD, ROTARY, TURNS
from lmcompress.distribution import Distribution
from lmcompress.engine import reference
from lmcompress.engine.reference import EMBED_SHIFT, NORM, SCORE_SHIFT
from lmcompress.modelfile import Model

COLUMNS = 64  # steps that `run` takes through the network together


@dataclass
class State:
    """What lanes remember, of each layer: keys and values float64 [L, min(position, W - 1), D], the last position's last."""

    position: int
    n_lanes: int
    keys: list[Tensor]
    values: list[Tensor]
    still: list[Tensor]  # float64 [L, 1, D - ROTARY]: the unturned part of the key before


class Engine:
    """All lanes, many steps at once; `device` as torch has it."""

    def __init__(self, model: Model, threads: int = 1, device: str = "cpu") -> None:
        self.model, self.device = model, torch.device(device)
        self.name = f"torch ({device})"
        self.embed, self.head = self._matrix(model.embed), self._matrix(model.head)
        self.head_scale, self.head_gain = self._tensor(model.head_scale), self._tensor(model.head_gain)
        self.layers = [
            {n: self._matrix(a) if a.ndim == 2 else self._tensor(a) for n, a in vars(layer).items()}
            for layer in model.layers
        ]
        angle = np.arange(PERIOD)[:, None] * np.array(TURNS) % PERIOD
        self.cos, self.sin = (self._tensor(table[angle]).double() for table in (reference.COS, reference.SIN))
        self.exp14, self.exp24 = self._tensor(reference.EXP14), self._tensor(reference.EXP24)

    def start(self, n_lanes: int, threads: int = 0) -> State:
        def of_each(*shape: int) -> list[Tensor]:
            return [torch.zeros(shape, dtype=torch.float64, device=self.device) for _ in self.layers]

        nothing = (n_lanes, 0, HEAD_SIZE)
        return State(0, n_lanes, of_each(*nothing), of_each(*nothing), of_each(n_lanes, 1, HEAD_SIZE - ROTARY))

    def step(self, state: State, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, V], in 1/256 of log2, of the symbols that follow tokens [n] in lanes 0..n-1."""
        return self.run(state, np.asarray(tokens)[:, None])[:, 0]

    def run(self, state: State, tokens: np.ndarray) -> np.ndarray:
        """Logits int16 [n, T, V] of T steps; tokens [n, T]."""
        return self._steps(state, tokens)[0]

    @torch.no_grad()
    def _steps(self, state: State, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Logits, and what the output's matrix was multiplied with, int8 [n, T, d]."""
        n = len(tokens)
        for of_each in (state.keys, state.values, state.still):
            of_each[:] = [t[:n] for t in of_each]
        parts = [self._run(state, tokens[:, t : t + COLUMNS]) for t in range(0, tokens.shape[1], COLUMNS)]
        logits, features = (np.concatenate(part, axis=1) for part in zip(*parts, strict=True))
        return logits, features

    def distribution(self, state: State, tokens: np.ndarray) -> Distribution:
        """As reference.Engine.distribution."""
        logits, features = self._steps(state, tokens.reshape(len(tokens), -1))
        if tokens.ndim == 1:
            logits, features = logits[:, 0], features[:, 0]
        return Distribution(*self.cumulate(logits), features)

    def cumulate(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As reference.Engine.cumulate."""
        x = self._tensor(logits).long()
        below = x.amax(-1, keepdim=True) - x
        weights = (self.exp24[below & 255] >> (below >> 8).clamp_max(31)) + 1
        return reference.cumulate_weights(weights.cpu().numpy())

    def _run(self, state: State, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x = self.embed[self._tensor(np.asarray(tokens, np.int64))] * (1 << EMBED_SHIFT)
        for i, (layer, shape) in enumerate(zip(self.layers, self.model.config.layers, strict=True)):
            if shape.n_head:
                acc = normalize(x, layer["qkv_gain"]) @ layer["qkv"].T
                turned = acc.shape[-1] - HEAD_SIZE
                qk = rescale(acc[..., :turned], layer["qkv_scale"][:turned], -32767, 32767)
                v = rescale(acc[..., turned:], layer["qkv_scale"][turned:], -127, 127)
                qk = self._turn(qk.unflatten(-1, (-1, HEAD_SIZE)), state.position)
                k = qk[:, :, -1]
                before = torch.cat([state.still[i], k[..., ROTARY:]], 1)
                k = torch.cat([state.keys[i], torch.cat([k[..., :ROTARY], before[:, :-1]], -1)], 1)
                v = torch.cat([state.values[i], v], 1)
                y = self._attend(layer, qk[:, :, :-1], k, v, shape.window)
                x = add(x, y @ layer["o"].T, layer["o_scale"])
                keep = max(0, k.shape[1] - shape.window + 1)
                state.keys[i], state.values[i], state.still[i] = k[:, keep:], v[:, keep:], before[:, -1:]
            if shape.d_ff:
                u = rescale(normalize(x, layer["up_gain"]) @ layer["up"].T, layer["up_scale"], 0, 255)
                x = add(x, torch.floor((u * u + 128) / 256) @ layer["down"].T, layer["down_scale"])
        state.position += tokens.shape[1]
        x = normalize(x, self.head_gain)
        logits = rescale(x @ self.head.T, self.head_scale, -32767, 32767)
        return logits.short().cpu().numpy(), x.to(torch.int8).cpu().numpy()

    def _attend(self, layer: dict[str, Tensor], q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        """[n, T, H * D] from q [n, T, H, D] and the S >= T positions of k, v [n, S, D], the last T the queries' own."""
        T, S = q.shape[1], k.shape[1]
        distance = torch.arange(S - T, S, device=q.device)[:, None] - torch.arange(S, device=q.device)
        unseen = (distance < 0) | (distance >= window)
        scores = q.transpose(1, 2) @ k[:, None].transpose(2, 3)  # [n, H, T, S]
        top = scores.masked_fill(unseen, -(2.0**21)).amax(-1, keepdim=True)
        below = (top - scores).clamp_min(0).long() * layer["score"].long()[:, None, None] >> SCORE_SHIFT
        weights = (self.exp14[below & 255] >> (below >> 8).clamp_max(15)).double().masked_fill(unseen, 0.0)
        total = weights @ v[:, None]
        r = (layer["attn_scale"].double() / weights.sum(-1, keepdim=True)).float()
        return clamp_round(total.float() * r, -127, 127).transpose(1, 2).flatten(2)

    def _turn(self, t: Tensor, position: int) -> Tensor:
        """As reference.turn, heads [n, T, h, D]; the first of the T is at `position`."""
        half = ROTARY // 2
        at = torch.arange(position, position + t.shape[1], device=self.device) % PERIOD
        cos, sin = self.cos[at][:, None], self.sin[at][:, None]
        a, b, rest = t.split([half, half, HEAD_SIZE - ROTARY], -1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)  # exact: below 2^31
        r = inverse_rms(t)
        return torch.cat(
            [clamp_round(turned.float() * (r * 2.0**-14), -127, 127), clamp_round(rest.float() * r, -127, 127)], -1
        )

    def _matrix(self, array: np.ndarray) -> Tensor:
        return self._tensor(array).double()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(array)).to(self.device)


def clamp_round(y: Tensor, low: int, high: int) -> Tensor:
    """float32 to integers in float64: nearest, half to even, kept within the bounds."""
    return y.round().clamp(low, high).double()


def rescale(acc: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    return clamp_round(acc.float() * scale, low, high)


def add(x: Tensor, acc: Tensor, scale: Tensor) -> Tensor:
    return (x + rescale(acc, scale, -32767, 32767)).clamp(-32767, 32767)


def inverse_rms(x: Tensor) -> Tensor:
    """float32 [..., 1], as reference.inverse_rms with the unit NORM."""
    energy = x.square().sum(-1, keepdim=True)
    gain = float(np.float64(NORM) * np.sqrt(np.float64(x.shape[-1])))
    return torch.where(energy == 0, 0.0, gain / energy.sqrt().clamp_min(1.0)).float()


def normalize(x: Tensor, gain: Tensor) -> Tensor:
    return clamp_round(x.float() * inverse_rms(x) * gain, -127, 127)

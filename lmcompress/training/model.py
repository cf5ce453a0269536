"""The Transformer in floating point, and the same with the integers of docs/MODEL.md in its forward pass.

Knows: parameters, gradients, how each quantity is rounded. Does not know: data, optimizers, files.
With `quantized` set, every value between two operations is the integer that the exact engine has, held in a float32;
gradients pass the roundings unchanged (straight-through estimation, Bengio et al. 2013).

Shapes: B sequences, T positions, d = d_model, H = n_head, D = HEAD_SIZE, V = vocab_size.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lmcompress.config import HEAD_SIZE, PERIOD, ROTARY, TURNS, LayerConfig, ModelConfig
from lmcompress.engine.reference import COS, EMBED_SHIFT, EXP14, NORM, SCORE_SHIFT, SIN
from lmcompress.modelfile import WEIGHT_MAX

RESIDUAL = NORM << EMBED_SHIFT  # residual stream: integer = RESIDUAL * value
LOG2 = 256  # logits: integer = LOG2 * log2 of the weight
STRONG = 8  # directions of the features, see Transformer.spread
EXP14_TABLE = torch.from_numpy(EXP14).int()
# score differences to LOG2 * log2, before the shift, for a gain of 1
SCORE_UNIT = HEAD_SIZE**-0.5 / NORM**2 * math.log2(math.e) * LOG2 * 2**SCORE_SHIFT


def round_clamp(x: Tensor, scale: Tensor | float, low: float, high: float) -> Tensor:
    """x * scale rounded and clamped to [low, high]; the gradient is that of x * scale inside the bounds."""
    y = x * scale
    smooth = y.clamp(low - 0.5, high + 0.5)
    # exact: an integer less a number within 0.5 of it (Sterbenz), and back
    return smooth + (y.round().clamp(low, high) - smooth).detach()


class _IntegerLinear(torch.autograd.Function):
    """float32 [N, K] integers in [-128, 127] times float32 [M, K] integers: exact float32 [N, M].
    Backward is an ordinary product, in bfloat16."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor) -> Tensor:
        x8, w8 = x.to(torch.int8), w.to(torch.int8)
        ctx.save_for_backward(x8, w8)
        return torch._int_mm(x8, w8.t()).float()

    @staticmethod
    def backward(ctx, grad: Tensor):
        x8, w8 = ctx.saved_tensors
        g = grad.bfloat16()
        return (g @ w8.bfloat16()).float(), (g.t() @ x8.bfloat16()).float()


def quantize_weight(w: Tensor) -> tuple[Tensor, Tensor]:
    """Integers in [-63, 63] (float32, gradient passed through) and the scale of each row: w ~ integers * scale."""
    if not w.numel():
        return w, w.new_zeros(0)
    scale = (w.detach().abs().amax(1) / WEIGHT_MAX).clamp_min(1e-8)
    return round_clamp(w, (1 / scale)[:, None], -WEIGHT_MAX, WEIGHT_MAX), scale


def integer_linear(x: Tensor, w: Tensor, unsigned: bool = False) -> tuple[Tensor, Tensor]:
    """Accumulators [..., M] of integers x [..., K] (in [0, 255] if `unsigned`) with the quantized rows of w, and the
    rows' scales [M]."""
    wq, scale = quantize_weight(w)
    flat = x.reshape(-1, x.size(-1))
    if unsigned:  # int8 holds x - 128
        return (_IntegerLinear.apply(flat - 128, wq) + 128 * wq.sum(1)).view(*x.shape[:-1], -1), scale
    return _IntegerLinear.apply(flat, wq).view(*x.shape[:-1], -1), scale


def rotation_table() -> Tensor:
    """float32 [2, PERIOD, ROTARY/2]: cosine and sine of each pair's angle at each position, the engine's."""
    angle = torch.arange(PERIOD)[:, None] * torch.tensor(TURNS) % PERIOD
    return torch.stack([torch.from_numpy(COS)[angle], torch.from_numpy(SIN)[angle]]).float() / 16384


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns the first ROTARY components of x [..., T, D] by the position's angles."""
    a, b, rest = x.split([ROTARY // 2, ROTARY // 2, x.size(-1) - ROTARY], -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin, rest], -1)


def shift_keys(k: Tensor) -> Tensor:
    """Components without a position come from the key before: so a head can find what followed the current token
    earlier, in one layer. k: [B, T, D]."""
    turned, still = k.split([ROTARY, k.size(-1) - ROTARY], -1)
    return torch.cat([turned, F.pad(still, (0, 0, 1, 0))[:, :-1]], -1)


def window_mask(T: int, window: int, device) -> Tensor:
    """bool [T, T]: which key each query sees."""
    distance = torch.arange(T, device=device)[:, None] - torch.arange(T, device=device)
    return (distance >= 0) & (distance < window)


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, window: int) -> Tensor:
    """[B, H, T, D] of q [B, H, T, D] on one head of k and v [B, T, D], each query on the keys that `mask` [T, T] shows it.
    A window of queries at a time, with the keys that one of them may see, and all heads in one product."""
    B, H, T, D = q.shape
    q, v = q * D**-0.5, F.pad(v, (0, 1), value=1.0)  # the last column sums the weights
    outputs = []
    for start in range(0, T, window):
        stop = min(start + window, T)
        seen = slice(max(0, start - window), stop)
        scores = q[:, :, start:stop].reshape(B, -1, D) @ k[:, seen].transpose(1, 2)
        weights = scores.view(B, H, stop - start, -1).exp() * mask[start:stop, seen]  # |scores| <= 8 gain
        outputs.append((weights.view(B, H * (stop - start), -1) @ v[:, seen]).view(B, H, -1, D + 1))
    y, total = torch.cat(outputs, 2).split([D, 1], -1)
    return y / total


class Block(nn.Module):
    """One layer. What it lacks, attention or MLP, has empty parameters."""

    def __init__(self, d: int, config: LayerConfig) -> None:
        super().__init__()
        n = config.n_head * HEAD_SIZE
        self.n_head, self.d_ff, self.window = config
        self.q = nn.Parameter(torch.randn(n, d) * d**-0.5)
        self.kv = nn.Parameter(torch.randn(2 * HEAD_SIZE if n else 0, d) * d**-0.5)
        self.o = nn.Parameter(torch.zeros(d, n))
        self.up = nn.Parameter(torch.randn(config.d_ff, d) * d**-0.5)
        self.down = nn.Parameter(torch.zeros(d, config.d_ff))
        self.gain = nn.Parameter(torch.full((config.n_head,), 1.44))
        # largest magnitudes that the integers can hold; calibrate() sets them
        # powers of two by which large channels are made smaller after the two normalizations
        self.register_buffer("qkv_gain", torch.ones(d))
        self.register_buffer("up_gain", torch.ones(d))
        self.register_buffer("clip_v", torch.tensor(4.0))
        self.register_buffer("clip_o", torch.tensor(4.0))
        self.register_buffer("clip_u", torch.tensor(8.0))
        self.seen: dict[str, Tensor] | None = None  # filled while calibrating

    def forward(self, x: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """x: [B, T, d] residual stream."""
        if self.n_head:
            x = self.attend(x, rotation, mask)
        return self.transform(x) if self.d_ff else x

    def attend(self, x: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        B, T, d = x.shape
        cos, sin = rotation[:, :T]
        h = F.rms_norm(x, (d,))
        q = F.linear(h, self.q).view(B, T, self.n_head, HEAD_SIZE).transpose(1, 2)
        k, v = F.linear(h, self.kv).split(HEAD_SIZE, -1)
        q = rotate(F.rms_norm(q, (HEAD_SIZE,)), cos, sin) * self.gain[:, None, None].to(x.dtype)
        k = shift_keys(rotate(F.rms_norm(k, (HEAD_SIZE,)), cos, sin))
        y = windowed_attention(q, k, v, mask, self.window)
        y = y.transpose(1, 2).reshape(B, T, -1)
        if self.seen is not None:
            self.seen.update(v=v, o=y, qkv=h)
        return x + F.linear(y, self.o)

    def transform(self, x: Tensor) -> Tensor:
        r = F.rms_norm(x, (x.size(-1),))
        u = F.linear(r, self.up)
        if self.seen is not None:
            self.seen.update(u=u, up=r)
        return x + F.linear(F.relu(u).square(), self.down)

    def forward_quantized(self, x: Tensor, rotation: Tensor, mask: Tensor) -> Tensor:
        """x: [B, T, d] residual stream, integers."""
        s = self.multipliers()
        if self.n_head:
            x = self.attend_quantized(x, rotation, mask, s)
        if self.d_ff:
            u = round_clamp(integer_linear(norm(x, self.up_gain), self.up / self.up_gain)[0], s["up"], 0, 255)
            x = add(x, integer_linear(square_quantized(u), self.down, unsigned=True)[0], s["down"])
        return x

    def attend_quantized(self, x: Tensor, rotation: Tensor, mask: Tensor, s: dict[str, Tensor]) -> Tensor:
        B, T, _ = x.shape
        h = norm(x, self.qkv_gain)
        q = round_clamp(integer_linear(h, self.q / self.qkv_gain)[0], s["q"], -32767, 32767)
        kv = integer_linear(h, self.kv / self.qkv_gain)[0]
        k = round_clamp(kv[..., :HEAD_SIZE], s["kv"][:HEAD_SIZE], -32767, 32767)
        v = round_clamp(kv[..., HEAD_SIZE:], s["kv"][HEAD_SIZE:], -127, 127)
        q = rotate_quantized(q.view(B, T, self.n_head, HEAD_SIZE).transpose(1, 2), rotation[:, :T])
        k = shift_keys(rotate_quantized(k, rotation[:, :T]))
        y = integer_attention(q, k, v, self.gain, s["attn"], mask)
        y = y.transpose(1, 2).reshape(B, T, -1)
        return add(x, integer_linear(y, self.o)[0], s["o"])

    def matrices(self) -> dict[str, Tensor]:
        """What is quantized: the gains of the channels read are taken back here."""
        q, kv, up = self.q / self.qkv_gain, self.kv / self.qkv_gain, self.up / self.up_gain
        return {"q": q, "kv": kv, "o": self.o, "up": up, "down": self.down}

    def multipliers(self) -> dict[str, Tensor]:
        """float32 factors from accumulators to the next integers."""
        scale = {n: quantize_weight(w)[1] for n, w in self.matrices().items()}
        k, v = scale["kv"].tensor_split([HEAD_SIZE])
        return {
            "q": scale["q"] * (RESIDUAL / NORM),
            "kv": torch.cat([k * (RESIDUAL / NORM), v * (127 / NORM) / self.clip_v]),
            "attn": self.clip_v / self.clip_o,
            "o": scale["o"] * (self.clip_o * (RESIDUAL / 127)),
            "up": scale["up"] * (255 / NORM) / self.clip_u,
            "down": scale["down"] * (self.clip_u.square() * (RESIDUAL * 256 / 255**2)),
        }


def norm(x: Tensor, gain: Tensor) -> Tensor:
    """Integers in [-127, 127]: x [..., n] over its root mean square, times NORM and the channels' gain [n]."""
    n = x.size(-1)
    energy = x.detach().double().square().sum(-1, keepdim=True)
    r = torch.where(energy == 0, 0.0, NORM * math.sqrt(n) / energy.sqrt().clamp_min(1.0)).float()
    y = x * r * gain
    # gradient of the normalization: the part along x vanishes
    rounded = y.round().clamp(-127, 127)
    if not torch.is_grad_enabled():
        return rounded
    smooth = F.rms_norm(x, (n,)) * NORM * gain
    inside = (smooth.abs() <= 127.5).float()
    return (smooth * inside) + (rounded - smooth * inside).detach()


def rotate_quantized(t: Tensor, rotation: Tensor) -> Tensor:
    """Integers in [-127, 127] of a query or key [..., T, D]: normalized and turned."""
    cos, sin = rotation * 16384
    a, b, rest = t.split([ROTARY // 2, ROTARY // 2, HEAD_SIZE - ROTARY], -1)
    with torch.no_grad():
        energy = t.double().square().sum(-1, keepdim=True)
        r = torch.where(energy == 0, 0.0, NORM * math.sqrt(HEAD_SIZE) / energy.sqrt().clamp_min(1.0))
        ad, bd, cd, sd = a.double(), b.double(), cos.double(), sin.double()
        turned = torch.cat([ad * cd - bd * sd, bd * cd + ad * sd], -1).float() * (r / 16384).float()
        exact = torch.cat([turned, rest * r.float()], -1).round().clamp(-127, 127)
    if not torch.is_grad_enabled():
        return exact
    smooth = rotate(F.rms_norm(t, (HEAD_SIZE,)), *rotation) * NORM
    inside = (smooth.abs() <= 127.5).float()
    return smooth * inside + (exact - smooth * inside).detach()


def score_factor(gain: Tensor) -> Tensor:
    """int32 [H]: score differences to LOG2 * log2, before the shift."""
    return (gain * SCORE_UNIT).round().clamp(1, 511).int()


class _IntegerAttention(torch.autograd.Function):
    """Integers in [-127, 127] [B, H, T, D] from integers q [B, H, T, D], k and v [B, T, D]; gradients are those of
    softmax attention with the same weights. One sequence after the other, so that its scores stay in the cache."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, gain: Tensor, out_scale: Tensor, mask: Tensor) -> Tensor:
        factor = score_factor(gain)[:, None, None]
        table = EXP14_TABLE.to(q.device)
        low = torch.where(mask, 0.0, -(2.0**21))
        p = torch.empty((*q.shape[:3], q.shape[2]), dtype=torch.int16, device=q.device)
        y = torch.empty_like(q)
        for b in range(len(q)):
            scores = q[b] @ k[b].t() + low  # |q . k| <= 2^20, exact
            below = ((scores.amax(-1, keepdim=True) - scores).int().mul_(factor) >> SCORE_SHIFT).clamp_(0, 4095)
            weights = (table[below & 255] >> (below >> 8)).mul_(mask)
            p[b] = weights
            high = (weights >> 7).float()  # two halves, each product exact in float32; their sum rounds once
            num = (high @ v[b]) * 128 + (weights & 127).float() @ v[b]
            y[b] = num * (out_scale.double() / weights.sum(-1, keepdim=True).double()).float()
        ctx.save_for_backward(q, k, v, gain, out_scale, p, y)
        return y.round().clamp_(-127, 127)

    @staticmethod
    def backward(ctx, grad: Tensor):
        q, k, v, gain, out_scale, p, y = ctx.saved_tensors
        g = (grad * (y.abs() <= 127.5) * out_scale).bfloat16()
        scale = (gain * (HEAD_SIZE**-0.5 / NORM**2))[:, None, None]
        grad_q, grad_k, grad_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        for b in range(len(q)):
            share = p[b].float()
            share /= share.sum(-1, keepdim=True)
            grad_v[b] = (share.bfloat16().transpose(1, 2) @ g[b]).sum(0)
            grad_logit = (g[b] @ v[b].t().bfloat16()).float()
            grad_logit -= (share * grad_logit).sum(-1, keepdim=True)
            grad_score = grad_logit.mul_(share).mul_(scale).bfloat16()
            grad_q[b] = grad_score @ k[b].bfloat16()
            grad_k[b] = (grad_score.transpose(1, 2) @ q[b].bfloat16()).sum(0)
        # logit = gain * unit * score, so the gradient of the gain is that of q along q, over the gain
        grad_gain = (grad_q * q).sum((0, 2, 3)) / gain
        return grad_q, grad_k, grad_v, grad_gain, None, None


integer_attention = torch.compiler.disable(_IntegerAttention.apply)


def square_quantized(u: Tensor) -> Tensor:
    """(u * u + 128) >> 8 for integers u in [0, 255]."""
    smooth = u.square() / 256
    return smooth + (torch.floor((u.square() + 128) / 256) - smooth).detach()


def add(x: Tensor, acc: Tensor, scale: Tensor) -> Tensor:
    """The residual stream after adding the rescaled accumulators."""
    return (x + round_clamp(acc, scale, -32767, 32767)).clamp(-32767, 32767)


def channel_gain(x: Tensor) -> Tensor:
    """Powers of two [d], 2^-7 to 1: for each channel of normalized x [..., d] the largest that keeps it within 127."""
    largest = x.float().abs().flatten(0, -2).amax(0) * (NORM / 127)
    return torch.exp2(-torch.ceil(torch.log2(largest.clamp_min(1.0)))).clamp_min(2.0**-7)


class Transformer(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Parameter(torch.randn(config.vocab_size, config.d_model))
        self.blocks = nn.ModuleList(Block(config.d_model, layer) for layer in config.layers)
        self.head = nn.Parameter(torch.zeros(config.vocab_size, config.d_model))
        self.register_buffer("head_gain", torch.ones(config.d_model))
        self.seen: dict[str, Tensor] | None = None  # filled while calibrating
        self.register_buffer("rotation", rotation_table(), persistent=False)

    def forward(self, ids: Tensor, quantized: bool = False) -> Tensor:
        """Natural logits float [B, T, V] for ids [B, T]."""
        T, d = ids.size(1), self.config.d_model
        masks = {window: window_mask(T, window, ids.device) for window in {block.window for block in self.blocks}}
        x = F.rms_norm(F.embedding(ids, self.embed), (d,))
        if quantized:
            x = round_clamp(x, float(NORM), -127, 127) * (RESIDUAL // NORM)
            for block in self.blocks:
                x = block.forward_quantized(x, self.rotation, masks[block.window])
            acc, scale = integer_linear(norm(x, self.head_gain), self.head / self.head_gain)
            return round_clamp(acc, scale * self.head_factor, -32767, 32767) * (math.log(2) / LOG2)
        for block in self.blocks:
            x = block(x, self.rotation.to(x.dtype), masks[block.window])
        x = F.rms_norm(x, (d,))
        if self.seen is not None:
            self.seen["head"] = x
        return F.linear(x, self.head)

    @torch.no_grad()
    def spread(self, ids: Tensor) -> None:
        """The same predictions with no channel far above the others, which would set the scale of the integers for all: what
        every symbol's logit has in common is taken out of the head, and the residual stream is turned by a random
        orthogonal matrix, which its normalization does not see (QuaRot, Ashkboos et al. 2024). The STRONG directions
        that on the batch ids [B, T] have the most energy where the head reads keep to as many channels, the last ones,
        so that calibrate() makes them smaller there, for what learns from these features."""
        d = self.config.d_model
        self.seen = {}
        self(ids)
        features = self.seen["head"].flatten(0, 1).double().cpu()
        self.seen = None
        directions = torch.linalg.eigh(features.t() @ features)[1]  # the strongest last
        generator = torch.Generator().manual_seed(0)
        parts = []
        for part in directions.split([d - STRONG, STRONG], 1):
            normal = torch.randn(part.size(1), part.size(1), dtype=torch.float64, generator=generator)
            parts.append(part @ torch.linalg.qr(normal)[0])
        turn = torch.cat(parts, 1).to(self.head)
        self.head -= self.head.mean(0)
        for reads in (self.embed, self.head, *(w for block in self.blocks for w in (block.q, block.kv, block.up))):
            reads.copy_(reads @ turn)
        for writes in (w for block in self.blocks for w in (block.o, block.down)):
            writes.copy_(turn.t() @ writes)

    @torch.no_grad()
    def calibrate(self, ids: Tensor) -> None:
        """Sets what the integers can hold from the batch ids [B, T]: the clipping points of values, attention outputs and
        MLP inputs at the 99.99th percentile of the magnitudes, a little enlarged; the gains of normalized channels so
        that none goes beyond the range."""
        for block in self.blocks:
            block.seen = {}
        self.seen = {}
        self(ids)
        self.head_gain.copy_(channel_gain(self.seen["head"]))
        self.seen = None
        for block in self.blocks:
            for name in block.seen:
                if name in ("qkv", "up"):
                    getattr(block, f"{name}_gain").copy_(channel_gain(block.seen[name]))
                else:
                    magnitude = block.seen[name].float().abs().flatten().sort().values
                    getattr(block, f"clip_{name}").fill_(1.1 * float(magnitude[int(0.9999 * (len(magnitude) - 1))]))
            block.seen = None

    def prepare(self, ids: Tensor) -> None:
        """Makes the model ready for integers, by the batch ids [B, T]; its predictions stay what they are."""
        self.spread(ids)
        self.calibrate(ids)

    @property
    def head_factor(self) -> float:
        """From accumulator times row scale to an integer logit."""
        return LOG2 / (NORM * math.log(2))

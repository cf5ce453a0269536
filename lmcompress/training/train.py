"""The training loop: from token ids to checkpoints.

Knows: schedule, checkpoints, validation, devices. Does not know: how text became ids, the model file.
Runs on a CPU, on a GPU, or on several under torchrun; bfloat16 products, float32 parameters. The last share of the
steps has the exact integers in its forward pass. A run that finds its checkpoint goes on from it.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from lmcompress.config import ModelConfig
from lmcompress.training import data, mixture
from lmcompress.training.model import Transformer
from lmcompress.training.optimizer import Muon


@dataclass(frozen=True)
class Recipe:
    """One training run. Learning rates are those of the plateau; shares are of `tokens`."""

    model: ModelConfig
    sequence: int  # tokens; longer than the window, so that a lane's later positions are seen too
    batch: int  # sequences in a step, over all devices
    tokens: int
    warmup: float  # share: the rate rises from 0
    decay: float  # share: the rate falls to 2 % of the plateau at the end
    quantized: float  # share at the end with integers in the forward pass
    muon_lr: float
    embed_lr: float
    head_lr: float
    weight_decay: float
    seed: int = 0
    alone: bool = False  # digits and codes are pieces by themselves in what is read
    taught: float = 0.0  # share of the loss that is a teacher's: nats per token by its probabilities
    beside: int = 0  # tokens of which it is known what a mixer adds, if the loss is that of both together

    @staticmethod
    def load(path: Path) -> Recipe:
        return Recipe.parse(path.read_text())

    @staticmethod
    def parse(text: str) -> Recipe:
        fields = json.loads(text)
        return Recipe(**{**fields, "model": ModelConfig(**fields["model"])})


@dataclass(frozen=True)
class Start:
    """What a run begins with: the weights of a model no larger, and what these have cost."""

    weights: dict[str, Tensor]
    cost: tuple[int, float] = (0, 0.0)  # tokens, hours


def rate(progress: float, recipe: Recipe) -> float:
    """Share of the plateau learning rate at `progress` in [0, 1]."""
    return max(0.02, min(1.0, progress / recipe.warmup if recipe.warmup else 1.0, (1 - progress) / recipe.decay))


def train(
    recipe: Recipe,
    ids: Path,
    out: Path,
    device: str = "auto",
    validate_every: int = 500,
    init: Start | None = None,
    minutes: float = math.inf,
    teacher: Transformer | None = None,
    traced: mixture.Traced | None = None,
) -> bool:
    """Trains on the token ids in folder `ids` (data.tokenize); writes checkpoint.pt, log.jsonl and TensorBoard curves to
    `out`, and float.pt, a checkpoint before integers came in, which another run may begin with. What the weights of
    `init` lack adds nothing at first. False where `minutes` were over before the recipe's tokens: the next call goes on.
    `teacher`, of the same vocabulary, for a recipe with `taught`: the model learns to say what it says (Hinton et al. 2015,
    "Distilling the knowledge in a neural network"). `traced`, for a recipe with `beside`: what is read, and what a mixer
    adds there; the loss is then that of both together."""
    if (teacher is None) != (recipe.taught == 0):
        raise ValueError("a recipe with `taught` needs a teacher, and no other has one")
    if (traced is None) != (recipe.beside == 0):
        raise ValueError("a recipe with `beside` needs text that a mixer has read, and no other has any")
    called = time.monotonic()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if device == "auto":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    if world > 1:
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.seed)
    model = Transformer(recipe.model).to(device)
    if teacher is not None:
        teacher = teacher.to(device).requires_grad_(False)
    matrices = [p for b in model.blocks for p in (b.q, b.kv, b.o, b.up, b.down) if p.numel()]
    muon = Muon(matrices, recipe.muon_lr, weight_decay=recipe.weight_decay)
    adam = torch.optim.AdamW(
        [
            {"params": [model.embed], "lr": recipe.embed_lr},
            {"params": [model.head], "lr": recipe.head_lr},
            {"params": [b.gain for b in model.blocks if b.n_head], "lr": 0.003},
        ],
        betas=(0.8, 0.95), eps=1e-10, weight_decay=0.0,
    )  # fmt: skip
    plateau = [[g["lr"] for g in o.param_groups] for o in (muon, adam)]
    step, elapsed, calibrated = 0, 0.0, False
    before = init.cost if init else (0, 0.0)
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        muon.load_state_dict(saved["muon"])
        adam.load_state_dict(saved["adam"])
        step, elapsed, calibrated = saved["step"], saved["elapsed"], saved["calibrated"]
        before = saved.get("before", before)  # checkpoints of 0.3.0 have none
    elif init is not None:
        grow(model, {name: w.to(device) for name, w in init.weights.items()})
    mix = data.Mix(ids, recipe.sequence, recipe.seed)
    validation = data.validation(ids, recipe.sequence, 64 * recipe.sequence)
    compiled = {}

    def logits_of(ids: Tensor, quantized: bool) -> Tensor:
        """Natural logits [B T, V] of ids [B, T], in bfloat16 but for integers."""
        with torch.autocast(ids.device.type, torch.bfloat16, enabled=not quantized):
            return model(ids, quantized).flatten(0, 1)

    compiled_logits = torch.compile(logits_of, dynamic=False)

    def loss_of(rows: Tensor, quantized: bool, taught: bool = False) -> Tensor:
        """Nats of each token of rows [B, T + 1], with the teacher's share if `taught`."""
        if (quantized, taught) not in compiled:

            def forward(rows: Tensor) -> Tensor:
                logits = logits_of(rows[:, :-1], quantized).float()
                loss = F.cross_entropy(logits, rows[:, 1:].flatten(), reduction="none")
                if teacher is None or not taught:
                    return loss
                with torch.no_grad(), torch.autocast(rows.device.type, torch.bfloat16):
                    said = teacher(rows[:, :-1], False).float().flatten(0, 1).softmax(-1)
                return torch.lerp(loss, F.cross_entropy(logits, said, reduction="none"), recipe.taught)

            compiled[quantized, taught] = torch.compile(forward, dynamic=False)
        return compiled[quantized, taught](rows)

    def validate(quantized: bool) -> dict[str, float]:
        """Bits per byte by category, and their mean weighted as in training."""
        local = recipe.batch // world
        bits = {}
        with torch.no_grad():
            for category, (rows, n_bytes) in validation.items():
                nats = 0.0
                for i in range(0, len(rows), local):
                    part = rows[i : i + local]
                    full = np.concatenate([part, np.zeros((local - len(part), part.shape[1]), np.int64)])
                    losses = loss_of(torch.from_numpy(full).to(device), quantized)
                    nats += losses.view(local, -1)[: len(part)].sum().item()
                bits[category] = nats / math.log(2) / n_bytes
        weight = {c: data.WEIGHTS.get(c, 1.0) * mix.index[f"{c}.train"]["bytes"] for c in bits}
        if weight:  # a small collection may have no validation document
            bits["mean"] = sum(bits[c] * w for c, w in weight.items()) / sum(weight.values())
        return bits

    def save(path: Path) -> None:
        state = {"model": model.state_dict(), "muon": muon.state_dict(), "adam": adam.state_dict(),
                 "step": step, "elapsed": elapsed, "calibrated": calibrated, "before": before,
                 "recipe": json.dumps(asdict(recipe))}  # fmt: skip
        torch.save(state, out / "checkpoint.tmp")
        (out / "checkpoint.tmp").replace(path)

    per_step = recipe.batch * recipe.sequence
    steps = recipe.tokens // per_step
    log = Log(out, step, steps) if rank == 0 else None
    average = None
    while step < steps:
        started = time.perf_counter()
        progress = step / steps
        quantized = progress >= 1 - recipe.quantized
        if quantized and not calibrated:
            if log:
                save(out / "float.pt")
            tokens = torch.from_numpy(mix.batch(step, recipe.batch)).to(device)[:, :-1]
            model.prepare(tokens)
            muon.state.clear()  # moments of channels that are no more
            adam.state.clear()
            calibrated = True
        for optimizer, rates in zip((muon, adam), plateau, strict=True):
            for group, lr in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = lr * rate(progress, recipe)
        for group in muon.param_groups:
            group["momentum"] = 0.85 + 0.1 * min(1.0, step / 300)
        if traced is None:
            rows = torch.from_numpy(mix.batch(step, recipe.batch)[rank::world]).to(device)
            loss = loss_of(rows, quantized, teacher is not None).mean()
        else:
            read, decisions = traced.batch(step, recipe.batch, slice(rank, None, world))
            logits = compiled_logits(torch.from_numpy(read).to(device)[:, :-1], quantized)
            loss = mixture.nats(logits, decisions.to(device)).mean()
        loss.backward()
        if world > 1:
            for p in (p for p in model.parameters() if p.numel()):
                dist.all_reduce(p.grad, op=dist.ReduceOp.AVG)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        muon.step()
        adam.step()
        model.zero_grad(set_to_none=True)
        step += 1
        elapsed += time.perf_counter() - started
        average = loss.item() if average is None else 0.98 * average + 0.02 * loss.item()
        if log and (step % 10 == 0 or step == steps):
            log.step(step, step * per_step, average, elapsed, quantized)
        over = torch.tensor(time.monotonic() - called > 60 * minutes, dtype=torch.int32, device=device)
        if world > 1:
            dist.all_reduce(over, op=dist.ReduceOp.MAX)  # all stop at the same step
        if over and step < steps:
            if log:
                save(checkpoint)
            break
        if step % validate_every == 0 or step == steps:
            bits = validate(quantized)
            if log:
                log.validation(step, step * per_step, bits, elapsed, quantized)
                save(checkpoint)
    if log:
        log.close()
    if world > 1:
        dist.destroy_process_group()
    return step >= steps


def trained(checkpoint: Path, ids: Path) -> tuple[Transformer, Recipe, dict[str, Any]]:
    """A run's model, prepared for integers on the token ids in folder `ids`, its recipe, and all that train() has saved."""
    saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
    recipe = Recipe.parse(saved["recipe"])
    model = Transformer(recipe.model)
    model.load_state_dict(saved["model"])
    if not saved["calibrated"]:
        batch = data.Mix(ids, recipe.sequence, recipe.seed).batch(saved["step"], recipe.batch)
        model.prepare(torch.from_numpy(batch)[:, :-1])
    return model, recipe, saved


def mean(weights: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of models of one shape: between two ends of one training there is often a better one (Izmailov et al. 2018,
    "Averaging weights leads to wider optima and better generalization"). An attention or MLP
    that one of them lacks is as one that writes nothing. Raises ValueError."""
    different = ValueError("the checkpoints are of models of different shapes")
    if any(one.keys() != weights[0].keys() for one in weights):
        raise different
    result = {}
    for name in weights[0]:
        values = [one[name] for one in weights]
        there = [w for w in values if w.numel()] or values[:1]
        if any(w.shape != there[0].shape for w in there):
            raise different
        written = len(there) / len(weights) if name.rsplit(".", 1)[-1] in ("o", "down") else 1.0
        result[name] = torch.stack(there).mean(0) * written
    return result


def cost(saved: dict[str, Any]) -> tuple[int, float]:
    """Tokens and hours that the weights of a checkpoint have seen and taken, with those of the runs before."""
    recipe = Recipe.parse(saved["recipe"])
    tokens, hours = saved.get("before", (0, 0.0))
    return tokens + saved["step"] * recipe.batch * recipe.sequence, hours + saved["elapsed"] / 3600


@torch.no_grad()
def grow(model: Transformer, weights: dict[str, Tensor]) -> None:
    """Takes the float weights of a model of the same vocabulary that is larger in no dimension, but for attention and MLPs
    that the new one lacks, which are left out: the grown model starts with the predictions of the rest (as in Net2Net, Chen et al. 2016). New layers, heads and columns of the MLP read with their
    first weights and write nothing; new channels hold nothing. A normalized vector is longer by the root of the widths'
    ratio for these zeros: the matrices that read it are made smaller by as much, those that add to it larger."""
    known = model.state_dict()
    calibration = ("clip_v", "clip_o", "clip_u", "qkv_gain", "up_gain", "head_gain")
    old = {name: w for name, w in weights.items() if not name.endswith(calibration)}
    old = {name: w for name, w in old.items() if name not in known or known[name].numel()}
    if len(old["embed"]) != len(known["embed"]) or any(
        name not in known or any(n > m for n, m in zip(w.shape, known[name].shape, strict=True))
        for name, w in old.items()
    ):
        raise ValueError("the first weights are those of a larger model, or of another vocabulary")
    longer = math.sqrt(model.config.d_model / old["embed"].size(1))
    model.embed.zero_()
    for name, w in old.items():
        role = name.rsplit(".", 1)[-1]
        factor = longer if role in ("o", "down") else 1 / longer if role in ("q", "kv", "up", "head") else 1.0
        known[name][tuple(map(slice, w.shape))] = w * factor


class Log:
    """Progress on stderr, log.jsonl, and TensorBoard curves where tensorboard is installed."""

    def __init__(self, out: Path, step: int, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.file = (out / "log.jsonl").open("a")
        try:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(out / "tensorboard"))
        except ImportError:
            self.board = None
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), disable=None
        )
        self.task = self.bar.add_task("training", total=steps, completed=step)
        self.bar.start()

    def _write(self, step: int, tokens: int, elapsed: float, quantized: bool, values: dict[str, float]) -> None:
        values = {k: round(v, 5) for k, v in values.items()}
        record = {"step": step, "tokens": tokens, "seconds": round(elapsed), "quantized": quantized, **values}
        self.file.write(json.dumps(record) + "\n")
        self.file.flush()
        if self.board:
            for name, value in values.items():
                self.board.add_scalar(name, value, tokens)

    def step(self, step: int, tokens: int, loss: float, elapsed: float, quantized: bool) -> None:
        self._write(step, tokens, elapsed, quantized, {"nats_per_token": loss})
        self.bar.update(self.task, completed=step, description=f"{loss:.3f} nats per token")

    def validation(self, step: int, tokens: int, bits: dict[str, float], elapsed: float, quantized: bool) -> None:
        self._write(step, tokens, elapsed, quantized, {f"bits_per_byte/{c}": b for c, b in bits.items()})
        self.bar.console.print(f"{tokens / 1e6:.1f} M tokens: " + ", ".join(f"{c} {b:.3f}" for c, b in bits.items()))

    def close(self) -> None:
        self.bar.stop()
        self.file.close()
        if self.board:
            self.board.close()

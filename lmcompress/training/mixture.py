"""Training a network for what it is used for: its odds beside the mixer's, not alone.

Knows: models, the mixer, tokenized text. Does not know: recipes, optimizers, archives.
Of a decision the mixer makes z = SHARE * odds + offset, nearly: `odds` are the network's, the rest is what the text itself has
taught it. `trace` lets a model and the mixer read training text together and keeps the offsets; `nats` is what tokens cost
when another network's odds take the place of those. So gradients are large where both together are wrong, and nothing is
spent on what the mixer knows already.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lmcompress.codec import layout, most_lanes, spans
from lmcompress.config import CodecConfig
from lmcompress.distribution import Distribution
from lmcompress.modelfile import Model
from lmcompress.ngrams import NONE
from lmcompress.predictor import BATCH, Engines, Predictor, Vocabulary
from lmcompress.training.data import Mix
from lmcompress.tree import Tree

SHARE = 0.9  # of the network's odds in the mixer's; measured from 0.78 (code) to 0.95 (novels)
DEPTH = 16  # decisions of a token that are kept, which are all of nearly all tokens
UNIT = 1024  # of an offset, in bits
BLOCKS = (3072, 6144, 12288, 24576)  # tokens: small, so that they come from many texts (docs/LOG.md)
LEAST = 2.0**-24  # what a symbol's weight is never below, the largest being 1 (docs/MODEL.md)
ROWS = 128  # tokens whose loss is computed at a time, so that they stay in the cache


class Paths:
    """For each tree k and symbol v the decisions that lead to it: `lo`, `mid`, `hi` int32 [K, V, DEPTH] (see tree.Tree; all 0
    behind the last) and `right` bool [K, V, DEPTH], which way it lies."""

    def __init__(self, depths: np.ndarray) -> None:
        K, V = depths.shape
        self.lo, self.mid, self.hi = (np.zeros((K, V, DEPTH), np.int32) for _ in range(3))
        self.right = np.zeros((K, V, DEPTH), bool)
        for k in range(K):
            tree = Tree(depths[k])
            level = np.zeros(V - 1, np.int64)
            for node in range(V - 1):  # children come after their parent
                for child in (tree.left[node], tree.right[node]):
                    if child >= 0:
                        level[child] = level[node] + 1
            for node in np.flatnonzero(level < DEPTH):
                lo, mid, hi = tree.lo[node], tree.mid[node], tree.hi[node]
                at = (k, slice(lo, hi), level[node])
                self.lo[at], self.mid[at], self.hi[at] = lo, mid, hi
                self.right[k, mid:hi, level[node]] = True


def log2_odds(said: Distribution, lo: np.ndarray, mid: np.ndarray, hi: np.ndarray) -> np.ndarray:
    """float32 [n, T, DEPTH]: the network's odds of the right side, at nodes [n, T, DEPTH]; 0 where there is none."""
    lanes, steps = np.ogrid[: lo.shape[0], : lo.shape[1]]
    a, b, c = (said.below((lanes[..., None], steps[..., None]), edge).astype(np.float64) for edge in (lo, mid, hi))
    there = hi > lo
    odds = np.log2(np.where(there, c - b, 1)) - np.log2(np.where(there, b - a, 1))
    return odds.astype(np.float32)


def spread(length: int, tokens: int, rng: np.random.Generator) -> list[slice]:
    """Blocks of a text of this length, both in tokens, that lie equally far apart; where more are wanted than it has, several
    times as many, each time nothing twice."""
    blocks, times = [], -(-tokens // length)
    for _ in range(times):
        left, sizes = tokens // times, []
        while left:
            sizes.append(min(int(rng.choice(BLOCKS)), left))
            left -= sizes[-1]
        gap, at = (length - sum(sizes)) / len(sizes), 0
        for i, n in enumerate(sizes):
            first = at + int((i + rng.random()) * gap)
            blocks.append(slice(first, first + n))
            at += n
    return blocks


def trace(
    model: Model, config: CodecConfig, ids: Path, out: Path, tokens: int, seed: int = 0, threads: int = 0
) -> None:
    """Lets the model's network and the mixer read about so many tokens of the training split in folder `ids` (data.tokenize
    with the model's vocabulary), as much of each category as data.Mix draws, from everywhere in it, in lanes as a block has
    with that configuration; without n-grams, which were counted in this very text. Writes tokens.u16, offsets.i16 ([tokens, DEPTH], in 1/UNIT of a bit) and blocks.json (first token, tokens
    and tree of each) to `out`."""
    out.mkdir(parents=True, exist_ok=True)
    model = replace(model, ngrams=NONE)
    vocabulary, engines, mix = Vocabulary(model), Engines(model, config, threads), Mix(ids, 1)
    paths, rng = Paths(model.depths), np.random.default_rng(seed)
    plan = [
        mix.ids[category][part]
        for category, share in zip(mix.names, mix.p, strict=True)
        for part in spread(len(mix.ids[category]), int(tokens * share), rng)
    ]
    blocks, first = [], 0
    with (out / "tokens.u16").open("wb") as text, (out / "offsets.i16").open("wb") as offsets:
        for i in rng.permutation(len(plan)):
            block = np.array(plan[i], np.int32)
            tree = vocabulary.nearest(block)
            n_lanes = most_lanes(config, model.tokenizer.size(block), len(block))
            predictor = Predictor(engines, vocabulary, tree, n_lanes, len(block), threads)
            text.write(block.astype("<u2").tobytes())
            offsets.write(_offsets(predictor, vocabulary, block, tree, n_lanes, paths).astype("<i2").tobytes())
            blocks.append([first, len(block), tree])
            first += len(block)
    (out / "blocks.json").write_text(json.dumps(blocks))


def _offsets(
    predictor: Predictor, vocabulary: Vocabulary, block: np.ndarray, tree: int, n_lanes: int, paths: Paths
) -> np.ndarray:
    """int16 [n, DEPTH] of tokens [n] in lanes."""
    lanes, counts = layout(block, n_lanes)
    previous = np.insert(lanes, 0, vocabulary.start, axis=1)[:, :-1]
    result = np.zeros((*lanes.shape, DEPTH), np.int16)
    for begin, end, m in spans(counts):
        step = max(1, BATCH // m)
        for at in range(begin, end, step):
            part = np.s_[:m, at : min(at + step, end)]
            said = predictor.network.distribution(predictor.state, previous[part])
            k = predictor.mixer.encode(said, lanes[part])[0].astype(np.float64)
            depth = vocabulary.depths[tree][lanes[part]]
            # decisions come step by step, level by level, lane by lane
            there = depth.T[:, None] > np.arange(depth.max())[:, None]
            z = np.zeros(there.shape)
            z[there] = np.log2(k / ((1 << 24) - k))
            z = z.transpose(2, 0, 1)[:, :, :DEPTH]
            odds = log2_odds(said, *(edges[tree][lanes[part]] for edges in (paths.lo, paths.mid, paths.hi)))
            result[part][:, :, : z.shape[2]] = np.clip(UNIT * (z - SHARE * odds[:, :, : z.shape[2]]), -32767, 32767)
    return np.concatenate([lane[:count] for lane, count in zip(result, counts, strict=True)])


@dataclass(frozen=True)
class Decisions:
    """Of N tokens, [N, DEPTH]: nodes (see Paths), and the mixer's offset at each, float32, in bits."""

    lo: Tensor
    mid: Tensor
    hi: Tensor
    right: Tensor
    offset: Tensor

    def to(self, device: str) -> Decisions:
        return Decisions(*(tensor.to(device) for tensor in (self.lo, self.mid, self.hi, self.right, self.offset)))


class Traced:
    """Training sequences from what trace() has written, with their offsets: all of them once, in an order by chance, before any
    comes again. A network soon knows by heart what it reads again and again (docs/LOG.md): there should be as many tokens as
    it is trained on."""

    def __init__(self, folder: Path, depths: np.ndarray, length: int, seed: int = 0) -> None:
        self.ids = np.memmap(folder / "tokens.u16", "<u2", "r")
        self.offsets = np.memmap(folder / "offsets.i16", "<i2", "r").reshape(-1, DEPTH)
        blocks = json.loads((folder / "blocks.json").read_text())
        parts = [(start, tree) for first, n, tree in blocks for start in range(first, first + n - length + 1, length)]
        if not parts:
            raise ValueError("the text that the mixer has read is shorter than a sequence")
        self.starts, self.trees = np.array(parts).T  # of the sequences
        self.paths, self.length, self.seed = Paths(depths), length, seed

    def batch(self, step: int, size: int, chosen: slice = slice(None)) -> tuple[np.ndarray, Decisions]:
        """Of this step's sequences int64 [size, length + 1], as data.Mix.batch gives them, the chosen ones, and the decisions of
        their last `length` tokens."""
        places = np.arange(step * size, (step + 1) * size)[chosen]
        order = {
            e: np.random.default_rng([self.seed, int(e)]).permutation(len(self.starts))
            for e in set(places // len(self.starts))
        }
        which = np.array([order[i // len(self.starts)][i % len(self.starts)] for i in places])
        tokens = self.starts[which, None] + np.arange(self.length)
        rows = np.insert(self.ids[tokens].astype(np.int64), 0, 0, axis=1)
        at = np.s_[self.trees[which, None], rows[:, 1:]]
        edges = (self.paths.lo, self.paths.mid, self.paths.hi, self.paths.right)
        lo, mid, hi, right = (torch.from_numpy(of[at]).flatten(0, 1) for of in edges)
        return rows, Decisions(lo, mid, hi, right, torch.from_numpy(self.offsets[tokens]).flatten(0, 1).float() / UNIT)


class _Nats(torch.autograd.Function):
    """A part of the tokens at a time, with their gradients at once: a row's weights never leave the cache."""

    @staticmethod
    def forward(ctx, logits: Tensor, decisions: Decisions) -> Tensor:
        grad, nats = torch.empty_like(logits), torch.empty(len(logits), device=logits.device)
        for at in range(0, len(logits), ROWS):
            part = slice(at, at + ROWS)
            lo, mid, hi = (edge[part].long() for edge in (decisions.lo, decisions.mid, decisions.hi))
            there, way = hi > lo, torch.where(decisions.right[part], 1.0, -1.0)
            rows = logits[part].float()
            weights = (rows - rows.amax(1, keepdim=True)).exp_()
            below = F.pad((weights + LEAST).cumsum(1, dtype=torch.float64), (1, 0))
            first, middle, last = below.gather(1, lo), below.gather(1, mid), below.gather(1, hi)
            left, right = torch.where(there, middle - first, 1.0), torch.where(there, last - middle, 1.0)
            z = way * (SHARE * (right / left).log() + math.log(2) * decisions.offset[part])
            nats[part] = (F.softplus(-z) * there).sum(1)
            of_odds = -SHARE * way * torch.sigmoid(-z) * there
            # what a weight does is the sum over the nodes that cover it
            slope = torch.zeros_like(below)
            slope.scatter_add_(1, lo, -of_odds / left)
            slope.scatter_add_(1, mid, of_odds / left + of_odds / right)
            slope.scatter_add_(1, hi, -of_odds / right)
            grad[part] = weights * slope.cumsum(1)[:, :-1]
        ctx.save_for_backward(grad)
        return nats

    @staticmethod
    def backward(ctx, grad: Tensor):
        return ctx.saved_tensors[0].mul_(grad[:, None]), None  # the only one to have it


def nats(logits: Tensor, decisions: Decisions) -> Tensor:
    """float32 [N]: what N tokens cost with natural logits [N, V] beside the mixer."""
    return _Nats.apply(logits, decisions)

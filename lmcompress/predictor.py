"""The probability of every decision of every lane, and what is learned from how it turned out.

Knows: the network, the mixer, lanes in lockstep. Does not know: bytes, blocks, the coder.
`encode` takes steps of known tokens, `decode` finds them out. Both see the same integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcompress.coder import BACKENDS, IMPOSSIBLE, Decoder
from lmcompress.config import CodecConfig
from lmcompress.distribution import Distribution
from lmcompress.errors import CorruptError
from lmcompress.mixer.reference import decode
from lmcompress.ngrams import NONE
from lmcompress.tokenizer import Tokenizer, byte_tokenizer
from lmcompress.tree import Tree

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

BATCH = 256  # (lane, step) pairs that go through the network together when tokens are known
DECODED = 16384  # (lane, step) pairs that are decoded in one call where there is no network; signals wait for its end


class Vocabulary:
    """What codec and predictor need to know of symbols: the tokenizer, the trees, n-grams, the symbol before a lane's first."""

    def __init__(self, model: Model | None) -> None:
        self.tokenizer: Tokenizer = byte_tokenizer() if model is None else model.tokenizer
        self.depths = np.full((1, 256), 8, np.uint8) if model is None else model.depths  # [K, V]
        self.trees = len(self.depths)
        self.ngrams = NONE if model is None else model.ngrams
        self._known: dict[int, Tree] = {}
        self.start = 0 if model is None else model.start
        self.alone = model is not None and model.alone  # what the network has read is cut so

    def tree(self, i: int) -> Tree:
        """The tree of that number. Raises CorruptError where the model's depths are no tree's."""
        try:
            if i not in self._known:
                self._known[i] = Tree(self.depths[i])
            return self._known[i]
        except ValueError as error:
            raise CorruptError(f"damaged model: {error}") from None

    def nearest(self, tokens: np.ndarray) -> int:
        """The number of the tree in which tokens, int [n], have the shortest paths."""
        counts = np.bincount(tokens, minlength=self.depths.shape[1])
        return int(np.argmin(self.depths @ counts))


class Engines:
    """The implementations that run: "native", "reference", or "auto" for native where it was compiled."""

    def __init__(self, model: Model | None, config: CodecConfig, threads: int, kind: str = "auto") -> None:
        if kind == "auto":
            kind = "native" if "native" in BACKENDS else "reference"
        self.model, self.config = model, config
        self.network: Any = None
        self.mixer: Any = None  # the class
        # the compiled mixer reads decisions with the compiled coder, without coming back to Python
        self.coder = "native" if kind == "native" else BACKENDS[0]
        name = kind
        if model is not None and config.network:
            if kind == "native":
                from lmcompress.engine import native as engine
            else:
                from lmcompress.engine import reference as engine  # type: ignore[no-redef]
            self.network = engine.Engine(model, threads)
            name = self.network.name
        if config.mixer_bits:
            if kind == "native":
                from lmcompress.mixer import native as mixer
            else:
                from lmcompress.mixer import reference as mixer  # type: ignore[no-redef]
            self.mixer = mixer.Mixer
        self.name = f"{name}, {self.coder} coder"


class NetworkAlone:
    """What stands for the mixer when the network's probabilities are coded as they are: k = 2^24 * right / both,
    rounded down, the sums being those of the two sides of the node; kept within [1, 2^24 - 1]."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def begin(self, said: Distribution, n: int) -> None:
        self.said = said
        self.lanes = np.arange(n)  # those whose token has not ended
        self.nodes = np.zeros(n, np.int32)  # of all lanes; ~id where the token has ended

    def predict(self) -> np.ndarray:
        nodes = self.nodes[self.lanes]
        low, middle, high = (
            self.said.below((self.lanes,), edge[nodes]) for edge in (self.tree.lo, self.tree.mid, self.tree.hi)
        )
        k = ((high - middle) << np.uint64(24)) // (high - low)  # sums < 2^39, so below 2^63
        return np.clip(k, 1, (1 << 24) - 1).astype(np.uint32)

    def update(self, bits: np.ndarray) -> None:
        nodes = self.nodes[self.lanes]
        self.nodes[self.lanes] = nodes = np.where(bits, self.tree.right[nodes], self.tree.left[nodes])
        self.lanes = self.lanes[nodes >= 0]

    def tokens(self) -> np.ndarray:
        return ~self.nodes

    def encode(self, said: Distribution, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        ks, all_bits = [], []
        for t in range(tokens.shape[1]):
            self.begin(said.step(t), len(tokens))
            while len(self.lanes):
                ks.append(self.predict())
                middle = self.tree.mid[self.nodes[self.lanes]]
                all_bits.append((tokens[self.lanes, t] >= middle).astype(np.uint8))
                self.update(all_bits[-1])
        return np.concatenate(ks), np.concatenate(all_bits)

    def decode(self, coder: Decoder, said: Distribution, tokens: np.ndarray) -> None:
        decode(self, coder, said, tokens)


class Predictor:
    """One block's lanes. All start at the same time; from step to step some at the end may drop out."""

    def __init__(
        self,
        engines: Engines,
        vocabulary: Vocabulary,
        tree: int,
        n_lanes: int,
        n_tokens: int,
        threads: int = 0,
        network: bool = True,
    ) -> None:
        """tree: the number of one of the vocabulary's. threads: of the network's steps; 0 for as many as `engines` has.
        network: False for the mixer alone."""
        self.network = engines.network if network else None
        self.state = self.network.start(n_lanes, threads) if self.network else None
        if engines.mixer is None:
            if self.network is None:
                raise ValueError("neither a network nor a mixer: nothing to predict with")
            self.mixer: Any = NetworkAlone(vocabulary.tree(tree))
        else:
            self.mixer = engines.mixer(
                vocabulary.tree(tree),
                vocabulary.tokenizer.pieces,
                engines.config.mixer_bits,
                n_lanes,
                n_tokens,
                engines.config.light,
                self.network.model.config.d_model if self.network else 0,
                vocabulary.ngrams,
            )

    def encode(self, previous: np.ndarray, tokens: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Steps of lanes 0..m-1, some at a time: (k uint32, bits uint8) of their decisions in coding order; previous and
        tokens are int32 [m, T]. The network is one batch ahead of the mixer, in a thread of its own."""
        m, T = tokens.shape
        size = max(1, BATCH // m)
        parts = [slice(start, start + size) for start in range(0, T, size)]
        if self.network is None:
            for part in parts:
                yield self.mixer.encode(None, tokens[:, part])
            return
        with ThreadPoolExecutor(1) as ahead:
            following = _submit(ahead, self.network.distribution, self.state, previous[:, parts[0]])
            for part, after in zip(parts, [*parts[1:], None], strict=True):
                said = following.result()
                if after:
                    following = _submit(ahead, self.network.distribution, self.state, previous[:, after])
                yield self.mixer.encode(said, tokens[:, part])

    def decode(self, coder: Decoder, previous: np.ndarray, tokens: np.ndarray) -> None:
        """Steps of lanes 0..m-1, whose decisions are read from `coder`, into tokens int32 [m, T]; previous int32 [m] are the
        tokens before them. Raises CorruptError."""
        m, T = tokens.shape
        if self.network is None:
            size = max(1, DECODED // m)
            for start in range(0, T, size):
                self.mixer.decode(coder, None, tokens[:, start : start + size])
            return
        network, mixer = getattr(self.network, "capsule", None), getattr(self.mixer, "capsule", None)
        if network and mixer and coder.capsule:  # all compiled
            from lmcompress import _native

            previous = np.ascontiguousarray(previous)
            if not _native.decode(network, self.state, mixer, coder.capsule, previous, tokens)[0]:
                raise CorruptError(IMPOSSIBLE)
            return
        for t in range(T):
            said = self.network.distribution(self.state, previous[:, None])
            self.mixer.decode(coder, said, tokens[:, t : t + 1])
            previous = tokens[:, t]


def _submit(pool: ThreadPoolExecutor, call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """What the pool will make of it; made here where there are no threads any more, as the interpreter ends."""
    try:
        return pool.submit(call, *arguments)
    except RuntimeError:
        done: Future[Any] = Future()
        done.set_result(call(*arguments))
        return done

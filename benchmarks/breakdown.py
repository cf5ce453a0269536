"""Where the time of coding goes: the network's parts, the mixer, the range coder, the rest.

Knows: the classes that do the work, clocks around their methods, the engine's own clock. Does not know: rivals, how results are
drawn.
When encoding, the network works ahead of the mixer in a thread of its own. The parts are timed with both in turn, so that they
can be added; `elapsed` is timed as it really runs, without clocks inside, and may be less than their sum.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import patch

import lmcompress
from benchmarks.measure import circumstances
from benchmarks.results import Record
from lmcompress import methods, predictor
from lmcompress.bits import Reader
from lmcompress.codec import head
from lmcompress.coder import Decoder, Encoder, _native
from lmcompress.stream import BLOCK_SIZE

INSIDE = ("matrices", "attention", "distribution")  # of the network, in the order of the engine's timed()
PARTS = {
    "matrices": "matrices",
    "attention": "attention",
    "distribution": "distribution",
    "network": "rest of the network",
    "mixer": "mixer",
    "coder": "range coder",
    "rest": "rest",
}


@dataclass(frozen=True)
class Breakdown(Record):
    """One direction of a text. Seconds: of the parts in the fastest of several runs, of `elapsed` the least of others."""

    folder: ClassVar[str] = "time"

    level: int
    engine: str
    direction: str  # "encode", "decode"
    threads: int
    file: str
    sha256: str  # of the bytes that were coded
    bytes: int
    tokens: int
    lanes: int
    matrices: float  # products
    attention: float
    distribution: float  # 2^x of the logits and their sums
    network: float  # its rest: normalized rows, calls; all of it where the engine has no clock
    mixer: float  # with the range coder where that is not compiled
    coder: float
    rest: float
    elapsed: float

    def key(self) -> tuple[Any, ...]:
        return (self.processor, self.level, self.direction, self.threads, self.sha256)


class InTurn:
    """An executor that has done what it is given when it returns."""

    def __init__(self, workers: int) -> None:
        pass

    def __enter__(self) -> InTurn:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def submit(self, action: Callable[..., Any], *arguments: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(action(*arguments))
        return future


def seconds(action: Callable[[], bytes]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def parts(action: Callable[[], bytes], engines: predictor.Engines) -> tuple[float, dict[str, float]]:
    """Seconds of all of it, and of each of the parts in it."""
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **named)
            finally:
                spent[part] += time.perf_counter() - start

        return call

    @contextmanager
    def inside(state: Any = None, coder: Any = None) -> Iterator[None]:
        """What compiled code counts itself, of a network's state and a range coder, is not the rest of the whole."""
        if state is not None:
            _native.engine_timed(state, True)
        if coder is not None:
            _native.range_timed(coder, True)
        yield
        if state is not None:
            for part, own in zip(INSIDE, _native.engine_timed(state, False), strict=True):
                spent[part] += own
                spent["network"] -= own
        if coder is not None:
            own = _native.range_timed(coder, False)
            spent["coder"] += own
            spent["mixer"] -= own

    def of_engine(distribution: Callable[..., Any]) -> Callable[..., Any]:
        def call(network: Any, state: Any, tokens: Any) -> Any:
            with inside(state):
                return distribution(network, state, tokens)

        return call

    def of_mixer(decode: Callable[..., Any]) -> Callable[..., Any]:
        def call(mixer: Any, coder: Decoder, *arguments: Any) -> None:
            with inside(coder=coder.capsule):
                decode(mixer, coder, *arguments)

        return call

    def of_steps(decode: Callable[..., Any]) -> Callable[..., Any]:
        """Steps without Python in between say themselves what network and mixer took."""

        def call(engine: Any, state: Any, mixer: Any, coder: Any, *tokens: Any) -> Any:
            with inside(state, coder):
                possible, network, mixing = decode(engine, state, mixer, coder, *tokens)
            spent["network"] += network
            spent["mixer"] += mixing
            return possible, network, mixing

        return call

    methods_of = [("mixer", engines.mixer, name) for name in ("__init__", "encode", "decode")]
    methods_of += [("coder", Encoder, "encode")]
    if engines.network is not None:
        methods_of += [("network", type(engines.network), name) for name in ("start", "distribution")]
    with ExitStack() as stack:
        stack.enter_context(patch.object(predictor, "ThreadPoolExecutor", InTurn))
        if hasattr(engines.network, "capsule"):
            network = type(engines.network)
            stack.enter_context(patch.object(network, "distribution", of_engine(network.distribution)))
        if _native is not None:
            stack.enter_context(patch.object(_native, "decode", of_steps(_native.decode)))
        stack.enter_context(patch.object(engines.mixer, "decode", of_mixer(engines.mixer.decode)))
        for part, owner, name in methods_of:
            stack.enter_context(patch.object(owner, name, timed(part, getattr(owner, name))))
        whole = seconds(action)
    spent["rest"] = whole - sum(spent.values())
    return whole, spent


def measured(path: Path, level: int, threads: int, limit: int, repeats: int) -> list[Breakdown]:
    """Both directions of the first `limit` bytes, one block at most."""
    data = path.read_bytes()[: min(limit, BLOCK_SIZE)]
    codec: Any = methods.load_for_writing(level, None, threads).codec
    reader = Reader(codec.encode(data)[1])
    _, tokens, lanes, _ = head(reader, len(data), codec.vocabulary.trees)
    archive = lmcompress.compress(data, level, threads=threads)
    if lmcompress.decompress(archive, threads=threads) != data:
        raise AssertionError(f"{path} does not round-trip")
    actions = {
        "encode": lambda: lmcompress.compress(data, level, threads=threads),
        "decode": lambda: lmcompress.decompress(archive, threads=threads),
    }
    rows = []
    for direction, action in actions.items():
        around = circumstances()
        elapsed = min(seconds(action) for _ in range(repeats))
        _, spent = min((parts(action, codec.engines) for _ in range(repeats)), key=lambda run: run[0])
        rows.append(
            Breakdown(
                **(around | spent), level=level, engine=codec.engine_name, direction=direction, threads=threads, file=path.name,
                sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), tokens=tokens,
                lanes=lanes, elapsed=elapsed,
            )
        )  # fmt: skip
    return rows


def table(rows: Iterable[Breakdown]) -> list[list[str]]:
    """Microseconds of a token, and shares of the parts' sum."""
    lines = [["processor", "level", "file", "lanes", "direction", "threads", *PARTS.values(), "sum", "elapsed"]]
    lines.append(["---", "---", "---", "---:", "---", *["---:"] * (3 + len(PARTS))])
    for row in rows:
        spent = [getattr(row, part) for part in PARTS]
        whole = sum(spent)
        lines.append(
            [
                row.processor,
                str(row.level),
                f"{row.file} ({row.bytes:,})",
                str(row.lanes),
                row.direction,
                str(row.threads),
            ]
            + [f"{1e6 * s / row.tokens:.1f} ({s / whole:.0%})" for s in spent]
            + [f"{1e6 * s / row.tokens:.1f}" for s in (whole, row.elapsed)]
        )
    return lines

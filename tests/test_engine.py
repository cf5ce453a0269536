"""The compiled engine gives the reference engine's integers: every instruction set here, any lanes, threads, chunks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcompress.config import HEAD_SIZE, PERIOD, ModelConfig
from lmcompress.engine import reference
from lmcompress.errors import UnsupportedError
from lmcompress.modelfile import ARITHMETIC, Layer, Model
from tests.models import TINY, random_model
from tests.vectors import make

_native = pytest.importorskip("lmcompress._native", reason="the C extension is not built")
native = pytest.importorskip("lmcompress.engine.native")

ROOT = Path(__file__).parent.parent
SHAPES = [
    TINY,
    ModelConfig(vocab_size=288, d_model=128, n_layer=1, n_head=3, d_ff=64, window=20),
    ModelConfig(vocab_size=352, d_model=192, n_layer=3, n_head=1, d_ff=320, window=16),
    ModelConfig(vocab_size=256, d_model=64, n_layer=1, n_head=7, d_ff=64, window=1),
    ModelConfig(vocab_size=256, d_model=64, n_layer=1, n_head=11, d_ff=64, window=150),
    ModelConfig(
        vocab_size=256, d_model=64, n_layer=4, n_head=(2, 0, 3, 1), d_ff=(0, 192, 64, 0), window=(24, 1, 70, 5)
    ),
]


@pytest.fixture(params=_native.kernels())
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(native.KERNEL_VARIABLE, request.param)
    return str(request.param)


def tokens_for(model: Model, lanes: int, steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, model.config.vocab_size, (lanes, steps)).astype(np.int32)


def run(engine: Any, tokens: np.ndarray, chunks: list[int] | None = None) -> np.ndarray:
    """Logits of all tokens, so many of every lane at a time; 0 is a step()."""
    state, done, parts = engine.start(len(tokens)), 0, []
    for size in chunks or [tokens.shape[1]]:
        if size == 0:
            parts.append(engine.step(state, tokens[:, done])[:, None])
        else:
            parts.append(engine.run(state, tokens[:, done : done + size]))
        done += max(size, 1)
    assert done == tokens.shape[1]
    return np.concatenate(parts, 1)


def same(model: Model, tokens: np.ndarray, threads: int = 2, chunks: list[int] | None = None) -> np.ndarray:
    """Both engines' logits, which must be the same."""
    want = run(reference.Engine(model), tokens)
    got = run(native.Engine(model, threads), tokens, chunks)
    assert got.dtype == want.dtype == np.int16
    np.testing.assert_array_equal(got, want)
    return got


@pytest.mark.parametrize("shape", range(len(SHAPES)))
def test_whole_models(kernel: str, shape: int) -> None:
    model = random_model(SHAPES[shape], seed=shape)
    logits = same(model, tokens_for(model, 3, 50 + model.config.longest_window))
    assert len(np.unique(logits)) > 1000  # the model says something


@pytest.mark.parametrize("threads", [1, 2, 5, 1000])
@pytest.mark.parametrize("lanes", [1, 2, 9, 33])
def test_lanes_and_threads(kernel: str, lanes: int, threads: int) -> None:
    model = random_model(replace(TINY, n_layer=1))
    same(model, tokens_for(model, lanes, 4), threads)


def test_more_lanes_than_rows_of_a_chunk(kernel: str) -> None:
    model = random_model(replace(TINY, n_layer=1))
    same(model, tokens_for(model, 300, 2), 2, [0, 0])
    same(model, tokens_for(model, 300, 3), 1)


@pytest.mark.parametrize("seed", range(4))
def test_chunks(kernel: str, seed: int) -> None:
    model = random_model(seed=seed)
    rng = np.random.default_rng(seed)
    chunks = [int(c) for c in rng.choice([0, 1, 2, 3, 7, 24, 64, 65, 130], 6)]
    same(model, tokens_for(model, 3, sum(max(c, 1) for c in chunks)), 2, chunks)


def test_lanes_that_end(kernel: str) -> None:
    model = random_model()
    tokens = tokens_for(model, 9, 60)
    engines = [reference.Engine(model), native.Engine(model, 2)]
    states = [engine.start(9) for engine in engines]
    for t in range(60):
        n = 9 if t < 20 else 5 if t < 40 else 1
        want, got = (e.step(s, tokens[:n, t]) for e, s in zip(engines, states, strict=True))
        np.testing.assert_array_equal(got, want)
    with pytest.raises(ValueError, match="still running"):
        engines[1].step(states[1], tokens[:2, 0])


def test_positions_past_the_period(kernel: str) -> None:
    model = random_model(ModelConfig(vocab_size=256, d_model=64, n_layer=1, n_head=1, d_ff=64, window=5))
    same(model, tokens_for(model, 1, PERIOD + 40))


def constant(array: np.ndarray, value: float) -> np.ndarray:
    return np.full_like(array, value)


def changed(model: Model, **fields: float) -> Model:
    """The model with whole arrays set to one value."""
    layers = tuple(
        Layer(**{n: constant(np.asarray(a), fields[n]) if n in fields else a for n, a in vars(layer).items()})
        for layer in model.layers
    )
    ends = {n: constant(getattr(model, n), v) for n, v in fields.items() if n in ("embed", "head", "head_scale")}
    return replace(model, layers=layers, **ends)


SCALES = ("qkv_scale", "o_scale", "up_scale", "down_scale", "head_scale")
EXTREMES: dict[str, dict[str, float]] = {
    "rows of zeros": {"embed": 0},
    "zeros everywhere": {"qkv": 0, "o": 0, "up": 0, "down": 0, "head": 0},
    "no query or key": {"qkv": 0},
    "largest sums": {"embed": 127, "qkv": 63, "o": 63, "up": 63, "down": 63, "head": 63},
    "smallest sums": {"embed": -127, "qkv": -63, "o": -63, "up": 63, "down": -63, "head": -63},
    "saturation": dict.fromkeys(("attn_scale", *SCALES), 2.0**10),
    "everything rounds to zero": dict.fromkeys(SCALES, 2.0**-40),
    "ties": dict.fromkeys(SCALES, 2.0**-7),
    "sharpest attention": {"score": 511},
    "flattest attention": {"score": 1},
}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(kernel: str, name: str) -> None:
    model = changed(random_model(), **EXTREMES[name])
    logits = same(model, tokens_for(model, 2, 40))
    if name == "saturation":
        assert logits.max() == 32767 and logits.min() == -32767
    engines = reference.Engine(model), native.Engine(model)
    for want, got in zip(*(engine.cumulate(logits) for engine in engines), strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("vocab_size", [256, 288, 352, 6144])
def test_cumulate(kernel: str, vocab_size: int) -> None:
    model = random_model(ModelConfig(vocab_size=vocab_size, d_model=64, n_layer=1, n_head=1, d_ff=64, window=4))
    rng = np.random.default_rng(0)
    logits = np.concatenate([rng.integers(-m, m + 1, (7, vocab_size)) for m in (0, 1, 300, 3000, 32767)])
    logits = logits.astype(np.int16).reshape(5, 7, vocab_size)
    logits[0, 1, 5] = 32767
    engine = native.Engine(model, 2)
    for rows in (logits, logits[0], logits[0, 0], logits[:0]):
        want, got = (e.cumulate(rows) for e in (reference.Engine(model), engine))
        for a, b in zip(want, got, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_cumulate_by_hand() -> None:
    """A symbol 256 below the top has half the weight, and each has one more."""
    model = random_model()
    logits = np.full((1, 256), -32767, np.int16)
    logits[0, [3, 100]] = 0, -256
    for engine in (reference.Engine(model), native.Engine(model)):
        base, local = engine.cumulate(logits)
        assert base.tolist() == [[0, 2**24 + 64, 2**24 + 2**23 + 128, 2**24 + 2**23 + 192]]
        assert local[0, [2, 3, 63, 64, 99, 100, 127]].tolist() == [
            3, 2**24 + 4, 2**24 + 64, 1, 36, 2**23 + 37, 2**23 + 64,
        ]  # fmt: skip


def test_distribution(kernel: str) -> None:
    """The same as logits first and their sums after."""
    model = random_model()
    tokens = tokens_for(model, 9, 75)
    engines = reference.Engine(model), native.Engine(model, 2)
    states = [engine.start(9) for engine in engines]
    for part in (tokens[:, :70], tokens[:5, 70], tokens[:2, 71:74], tokens[:1, 74]):
        want, got = (e.distribution(s, part) for e, s in zip(engines, states, strict=True))
        for a, b in zip(want, got, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def test_timed() -> None:
    """Counted only when asked, and the integers are the same."""
    model = random_model()
    tokens, engine = tokens_for(model, 3, 40), native.Engine(model, 2)
    plain = engine.distribution(engine.start(3), tokens)
    state = engine.start(3)
    assert engine.timed(state, True) == (0, 0, 0)
    timed = engine.distribution(state, tokens)
    matrices, attention, distribution = engine.timed(state, False)
    assert 0 < matrices < 60 and 0 < attention < 60 and 0 < distribution < 60
    for a, b in zip(plain, timed, strict=True):
        np.testing.assert_array_equal(a, b)
    engine.distribution(state, tokens)
    assert engine.timed(state, True) == (0, 0, 0)
    engine.run(state, tokens)
    assert engine.timed(state, False)[2] == 0, "no distribution was asked for"


def test_nothing_to_do(kernel: str) -> None:
    engine = native.Engine(random_model(), 2)
    state = engine.start(3)
    assert engine.run(state, np.zeros((3, 0), np.int32)).shape == (3, 0, 256)
    assert engine.step(state, np.zeros(0, np.int32)).shape == (0, 256)


def test_golden_digests(kernel: str) -> None:
    golden = json.loads((Path(make.__file__).parent / "logits.json").read_text())
    assert golden["arithmetic"] == ARITHMETIC and golden["tables"] == make.tables()
    for case in golden["cases"]:
        model, tokens = make.model_and_tokens(case)
        assert make.weights(model) == case["weights"], "numpy's random numbers have changed, not the arithmetic"
        for engine in (reference.Engine(model), native.Engine(model, 2)):
            assert make.digests(engine, tokens) == {name: case[name] for name in ("logits", "cumulated", "features")}


def test_tables_are_far_from_rounding_boundaries() -> None:
    """So that any libm gives the same tables."""
    angle = np.arange(PERIOD) * (2 * np.pi / PERIOD)
    for exact in (16384 * np.cos(angle), 2.0 ** (14 - np.arange(256) / 256), 2.0 ** (24 - np.arange(256) / 256)):
        assert np.abs(exact - np.floor(exact) - 0.5).min() > 1e-6


def test_unknown_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(native.KERNEL_VARIABLE, "abacus")
    with pytest.raises(UnsupportedError, match="abacus"):
        native.Engine(random_model())


def test_name_says_what_runs(kernel: str) -> None:
    assert native.Engine(random_model(), 2).name == f"native ({kernel}, 2 threads)"


@pytest.mark.parametrize("token", [-1, 256, 2**31 - 1])
def test_tokens_outside_the_vocabulary(token: int) -> None:
    engine = native.Engine(random_model())
    with pytest.raises(ValueError, match="vocabulary"):
        engine.step(engine.start(1), np.array([token]))


@pytest.mark.parametrize(
    "fields", [{"head": 64}, {"up": -64}, {"score": 512}, {"o_scale": np.nan}, {"head_scale": 2e3}]
)
def test_models_out_of_bounds(fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of bounds"):
        native.Engine(changed(random_model(), **fields))


@pytest.mark.parametrize(
    "layer", [(-1, 192, 24), (33, 192, 24), (2, -64, 24), (2, 100, 24), (2, 192, 0), (2, 192, 1025)]
)
def test_layers_out_of_bounds(layer: tuple[int, int, int]) -> None:
    model = random_model()
    shape = dict(zip(("n_head", "d_ff", "window"), zip((2, 192, 24), layer, strict=True), strict=True))
    with pytest.raises(ValueError, match="shape is out of bounds"):
        native.Engine(replace(model, config=replace(model.config, **shape)))


def test_arrays_of_the_wrong_size() -> None:
    model = random_model()
    with pytest.raises(ValueError, match="bytes"):
        native.Engine(replace(model, head=model.head[:-1]))
    engine = native.Engine(model)
    with pytest.raises(ValueError, match="bytes"):
        engine.cumulate(np.zeros((2, 128), np.int16))


def test_several_threads_share_an_engine() -> None:
    model = random_model()
    engine, tokens = native.Engine(model, 2), tokens_for(model, 4, 40)
    want, got = run(engine, tokens), [np.zeros(0, np.int16)] * 4

    def work(i: int) -> None:
        got[i] = run(engine, tokens, [0] * 40)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for logits in got:
        np.testing.assert_array_equal(logits, want)


def test_results_stay_while_anyone_holds_them() -> None:
    """Memory of results is used again, but never under an array or a view that is still there."""
    model = random_model()
    engine, tokens = native.Engine(model), tokens_for(model, 4, 40)
    want = run(engine, tokens)
    state, views = engine.start(4), []
    for t in range(40):
        logits = engine.step(state, tokens[:, t])
        base, local = engine.cumulate(logits)
        views.append((logits[1:3, ::2].T, base[2], local[:, 5:]))
        del logits, base, local
    for t, (logits, base, local) in enumerate(views):
        np.testing.assert_array_equal(logits, want[1:3, t, ::2].T)
        want_base, want_local = reference.Engine(model).cumulate(want[:, t])
        np.testing.assert_array_equal(base, want_base[2])
        np.testing.assert_array_equal(local, want_local[:, 5:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_after_a_fork() -> None:
    """A child process has none of its parent's threads, and must not wait for them."""
    code = """
import os, numpy as np
from lmcompress.engine.native import Engine
from tests.models import random_model
engine, tokens = Engine(random_model(), 3), np.arange(48, dtype=np.int32).reshape(6, 8)
want = engine.run(engine.start(6), tokens)
child = os.fork()
good = (engine.run(engine.start(6), tokens) == want).all()
if child == 0:
    os._exit(not good)
raise SystemExit(not good or os.waitpid(child, 0)[1])
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0


def test_matrix_benchmark(kernel: str) -> None:
    assert _native.bench_gemm(kernel, 8, 64, 64, 0.001) > 0
    with pytest.raises(ValueError):
        _native.bench_gemm("abacus", 8, 64, 64, 0.001)
    with pytest.raises(ValueError):
        _native.bench_gemm(kernel, 8, 33, 64, 0.001)


def test_every_function_without_python(tmp_path: Path) -> None:
    """tests/cross/driver.c: each function of each instruction set on random and extreme inputs."""
    compiler = shutil.which((sysconfig.get_config_var("CC") or "cc").split()[0])
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler")
    sources = [ROOT / "tests/cross/driver.c", *(ROOT / "lmcompress/native").glob("kernels_*.c")]
    sources += [ROOT / "lmcompress/native" / name for name in ("engine.c", "threads.c")]
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-pthread", f"-I{ROOT / 'lmcompress/native'}"]
    subprocess.run([compiler, *flags, *map(str, sources), "-o", str(tmp_path / "driver"), "-lm"], check=True)
    subprocess.run([sys.executable, "-m", "tests.cross.dump", str(tmp_path / "vectors")], cwd=ROOT, check=True)
    done = subprocess.run([str(tmp_path / "driver"), str(tmp_path / "vectors")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    for name in _native.kernels():
        assert name in done.stdout


def test_heads_are_64_wide_in_both() -> None:
    header = (ROOT / "lmcompress/native/kernels.h").read_text()
    assert f"#define HEAD {HEAD_SIZE} " in header

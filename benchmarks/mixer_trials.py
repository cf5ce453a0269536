"""Trials of the mixer: what files cost with the model alone, the mixer alone and both; and what a change to it buys.

    python -m benchmarks.mixer_trials FILE... --model NAME [--lanes N] [--cache DIR] [--variant OTHER.c]

What the model says is kept in DIR, so that a trial takes seconds. `--variant` compiles another version of
lmcompress/native/mixer.c beside the built one and shows the difference. Choose on validation text, never on corpora/eval.

Knows: models, files, the mixer's interface. Does not know: archives; costs are ideal code lengths.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from lmcompress import _native, modelfile
from lmcompress.codec import layout, spans
from lmcompress.distribution import Distribution
from lmcompress.engine import native as engine
from lmcompress.mixer import native as mixer
from lmcompress.predictor import NetworkAlone, Vocabulary

PART = 256  # positions whose distributions are held at a time
MODULE = """
#include "clock.h"
#include "native.h"
int64_t lmc_now(void) { return 0; } /* nothing is timed inside */
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "variant", "", -1, NULL};
PyMODINIT_FUNC PyInit_variant(void)
{
    PyObject *module = PyModule_Create(&definition);
    return module && lmc_add_mixer(module) == 0 ? module : NULL;
}
"""


def compiled(source: Path) -> ModuleType:
    """A module with the functions of another mixer.c."""
    with tempfile.TemporaryDirectory() as folder:
        start, out = Path(folder, "start.c"), Path(folder, "variant.so")
        start.write_text(MODULE)
        headers = [f"-I{Path(mixer.__file__).parent.parent / 'native'}", f"-I{sysconfig.get_paths()['include']}"]
        subprocess.run(["cc", "-O3", "-shared", "-fPIC", *headers, str(source), str(start), "-o", str(out)], check=True)
        spec = importlib.util.spec_from_file_location("variant", out)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def outputs(network: Any, digest: bytes, previous: np.ndarray, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Logits int16 [L, T, V] and features int8 [L, T, d_model], from the cache where it has them."""
    key = hashlib.sha256(digest + previous.tobytes() + str(previous.shape).encode()).hexdigest()[:24]
    files = [cache / f"{key}.{what}.npy" for what in ("logits", "features")] if cache else []
    if files and files[-1].exists():
        return np.load(files[0], mmap_mode="r"), np.load(files[1], mmap_mode="r")
    logits, features = [], []
    state, again = network.start(len(previous)), network.start(len(previous))
    for t in range(0, previous.shape[1], PART):
        part = previous[:, t : t + PART]
        logits.append(network.run(state, part))
        features.append(network.distribution(again, part).features)  # an engine gives these or logits
    result = np.concatenate(logits, axis=1), np.concatenate(features, axis=1)
    if files:
        np.save(files[0], result[0])
        np.save(files[1], result[1])
    return result


def cost(learner: Any, tokens: np.ndarray, counts: np.ndarray, known: Any, network: Any) -> float:
    """Ideal bytes of lanes int32 [L, T] of which the first `counts` tokens each are coded."""
    bits = 0.0
    for start, stop, m in spans(counts):
        for at in range(start, stop, PART):
            part = slice(at, min(at + PART, stop))
            said = None
            if known is not None:
                logits, features = (np.ascontiguousarray(array[:m, part]) for array in known)
                said = Distribution(*network.cumulate(logits), features)
            k, bit = learner.encode(said, tokens[:m, part])
            p = np.where(bit, k, (1 << 24) - k.astype(np.int64)) / 2.0**24
            bits -= float(np.log2(p).sum())
    return bits / 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--model", default="fast", help="name or path: its vocabulary, and its network")
    parser.add_argument("--no-network", action="store_true", help="the mixer alone only")
    parser.add_argument("--lanes", type=int, default=1)
    parser.add_argument("--bits", type=int, default=24)
    parser.add_argument("--light", action="store_true", help="the light mixer")
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--variant", type=Path, help="another mixer.c")
    arguments = parser.parse_args()
    model = modelfile.load(arguments.model)
    vocabulary = Vocabulary(model)
    network = None if arguments.no_network else engine.Engine(model, 1)
    if arguments.cache:
        arguments.cache.mkdir(parents=True, exist_ok=True)
    versions = [("", _native)] + ([("variant ", compiled(arguments.variant))] if arguments.variant else [])
    for file in arguments.files:
        data = file.read_bytes()
        tokens = model.tokenizer.encode(data).astype(np.int32)
        tree = vocabulary.tree(vocabulary.nearest(tokens))
        lanes, counts = layout(tokens, min(arguments.lanes, len(tokens)))
        previous = np.concatenate([np.full((len(lanes), 1), model.start, np.int32), lanes[:, :-1]], axis=1)
        known = outputs(network, model.digest, previous, arguments.cache) if network else None
        results = []
        if network:
            results.append(("network", cost(NetworkAlone(tree), lanes, counts, known, network)))
        for name, module in versions:
            mixer._native = module  # type: ignore[attr-defined]
            for use in (None, known) if network else (None,):
                start = time.process_time()
                shape = (arguments.bits, len(lanes), len(tokens), arguments.light, model.config.d_model if use else 0)
                learner = mixer.Mixer(tree, model.tokenizer.pieces, *shape, model.ngrams)
                size = cost(learner, lanes, counts, use, network)
                seconds = time.process_time() - start
                what = "mixer" if use is None else "both"
                results.append((f"{name}{what} ({seconds / len(tokens) * 1e6:.1f} us/token)", size))
        print(f"{file.name}: {len(data)} bytes, {len(tokens)} tokens", flush=True)
        for name, size in results:
            print(f"    {size:12.0f}  {8 * size / len(data):.4f} bits per byte  {name}", flush=True)


if __name__ == "__main__":
    main()

"""`lmcompress train`: from a folder of text to a model file, in stages that are skipped where their result lies there.

Knows: the order of stages and their files in the output folder. Does not know: how any of them works.
"""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lmcompress.errors import LMCompressError
from lmcompress.tokenizer import Tokenizer
from lmcompress.training import data, trees, vocabulary
from lmcompress.tree import text_order

if TYPE_CHECKING:
    from lmcompress.modelfile import Model
    from lmcompress.training.model import Transformer
    from lmcompress.training.train import Start

SAMPLE = 24_000_000  # bytes of text that the vocabulary is learned from


@click.command("train")
@click.option("--config", "recipe_path", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=True,
              help="The recipe: JSON as in runs/fast.json.")  # fmt: skip
@click.option("--data", "source", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="A folder of text files, or of shards CATEGORY.NN.txt.zst.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Folder for vocabulary, token ids, checkpoint, log and model file; found ones are used.")  # fmt: skip
@click.option("--init", multiple=True,
              help="A model to start from, shipped or a file, whose vocabulary is then taken over; or a checkpoint of the "
                   "same vocabulary. Its shape may be smaller. Several: the mean of their weights.")  # fmt: skip
@click.option("--teacher", default=None,
              help="A model whose predictions are learned too, in the recipe's share `taught`, and whose vocabulary is taken over.")  # fmt: skip
@click.option("--beside", default=None,
              help="A model, which the mixer reads text with first: what it adds is then part of the loss, on as many tokens as the "
                   "recipe's `beside`. Its vocabulary is taken over.")  # fmt: skip
@click.option("--name", default=None, help="The model's name; by default the recipe's file name.")
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@click.option("--threads", type=int, default=0, help="CPU threads; 0 for all.")
@click.option("--validate-every", type=int, default=400, show_default=True, help="Steps between checkpoints.")
@click.option("--minutes", type=float, default=float("inf"),
              help="Stop with a checkpoint after so long; the same command goes on.")  # fmt: skip
def train(
    recipe_path: Path, source: Path, out: Path, init: tuple[str, ...], teacher: str | None, beside: str | None, name: str | None, device: str,
    threads: int,
    validate_every: int, minutes: float,
) -> None:  # fmt: skip
    """Train a model on a folder of text; started again, it goes on where it was.

    Under torchrun, prepare first (one process), then train on several GPUs.
    """
    _keep_memory()
    import torch

    from lmcompress.methods import DEFAULT_LEVEL, LEVELS
    from lmcompress.training.mixture import Traced, trace
    from lmcompress.training.model import Transformer
    from lmcompress.training.train import Recipe, grow
    from lmcompress.training.train import train as run

    if threads:
        torch.set_num_threads(threads)
    recipe = Recipe.load(recipe_path)
    name = name or recipe_path.stem
    if not name.isprintable():
        raise click.UsageError("a model's name is printable")
    start = None
    if init:
        pieces, start = start_of(init)
        try:
            grow(Transformer(recipe.model), start.weights)  # whether it can, before the text is cut into pieces
        except ValueError as error:
            raise click.UsageError(f"{', '.join(init)}: {error}") from None
        if pieces is not None:
            keep(pieces, out / "vocabulary.json")
    if (teacher is None) != (recipe.taught == 0):
        raise click.UsageError("a recipe with `taught` needs a --teacher, and no other has one")
    master = None
    if teacher is not None:
        pieces, master = teacher_of(teacher)
        keep(pieces, out / "vocabulary.json")
    if (beside is None) != (recipe.beside == 0):
        raise click.UsageError("a recipe with `beside` needs a model --beside the mixer, and no other has one")
    reader = None
    if beside is not None:
        reader = given(beside)
        keep(reader.tokenizer, out / "vocabulary.json")
    tokenizer = prepare(source, out, recipe.model.vocab_size, recipe.alone)
    traced = None
    if reader is not None:
        if not (out / "traced" / "blocks.json").exists():
            trace(
                reader, LEVELS[DEFAULT_LEVEL].codec(), out / "ids", out / "traced", recipe.beside, recipe.seed, threads
            )
        traced = Traced(out / "traced", reader.depths, recipe.sequence, recipe.seed)
    done = run(recipe, out / "ids", out / "run", device, validate_every, start, minutes, master, traced)
    if done and int(os.environ.get("RANK", 0)) == 0:
        path = finish(source, tokenizer, out, name)
        click.echo(f"{path}: {path.stat().st_size} bytes")


def start_of(init: Sequence[str]) -> tuple[Tokenizer | None, Start]:
    """The mean of the weights of models and checkpoints to start with, and the vocabulary if there is a model among them.
    Raises click.ClickException."""
    import torch

    from lmcompress import modelfile
    from lmcompress.training.export import restore
    from lmcompress.training.train import Start, cost, mean

    names = ", ".join(init)
    vocabulary, weights, costs = None, [], []
    try:
        for path in init:
            if path.endswith(".pt"):
                saved = torch.load(path, map_location="cpu", weights_only=True)
                weights.append(saved["model"])
                costs.append(cost(saved))
            else:
                model = modelfile.load(path)
                if vocabulary not in (None, model.tokenizer):
                    raise ValueError("the models' vocabularies differ")
                vocabulary = model.tokenizer
                weights.append(restore(model))
                costs.append((model.card.get("tokens", 0), model.card.get("hours", 0.0)))
        return vocabulary, Start(mean(weights), max(costs))
    except (KeyError, RuntimeError, pickle.UnpicklingError):
        raise click.ClickException(f"{names}: not a training run's checkpoint") from None
    except (OSError, ValueError, LMCompressError) as error:
        raise click.ClickException(f"{names}: {error}") from None


def teacher_of(name: str) -> tuple[Tokenizer, Transformer]:
    """The vocabulary and the float weights of a model, shipped or a file. Raises click.ClickException."""
    from lmcompress.training.export import restore
    from lmcompress.training.model import Transformer
    from lmcompress.training.train import grow

    model = given(name)
    teacher = Transformer(model.config)
    grow(teacher, restore(model))
    return model.tokenizer, teacher


def given(name: str) -> Model:
    """A model, shipped or a file. Raises click.ClickException."""
    from lmcompress import modelfile

    try:
        return modelfile.load(name)
    except (OSError, LMCompressError) as error:
        raise click.ClickException(f"{name}: {error}") from None


def keep(tokenizer: Tokenizer, path: Path) -> None:
    """Writes a vocabulary. Raises click.UsageError where the file has another one already."""
    text = json.dumps({"pieces": [p.hex() for p in tokenizer.pieces], "costs": list(tokenizer.costs)})
    if path.exists() and path.read_text() != text:
        raise click.UsageError(f"{path} is not the vocabulary of the model to start from, or of the teacher")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def prepare(source: Path, out: Path, vocab_size: int, alone: bool = False) -> Tokenizer:
    """The vocabulary (vocabulary.json) and the token ids (ids/) of a folder of text, with digits and codes by themselves if
    `alone`."""
    path = out / "vocabulary.json"
    if not path.exists():
        keep(vocabulary.learn(data.sample(source, SAMPLE), vocab_size, alone), path)
    saved = json.loads(path.read_text())
    tokenizer = Tokenizer(tuple(bytes.fromhex(p) for p in saved["pieces"]), tuple(saved["costs"]))
    if not (out / "ids" / "index.json").exists():
        data.tokenize(source, tokenizer, out / "ids", alone)
    return tokenizer


def finish(source: Path, tokenizer: Tokenizer, out: Path, name: str) -> Path:
    """Writes NAME.lmm from the checkpoint: ids in the order of their pieces' text, trees for the kinds of text in the
    source; the card has the recipe, what this run and those before it took, the log's last validation."""
    import torch

    from lmcompress.modelfile import SUFFIX, dumps
    from lmcompress.training.export import export
    from lmcompress.training.train import cost, trained

    model, recipe, saved = trained(out / "run" / "checkpoint.pt", out / "ids")
    mix = data.Mix(out / "ids", recipe.sequence, recipe.seed)
    order = text_order(tokenizer.pieces)
    depths = trees.learn(trees.shares(trees.parts(source), tokenizer)[:, order])
    tokens, hours = cost(saved)
    lines = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    card = {
        "recipe": json.loads(saved["recipe"]),
        "text": ", ".join(mix.names),
        "tokens": tokens,
        "new_tokens": saved["step"] * recipe.batch * recipe.sequence,
        "hours": round(hours, 2),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "validation": [line for line in lines if "bits_per_byte/mean" in line][-1:],
    }
    path = out / f"{name}{SUFFIX}"
    path.write_bytes(dumps(export(model, tokenizer, order, depths, name, card)))
    return path


def _keep_memory() -> None:
    """Starts the process again with glibc keeping freed memory: a step frees and takes hundreds of MB, and getting
    them from the kernel each time costs more than the arithmetic (docs/LOG.md)."""
    if sys.platform == "linux" and "GLIBC_TUNABLES" not in os.environ:
        os.environ["GLIBC_TUNABLES"] = (
            "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=1000000000000"
            ":glibc.malloc.top_pad=268435456"
        )
        os.execv(sys.executable, sys.orig_argv)


if __name__ == "__main__":
    train()

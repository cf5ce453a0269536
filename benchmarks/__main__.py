"""The command: `python -m benchmarks [run|small|scaling|time|steps|kernels|coder|parts|lanes|model|quantization|shrink|
mean|vocabulary|compare|prior|charsets|dictionary|report|codecs]`; `run` on the samples by default.

Knows: which codecs on which files, in what order, and where the rows go. Does not know: how anything is measured or drawn.
"""

from __future__ import annotations

import datetime
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import codecs, corpora, measure, results
from benchmarks.codecs import Codec
from benchmarks.corpora import Source
from benchmarks.measure import Effort
from benchmarks.results import Record, Row
from lmcompress.cli import _size as size_of
from lmcompress.methods import DEFAULT_LEVEL

SAMPLES = corpora.CORPORA / "samples"
PIECES = (1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10)
SIZES = ("1K", "10K", "100K", "1M")
SMALL = (
    "gzip-9", "zstd-22", "zstd-22-dict", "brotli-11", "xz-9e", "bzip2-9", "lmcompress-1", "lmcompress-5", "lmcompress-6",
)  # fmt: skip
console = Console(stderr=True)

Work = tuple[Codec, Source, int, int]  # codec, source, threads, bytes per piece


def options(repeats: int = Effort.repeats) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What all studies have in common."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(
            (
                click.option("--corpus", "paths", multiple=True, type=click.Path(exists=True, path_type=Path),
                             help="A file or folder, again for more. Default: the samples in corpora/."),
                click.option("--codec", "names", multiple=True,
                             help="Again for more. Default: those that `codecs` calls usual; `small` has fewer."),
                click.option("--threads", multiple=True, type=int, help="Again for more, for codecs that heed it. Default: 1."),
                click.option("--repeats", default=repeats, show_default=True, help="Runs, at most; the median is kept."),
                click.option("--budget", default=Effort.budget, show_default=True,
                             help="Seconds that the runs of one direction may take together; where the library takes longer in "
                             "a single run, that is the only one, and the command is not run."),
                click.option("--timeout", default=Effort.timeout, show_default=True, help="Seconds after which a codec has failed."),
                click.option("--out", type=click.Path(path_type=Path), help="File of JSON lines to add to; a CSV is kept beside it."),
                click.option("--again", is_flag=True, help="Measure also what the file of results has already."),
            )
        ):  # fmt: skip
            command = option(command)
        return command

    return add


def chosen(names: tuple[str, ...], usual: Iterable[str] | None = None) -> list[Codec]:
    """The codecs to run; says which are not installed."""
    found = []
    for name in names or usual or [name for name, codec in codecs.CODECS.items() if codec.usual]:
        try:
            codec = codecs.find(name)
        except (KeyError, ValueError, ImportError, AttributeError):
            raise click.BadParameter(f"{name}: there is no such codec; see `python -m benchmarks codecs`") from None
        if missing := codec.missing():
            console.print(f"[dim]{name}: not installed ({missing})[/]")
        else:
            found.append(codec)
    return found


def carry_out(study: str, works: list[Work], effort: Effort, out: Path | None, again: bool) -> None:
    """Measures all works whose row is not in `out` yet; each row is kept as soon as it is known."""
    out = out or results.RESULTS / dated()
    done = {row.key(): row for row in results.latest(results.read(out, Row))}
    here = results.processor_of(measure.circumstances()["machine"])
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    failures = 0
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(study, total=len(works))
        for codec, source, threads, piece in works:
            progress.update(task, description=f"{codec.name} {source.name}" + (f" in {piece:,}" if piece else ""))
            row = done.get((here, study, codec.name, threads, source.sha256, piece))
            if row is None or again or row.version != codec.version():
                row = measure.measure(codec, source, study, effort, threads, piece)
                results.append(out, row)
                progress.console.print(described(row))
            failures += not row.ok
            progress.advance(task)
    results.write_csv(out.with_suffix(".csv"), results.latest(results.read(out, Row)))
    console.print(f"{len(works)} measurements, {failures} failed, in {out}")
    if failures:
        sys.exit(1)


def described(row: Row) -> str:
    about = f"{row.codec} {row.file}" + (f" in {row.piece:,}" if row.piece else "")
    if not row.ok:
        return f"[red]{about}: failed: {row.error}[/]"
    speeds = [row.speed(direction) for direction in ("encode", "decode")]
    shown = " / ".join(f"{speed / 1e6:.3g}" if speed else "?" for speed in speeds)
    return f"{about}: {row.coded_bytes:,} bytes, {row.bpb} bpb, {shown} MB/s"


def dated() -> str:
    """The name of a file of today's results."""
    return f"{datetime.date.today().isoformat()}-{measure.commit() or 'unknown'}.jsonl"


def effort(arguments: dict[str, Any]) -> Effort:
    return Effort(arguments["repeats"], arguments["budget"], arguments["timeout"])


def with_threads(codec: Codec, threads: tuple[int, ...]) -> tuple[int, ...]:
    return (threads or (1,)) if codec.threaded else (1,)


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Measure lmcompress and its rivals; without a command: `run` on the samples."""
    if context.invoked_subcommand is None:
        context.invoke(
            run_command, paths=(), names=(), threads=(), repeats=Effort.repeats, budget=Effort.budget,
            timeout=Effort.timeout, out=None, again=False,
        )  # fmt: skip


@main.command("run")
@options()
def run_command(paths: tuple[Path, ...], names: tuple[str, ...], threads: tuple[int, ...], **rest: Any) -> None:
    """Coded bytes, speed and memory of every codec on every file."""
    files = corpora.sources(paths or (SAMPLES,))
    works = [(codec, file, t, 0) for codec in chosen(names) for file in files for t in with_threads(codec, threads)]
    carry_out("files", works, effort(rest), rest["out"], rest["again"])


@main.command()
@options(repeats=1)
def small(paths: tuple[Path, ...], names: tuple[str, ...], threads: tuple[int, ...], **rest: Any) -> None:
    """The same text in pieces of 1 to 256 KiB, each coded by itself: at most 32 pieces, and 64 KiB or one piece, of each file
    that is longer than the largest piece. Files as a whole are known from `run`."""
    files = corpora.sources(paths or (SAMPLES,))
    pieces = [piece for piece in PIECES if any(file.size > piece for file in files)]
    works = [
        (codec, file, t, piece)
        for codec in chosen(names, SMALL)
        if codec.has_module()
        for file in files
        if pieces and file.size > pieces[-1]
        for t in with_threads(codec, threads)
        for piece in pieces
    ]
    carry_out("small", works, effort(rest), rest["out"], rest["again"])


@main.command()
@click.option("--size", "sizes", multiple=True, default=SIZES, show_default=True, help="Such as 10M; again for more.")
@options()
def scaling(
    sizes: tuple[str, ...], paths: tuple[Path, ...], names: tuple[str, ...], threads: tuple[int, ...], **rest: Any
) -> None:
    """Time and memory against size and threads: the first bytes of all files one after the other."""
    text = b"".join(file.path.read_bytes() for file in corpora.sources(paths or (SAMPLES,)))
    with tempfile.TemporaryDirectory() as scratch:
        files = []
        for size in map(size_of, sizes):
            if size > len(text):
                console.print(f"[dim]{size:,}: the corpus has only {len(text):,} bytes[/]")
                continue
            path = Path(scratch) / f"first-{size}"
            path.write_bytes(text[:size])
            files.append(corpora.source(path))
        every = chosen(names)
        works = [(codec, file, t, 0) for codec in every for file in files for t in with_threads(codec, threads)]
        carry_out("scaling", works, effort(rest), rest["out"], rest["again"])


@main.command("time")
@click.argument("files", nargs=-1, type=click.Path(exists=True, path_type=Path))
@click.option("--level", default=DEFAULT_LEVEL, show_default=True)
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True, help="Again for more.")
@click.option("--limit", default=1_000_000, show_default=True, help="Bytes of each file; a block at most.")
@click.option("--repeats", default=3, show_default=True, help="Runs; the fastest is kept.")
@click.option("--out", type=click.Path(path_type=Path), help="File of JSON lines to add to.")
def time_command(
    files: tuple[Path, ...], level: int, threads: tuple[int, ...], limit: int, repeats: int, out: Path | None
) -> None:
    """Where the time of coding and decoding FILES goes: the network's parts, mixer, range coder, the rest."""
    from benchmarks import breakdown

    sources = corpora.sources(files or (SAMPLES / "alice29.txt",))
    works = ((source.path, level, t, limit, repeats) for source in sources for t in threads)
    keep((row for work in works for row in breakdown.measured(*work)), breakdown.table, out)


def keep(records: Iterable[Any], table: Callable[[list[Any]], list[list[str]]], out: Path | None) -> None:
    """Adds records to `out`, each as soon as it is known, and prints them all as a table."""
    kept: list[Record] = []
    for record in records:
        out = out or results.RESULTS / record.folder / dated()
        results.append(out, record)
        kept.append(record)
    if kept:
        heads, _, *lines = table(kept)
        shown = Table(*heads)
        for line in lines:
            shown.add_row(*line)
        Console(width=160).print(shown)
        console.print(f"in {out}")


@main.command("steps")
@click.option("--model", default="fast", show_default=True, help="A shipped model or a model file.")
@click.option("--threads", multiple=True, type=int, default=(1, 2), show_default=True, help="Again for more.")
@click.option("--lanes", multiple=True, type=int, default=(1, 2, 4, 8, 16, 32, 64, 128), show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="For each figure.")
@click.option("--out", type=click.Path(path_type=Path), help="File of JSON lines to add to.")
def steps_command(
    model: str, threads: tuple[int, ...], lanes: tuple[int, ...], seconds: float, out: Path | None
) -> None:
    """Microseconds of a step of the network with its output distribution, by lanes and threads. LMC_KERNEL names another
    instruction set than the best."""
    from benchmarks import kernels
    from lmcompress import modelfile

    keep(kernels.steps(modelfile.load(model), threads, lanes, seconds), kernels.steps_table, out)


@main.command("kernels")
@click.option("--seconds", default=0.2, show_default=True, help="For each figure.")
@click.option("--out", type=click.Path(path_type=Path), help="File of JSON lines to add to.")
def kernels_command(seconds: float, out: Path | None) -> None:
    """10^9 multiply-adds per second by instruction set and rows (lanes), one thread, and shares of the peak."""
    from benchmarks import kernels

    keep(kernels.products(seconds), kernels.products_table, out)


def block_options(command: Callable[..., None]) -> Callable[..., None]:
    """What the studies of single blocks have in common."""
    for option in reversed(
        (
            click.option("--corpus", "paths", multiple=True, type=click.Path(exists=True, path_type=Path),
                         help="A file or folder, again for more. Default: the samples in corpora/."),
            click.option("--model", default="fast", show_default=True, help="A shipped model or a model file."),
            click.option("--limit", default=300_000, show_default=True, help="Bytes of each file."),
            click.option("--threads", default=1, show_default=True),
        )
    ):  # fmt: skip
        command = option(command)
    return command


@main.command("parts")
@block_options
def parts_command(paths: tuple[Path, ...], model: str, limit: int, threads: int) -> None:
    """Network alone, mixer alone, both; without n-grams; in 1, 8, 32 lanes."""
    from benchmarks import parts
    from lmcompress import modelfile

    files = [source.path for source in corpora.sources(paths or (SAMPLES,))]
    wide = Console(width=160)
    wide.print(parts.parts_table(modelfile.load(model), files, limit, 26, 8192, threads))


@main.command("lanes")
@click.option("--unit", "units", multiple=True, type=int, default=(1024, 8192, 131072), show_default=True)
@click.option("--bits", multiple=True, type=int, default=(22, 26), show_default=True)
@block_options
def lanes_command(
    units: tuple[int, ...], bits: tuple[int, ...], paths: tuple[Path, ...], model: str, limit: int, threads: int
) -> None:
    """Units of lanes and sizes of tables."""
    from benchmarks import parts
    from lmcompress import modelfile

    files = [source.path for source in corpora.sources(paths or (SAMPLES,))]
    Console(width=160).print(parts.lanes_table(modelfile.load(model), files, limit, units, bits, threads))


@main.command("model")
@click.argument("name", default="fast")
def model_command(name: str) -> None:
    """Bytes of a model's weights before and after."""
    from benchmarks import parts

    Console(width=120).print(parts.model_table(name))


def checkpoint_options(tokens: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """What the studies of a training run have in common."""

    def add(command: Callable[..., None]) -> Callable[..., None]:
        existing = click.Path(exists=True, path_type=Path)
        command = click.option(
            "--tokens", default=tokens, show_default=True, help="Of each category's validation split."
        )(command)
        return click.argument("checkpoint", type=existing)(click.argument("ids", type=existing)(command))

    return add


@main.command()
@checkpoint_options(24_576)
def quantization(checkpoint: Path, ids: Path, tokens: int) -> None:
    """What the integers cost: a training run's checkpoint and its folder of token ids."""
    from benchmarks import weights

    Console(width=120).print(weights.quantization_table(checkpoint, ids, tokens))


@main.command()
@checkpoint_options(6144)
def shrink(checkpoint: Path, ids: Path, tokens: int) -> None:
    """What fewer bits of a weight, fewer MLP columns or one head less cost, without training again."""
    from benchmarks import weights

    Console(width=120).print(weights.shrink_table(checkpoint, ids, tokens))


@main.command("charsets")
def charsets_command() -> None:
    """Whether this Python's codecs have the characters of lmcompress/charsets.json, which never changes."""
    from benchmarks import charsets

    click.echo(charsets.main())


@main.command("mean")
@click.argument("ids", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("checkpoints", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--tokens", default=3072, show_default=True, help="Of each category's validation split.")
@click.option("--parts", default=3, show_default=True, help="Of a mean, at most.")
def mean_command(ids: Path, checkpoints: tuple[Path, ...], tokens: int, parts: int) -> None:
    """What means of several checkpoints' weights gain: a folder of token ids, and the checkpoints; after the
    first also models, by name or file."""
    from benchmarks import weights

    Console(width=120).print(weights.mean_table(checkpoints, ids, tokens, parts))


@main.command("vocabulary")
@click.argument("names", nargs=-1, required=True, metavar="MODEL_OR_SIZE...")
@click.option("--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="A folder of training text, as `lmcompress train` takes it.")  # fmt: skip
@click.option("--sample", default=24_000_000, show_default=True, help="Bytes that a vocabulary is learned from.")
def vocabulary_command(names: tuple[str, ...], folder: Path, sample: int) -> None:
    """Bytes per token by category of the validation split: a model's vocabulary, or so many pieces learned here."""
    from benchmarks import vocabulary

    Console(width=160).print(vocabulary.table(names, folder, sample))


@main.command("compare")
@click.option("--config", "path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              default=Path("runs/toy.json"), show_default=True, help="The recipe that is changed.")  # fmt: skip
@click.option("--data", "folder", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True,
              help="A folder of training text, as `lmcompress train` takes it.")  # fmt: skip
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
              help="Folder for token ids, runs, results.jsonl and table.md; found ones are used.")  # fmt: skip
@click.option("--only", "names", multiple=True, help="A comparison, again for more. Default: all.")
@click.option("--threads", default=0, help="CPU threads; 0 for all.")
@click.option("--compile/--eager", "compiled", default=False, show_default=True, help="Compiling pays for long runs.")
def compare_command(path: Path, folder: Path, out: Path, names: tuple[str, ...], threads: int, compiled: bool) -> None:
    """Short training runs, each with one thing changed; started again, it goes on where it was."""
    import torch

    from benchmarks import compare
    from lmcompress.training.train import Recipe

    if unknown := set(names) - compare.COMPARISONS.keys():
        raise click.BadParameter(f"{', '.join(unknown)}: known are {', '.join(compare.COMPARISONS)}")
    if threads:
        torch.set_num_threads(threads)
    torch.compiler.set_stance("default" if compiled else "force_eager")
    table = compare.run(Recipe.load(path), folder, out, list(names or compare.COMPARISONS))
    for target in (Console(width=200), Console(width=200, file=(out / "table.md").open("w"))):
        target.print(table)


@main.command("prior")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--model", default="fast", show_default=True, help="A shipped model or a model file.")
@click.option("--bytes", "total", default=3_000_000, show_default=True, help="Of documents.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="By default the package's own file.")
def prior_command(folder: Path, model: str, total: int, out: Path | None) -> None:
    """Make prior.json again, what mixers know at first, from a folder of training text."""
    from benchmarks import prior
    from lmcompress import modelfile

    (out or prior.prior.FILE).write_text(prior.make(folder, modelfile.load(model), total))


@main.command()
def coder() -> None:
    """What a call of the range coder costs, by backend and number of decisions."""
    from benchmarks import kernels

    Console().print(kernels.coder_table())


@main.command()
@click.argument("pool", type=click.Path(exists=True, path_type=Path))
@click.option("--size", default=1_000_000, show_default=True, help="Bytes, at most.")
def dictionary(pool: Path, size: int) -> None:
    """Train zstd's dictionary on the validation split of a text pool (folder of CATEGORY.NN.txt.zst)."""
    from benchmarks.dictionary import train

    codecs.DICTIONARY.write_bytes(train(pool, size))
    console.print(f"{codecs.DICTIONARY}: {codecs.DICTIONARY.stat().st_size:,} bytes")


@main.command()
@click.option("--plots/--no-plots", default=True, show_default=True)
def report(plots: bool) -> None:
    """Tables into docs/BENCHMARKS.md and plots into docs/plots, from all results there are."""
    from benchmarks import report

    for path in report.write(plots):
        console.print(path)


@main.command("codecs")
def codecs_command() -> None:
    """What can be measured here."""
    table = Table("codec", "usual", "in process", "command", "version")
    for name, codec in codecs.CODECS.items():
        version = codec.version() if codec.missing() is None else f"not installed: {codec.missing()}"
        marks = ("yes" if mark else "" for mark in (codec.usual, codec.has_module(), codec.has_tool()))
        table.add_row(name, *marks, version)
    Console().print(table)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")

"""The command: arguments, progress, exit codes.

Knows: what the user asked for, terminals, signals. Does not know: formats. Exit codes: 0 all done; 1 an error, of any
file; 2 nothing worse than files skipped. Everything heavy is imported when it is first needed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

import click

from lmcompress import __version__, paths
from lmcompress.container import MAGIC, MAX_BLOCK_LOG, MAX_TOTAL, MIN_BLOCK_LOG
from lmcompress.errors import CorruptError, LimitError, LMCompressError
from lmcompress.file import ArchiveInfo, LMFile, Recovery, compress, decompress, get_archive_info, recover
from lmcompress.methods import DEFAULT_LEVEL, DEFAULT_MEMORY, LEVELS, LM_FIXED, BlockEncoder
from lmcompress.stream import BLOCK_SIZE, LMCompressor

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

CHUNK = 1 << 20  # bytes read at a time
Progress = Callable[[int, int], None]  # told bytes of content that are done, and of the archive so far
Write = Callable[[bytes], int]  # takes bytes, all of them, and says how many
HELP = f"""\
Usage: lmcompress [OPTION]... [FILE]...
Compresses FILEs, each to FILE{paths.SUFFIX}. Without FILE, or when it is -, from standard input to standard output.

  -d, --decompress     decompress                  -1 .. -9             fast .. small (default {DEFAULT_LEVEL}, LMC_LEVEL)
  -t, --test           check, name damaged blocks  --model NAME|FILE    another model than the level's
  -l, --list           sizes; with -v details      -T, --threads N      0: all cores (default 0, LMC_THREADS)
  -c, --stdout         write to standard output    --no-check           no SHA-256 of the content
  -o, --output FILE    write to FILE               --memory SIZE        most that blocks may take
  -f, --force          overwrite; links; with -dc  --max-output SIZE    stop when the content is longer
                       pass other formats through  --range OFF:LENGTH   decompress only these bytes of content
  -k, --keep           keep the source (default)   --recover            decompress what is intact, report the rest
  --rm                 remove it when all is done  --block-size SIZE    content coded together (1K to 1G)
  -N, --name           store, restore the name     -r, --recursive      files in folders too
  -q, -v               say less, say more          --exclude-compressed skip what is compressed already
  --json               with -l and -t: as JSON     --filelist FILE      names from FILE, one a line
  -h, --help           this                        --output-dir-flat DIR, --output-dir-mirror DIR
  -V, --version        the version                 --independent        blocks that need no other one

Commands: lmcompress train ..., lmcompress bench FILE..., lmcompress models  (each has --help). SIZE: 64M, 1G.
Exit codes: 0 done, 1 an error, 2 files were skipped. A file that is called as a command is: write ./train.
"""


@dataclass(frozen=True)
class Options:
    """What the user asked for; see HELP."""

    decompress: bool
    test: bool
    list: bool
    stdout: bool
    output: str | None
    force: bool
    remove: bool
    name: bool
    quiet: int
    verbose: int
    json: bool
    recursive: bool
    exclude_compressed: bool
    filelist: str | None
    output_dir_flat: str | None
    output_dir_mirror: str | None
    level: int
    model: Model | str | None
    threads: int
    check: bool
    block_size: int | None
    independent: bool
    memory: int
    max_output: int | None
    range: tuple[int, int | None] | None
    recover: bool


def _size(text: str) -> int:
    """Bytes, with a suffix K, M, G or T for powers of 1024. Raises click.BadParameter."""
    digits = text.upper().removesuffix("B").removesuffix("I")
    shift = 10 * ("KMGT".find(digits[-1:]) + 1) if digits[-1:].isalpha() else 0
    number = digits[:-1] if shift else digits
    if not number.isascii() or not number.isdigit() or len(number) > 19 or int(number) << shift > MAX_TOTAL:
        raise click.BadParameter(f"{text!r} is not a size such as 64M")
    return int(number) << shift


def _to_size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    return None if value is None else _size(value)


def _to_range(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int | None] | None:
    """OFFSET:LENGTH; without LENGTH: to the end."""
    if value is None:
        return None
    offset, _, length = value.partition(":")
    return _size(offset or "0"), _size(length) if length else None


class _Command(click.Command):
    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(HELP)


def _set_level(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta["lmcompress.level"] = int((param.name or "")[-1])


def _levels(function: Callable[..., None]) -> Callable[..., None]:
    for n in LEVELS:
        option = click.option(f"-{n}", f"level_{n}", is_flag=True, expose_value=False, callback=_set_level)
        function = option(function)
    return function


@click.command("lmcompress", cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("files", nargs=-1, type=click.Path(readable=False))
@click.option("-d", "--decompress", "--uncompress", is_flag=True)
@click.option("-t", "--test", is_flag=True)
@click.option("-l", "--list", is_flag=True)
@click.option("-c", "--stdout", "--to-stdout", is_flag=True)
@click.option("-o", "--output", type=click.Path(readable=False))
@click.option("-f", "--force", is_flag=True)
@click.option("-k", "--keep", is_flag=True)
@click.option("--rm", "remove", is_flag=True)
@click.option("-N", "--name", is_flag=True)
@click.option("-q", "--quiet", count=True)
@click.option("-v", "--verbose", count=True)
@click.option("--json", is_flag=True)
@click.option("-r", "--recursive", is_flag=True)
@click.option("--exclude-compressed", is_flag=True)
@click.option("--filelist", type=click.Path())
@click.option("--output-dir-flat", type=click.Path(readable=False))
@click.option("--output-dir-mirror", type=click.Path(readable=False))
@_levels
@click.option("--model")
@click.option("-T", "--threads", type=click.IntRange(0))
@click.option("--check/--no-check", default=True)
@click.option("--block-size", callback=_to_size)
@click.option("--independent", is_flag=True)
@click.option("--memory", default=str(DEFAULT_MEMORY), callback=_to_size)
@click.option("--max-output", callback=_to_size)
@click.option("--range", callback=_to_range)
@click.option("--recover", is_flag=True)
@click.version_option(__version__, "-V", "--version", prog_name="lmcompress", message="%(prog)s %(version)s")
@click.pass_context
def command(ctx: click.Context, /, files: tuple[str, ...], keep: bool, **given: Any) -> None:
    """See HELP."""
    given["remove"] = given["remove"] and not keep
    given["decompress"] = given["decompress"] or given["range"] is not None or given["recover"]
    level = ctx.meta.get("lmcompress.level") or os.environ.get("LMC_LEVEL") or DEFAULT_LEVEL
    if given["decompress"] or given["test"] or given["list"]:
        level = DEFAULT_LEVEL
    if str(level) not in map(str, LEVELS):
        raise click.UsageError(f"LMC_LEVEL is {level!r}, not one of {min(LEVELS)} to {max(LEVELS)}")
    if given["threads"] is None:
        threads = os.environ.get("LMC_THREADS") or "0"
        if not threads.isascii() or not threads.isdigit():
            raise click.UsageError(f"LMC_THREADS is {threads!r}, not a number of threads")
        given["threads"] = int(threads)
    given["stdout"] = given["stdout"] or given["output"] == "-"
    given["output"] = None if given["output"] == "-" else given["output"]
    options = Options(level=int(level), **given)
    if isinstance(options.model, str) and os.path.isfile(options.model):
        from lmcompress import modelfile

        try:
            options = replace(options, model=modelfile.load(options.model))
        except LMCompressError as error:
            raise click.ClickException(f"{options.model}: {error}") from None
    names = list(files)
    if options.filelist is not None:
        data = _standard_input().read() if options.filelist == "-" else Path(options.filelist).read_bytes()
        try:
            names += paths.read_filelist(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), None))
        except ValueError as error:
            raise click.UsageError(f"{options.filelist}: {error}") from None
        if options.filelist == "-" and "-" in names:
            raise click.UsageError("standard input is the list of names, and cannot be compressed too")
    elif not names:
        names = ["-"]
    if "" in (*names, options.output, options.filelist, options.output_dir_flat, options.output_dir_mirror):
        raise click.UsageError("an empty file name")
    if options.stdout and options.output is not None:
        raise click.UsageError("-c and -o exclude each other")
    if options.json and not (options.list or options.test):
        raise click.UsageError("--json is for -l and -t")
    if options.remove and options.range is not None:
        raise click.UsageError("--rm would remove what --range leaves out")
    if options.range is not None and (options.test or options.list or options.recover):
        raise click.UsageError("--range is not for -t, -l and --recover")
    if options.output_dir_flat is not None and options.output_dir_mirror is not None:
        raise click.UsageError("--output-dir-flat and --output-dir-mirror exclude each other")
    if (options.output_dir_flat or options.output_dir_mirror) and (options.stdout or options.output is not None):
        raise click.UsageError("a folder for the output excludes -c and -o")
    if options.max_output is not None and not (options.decompress or options.test or options.list):
        raise click.UsageError("--max-output is for decompression")
    if options.block_size is not None and not 1 << MIN_BLOCK_LOG <= options.block_size <= 1 << MAX_BLOCK_LOG:
        raise click.UsageError("a block has 1K to 1G of content")
    ctx.exit(Run(options).run(names))


class Run:
    """One run of the command over its files."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.errors = self.damaged = self.skipped = 0  # files; of damaged ones a part was recovered
        self.totals = [0, 0, 0]  # files done, bytes read, bytes written
        self.made: set[tuple[int, int]] = set()  # device and inode of every output
        self.complaint = ""  # the latest
        self.chatty = options.quiet == 0 and (options.verbose > 0 or sys.stderr.isatty())

    def run(self, names: list[str]) -> int:
        """Processes every file, whatever becomes of the others; returns the exit code."""
        options = self.options
        if options.list:
            self._list(names)
        elif options.test:
            self._test(names)
        else:
            self._convert(names)
        return 1 if self.errors or self.damaged else 2 if self.skipped else 0

    def _convert(self, names: list[str]) -> None:
        import numpy  # noqa: F401  # where memory is short, this may end the process: not when there is a temporary file

        options = self.options
        sources = list(self._sources(names))
        to_stdout = options.stdout or (options.output is None and (names == ["-"] or options.range is not None))
        if to_stdout:
            if not options.decompress and not options.force and sys.stdout.isatty():
                raise click.UsageError("compressed data is not written to a terminal; use -o, or -f to force it")
            for source in sources:
                with self._reporting(source):
                    self._one(source, sys.stdout.buffer, "standard output")
            sys.stdout.buffer.flush()
        elif options.output is not None:
            self._to_output(sources, Path(options.output))
        else:
            for source in sources:
                with self._reporting(source):
                    self._to_own_file(source)
        if self.chatty and self.totals[0] > 1:
            files, read, written = self.totals
            click.echo(f"{files} files: {_ratio(read, written, options.decompress)}", err=True)

    def _sources(self, names: list[str]) -> Iterator[str]:
        """The files to process; folders opened with -r."""
        reading = self.options.decompress or self.options.test or self.options.list
        for name in names:
            followed = self.options.force or not os.path.islink(name)
            if name != "-" and self.options.recursive and os.path.isdir(name) and followed:
                for path in paths.walk(Path(name), self._fail):
                    if (path.suffix in (paths.SUFFIX, *paths.SHORT_SUFFIXES)) == reading:
                        yield str(path)
            else:
                yield name

    def _fail(self, error: Exception, source: str = "") -> None:
        self.errors += 1
        self._complain(str(getattr(error, "filename", None) or source), _explained(error), 2)

    @contextlib.contextmanager
    def _reporting(self, source: str) -> Iterator[None]:
        """Turns what can go wrong with one file into a line on stderr."""
        try:
            yield
        except paths.Skip as skip:
            self.skipped += 1
            self._complain(source, f"skipped: {skip}", 1)
        except BrokenPipeError:
            raise
        except Exception as error:
            self._fail(error, source)

    def _complain(self, source: str, message: str, quiet: int) -> None:
        self.complaint = message
        if self.options.quiet < quiet:
            click.echo(f"lmcompress: {_shown(source)}: {message}", err=True)

    def _to_output(self, sources: list[str], path: Path) -> None:
        """All sources to the one file of -o; one failure and there is none."""
        options = self.options
        if options.remove and len(sources) > 1:
            raise click.UsageError("--rm with several files in one -o would lose which is which")
        if not sources:
            self.skipped += 1
            self._complain(str(path), "skipped: no file to make it of", 1)
            return
        if path.exists() and not path.is_file():  # a device or a pipe is written to, not replaced
            with _naming(str(path)), path.open("wb") as target:
                for source in sources:
                    with self._reporting(source):
                        self._one(source, target, str(path))
            return
        before = os.stat(sources[0]) if len(sources) == 1 and sources[0] != "-" else None
        with paths.Output(path, options.force) as output:
            for source in sources:
                with self._reporting(source):
                    if source != "-" and path.exists() and os.path.samefile(source, path):
                        raise FileExistsError(17, "is both source and output", source)
                    self._one(source, output.file, str(path))
            if self.errors or not self.totals[0]:
                return
            output.commit(before)
        if options.remove and not self.damaged and sources != ["-"]:
            self._remove(Path(sources[0]), before)

    def _to_own_file(self, source: str) -> None:
        """Source to the file that its name says."""
        options = self.options
        if source == "-":
            raise paths.Skip("standard input among files; use -c or -o")
        path = Path(source)
        paths.check_source(path, options.force)
        if options.decompress:
            name = paths.decompressed_name(path)
            if options.name:
                stored = self._stored_names(path)
                name = path.with_name(paths.restored_name(stored[0])) if stored else name
        else:
            name = paths.compressed_name(path)
        self._check_kind(source)
        folders = (Path(f) if f is not None else None for f in (options.output_dir_flat, options.output_dir_mirror))
        name = paths.placed(name, path, *folders)
        paths.check_target(name, path, self.made)
        damaged, before = self.damaged, path.stat()
        with paths.Output(name, options.force) as output:
            self._one(source, output.file, str(name))
            output.commit(before)
        self.made.add(paths.identity(name))
        if options.remove and self.damaged == damaged:
            self._remove(path, before)

    def _check_kind(self, source: str) -> None:
        suffix = Path(source).suffix
        if self.options.exclude_compressed and not self.options.decompress and suffix.lower() in paths.COMPRESSED:
            raise paths.Skip(f"compressed already, by its suffix {suffix}")

    def _stored_names(self, path: Path) -> list[str]:
        """What the members say of their names; nothing where that is lost and --recover is asked for."""
        try:
            return [m.metadata["name"] for m in get_archive_info(path).members if "name" in m.metadata]
        except LMCompressError:
            if self.options.recover:
                return []
            raise

    def _remove(self, source: Path, before: os.stat_result | None) -> None:
        """Removes a source whose result is complete, unless it has changed since `before`."""
        if before is None or paths.changed(before, source.stat()):
            raise OSError(0, "has changed while it was read; it is kept", str(source))
        source.unlink()

    def _one(self, source: str, target: BinaryIO, target_name: str) -> None:
        """One source to an open target."""
        self._check_kind(source)

        def write(data: bytes) -> int:
            with _naming(target_name):
                return target.write(data)

        with self._open(source) as file, _progress(self.options, source, file) as progress:
            begin, engine = time.perf_counter(), None
            if self.options.recover:
                read, written = self._recover(source, file, target, progress)
            elif self.options.decompress:
                read, written, engine = self._decompress(file, write, progress)
            else:
                read, written, engine = self._compress(source, file, write, progress)
        elapsed = time.perf_counter() - begin
        self.totals = [self.totals[0] + 1, self.totals[1] + read, self.totals[2] + written]
        if self.chatty:
            speed = (written if self.options.decompress else read) / max(elapsed, 1e-9) / 1e6
            ran = f", {engine} engine" if engine and self.options.verbose else ""
            ratio = _ratio(read, written, self.options.decompress)
            click.echo(f"{_shown(source)}: {ratio}, {speed:.3g} MB/s{ran} -> {_printable(target_name)}", err=True)

    @contextlib.contextmanager
    def _open(self, source: str) -> Iterator[BinaryIO]:
        if source != "-":
            with open(source, "rb") as file:
                yield file
            return
        if sys.stdin.isatty() and not self.options.force:
            raise paths.Skip("a terminal; name a file, or -h for help")
        yield _standard_input()

    def _compress(self, source: str, file: BinaryIO, write: Write, progress: Progress) -> tuple[int, int, str | None]:
        options = self.options
        metadata = {"name": os.path.basename(source)} if options.name and source != "-" else None
        size = _content_size(options, file)
        if options.block_size is not None and options.block_size > BLOCK_SIZE:
            self._warn_of_memory(source, min(options.block_size, options.block_size if size is None else size))
        compressor = LMCompressor(
            options.level, model=options.model, threads=options.threads, block_size=options.block_size, size=size,
            independent=options.independent, memory=options.memory, check=options.check, metadata=metadata,
            progress=lambda done: progress(done, written),
        )  # fmt: skip
        read = written = 0
        while chunk := file.read(CHUNK):
            read += len(chunk)
            written += write(compressor.compress(chunk))
        written += write(compressor.flush())
        return read, written, compressor.engine_name

    def _warn_of_memory(self, source: str, size: int) -> None:
        """Tells when blocks of `size` bytes may take more memory to decode than is allowed unless asked for."""
        options = self.options
        codec = BlockEncoder(options.level, options.model, options.threads).loaded.codec
        needed = size + codec.memory(size)  # with the payload, which is shorter
        if needed > DEFAULT_MEMORY:
            self._complain(source, f"blocks so long may need --memory {-(-needed >> 20)}M to be decoded", 1)

    def _decompress(self, file: BinaryIO, write: Write, progress: Progress) -> tuple[int, int, str | None]:
        options = self.options
        head = file.read(len(MAGIC))
        counter = _Counted(file, head)
        offset, left = options.range or (0, None)
        content: LMFile | None = None
        if options.force and options.stdout and not options.test and head[:1] != MAGIC[:1]:
            read = counter.read
            while offset and (chunk := read(min(CHUNK, offset))):
                offset -= len(chunk)
        else:
            content = LMFile(
                cast(BinaryIO, counter), "r", model=options.model, threads=options.threads, memory=options.memory,
                max_output=None if options.range else options.max_output,
                progress=lambda done: progress(done, counter.count),
            )  # fmt: skip
            read = content.read1
            if options.range:
                content.seek(offset)
        written = 0
        while chunk := read(CHUNK if left is None else min(CHUNK, left - written)):
            written += len(chunk)
            if options.max_output is not None and written > options.max_output:
                raise LimitError("the content is longer than allowed (--max-output)")
            write(chunk)
        return counter.count, written, None if content is None else content.engine_name

    def _recover(self, source: str, file: BinaryIO, target: BinaryIO, progress: Progress) -> tuple[int, int]:
        if not file.seekable():
            raise OSError(29, "--recover needs a file that can be read from any place", source)
        options = self.options
        result = recover(
            file, target, model=options.model, threads=options.threads, memory=options.memory,
            max_output=options.max_output, progress=lambda done: progress(done, 0),
        )  # fmt: skip
        self._report(source, result)
        if not result.intact and not result.recovered:
            raise CorruptError("nothing of it is left")
        self.damaged += not result.intact
        return file.seek(0, io.SEEK_END), result.recovered

    def _report(self, source: str, result: Recovery) -> None:
        for loss in result.lost:
            self._complain(source, f"lost: {loss}", 2)
        for note in result.notes:
            self._complain(source, note, 2)
        if not result.intact:
            self._complain(source, f"{result.recovered} bytes of content are intact", 2)

    def _list(self, names: list[str]) -> None:
        listed: list[tuple[str, ArchiveInfo]] = []
        for source in self._sources(names):
            with self._reporting(source), self._open(source) as file:
                if not file.seekable():
                    raise OSError(29, "-l needs a file that can be read from any place", source)
                listed.append((source, get_archive_info(file)))
        if self.options.json:
            click.echo(json.dumps([{"name": name, **asdict(info)} for name, info in listed], indent=1))
        elif self.options.verbose:
            for name, info in listed:
                click.echo(_details(name, info))
        elif listed:
            click.echo(" blocks     compressed   uncompressed   ratio  bits/byte  model       name")
            for name, info in listed:
                models = {m.model_name or "-" for m in info.members}
                blocks = sum(len(m.blocks) for m in info.members)
                ratio, bits = (info.coded_size / info.raw_size * k if info.raw_size else 0 for k in (100, 8))
                sizes = f"{blocks:7} {info.coded_size:14} {info.raw_size:14} {ratio:6.2f}%  {bits:9.3f}"
                click.echo(f"{sizes}  {'+'.join(sorted(models)):10}  {_printable(name)}")

    def _test(self, names: list[str]) -> None:
        options, tested = self.options, list[dict[str, Any]]()
        for source in self._sources(names):
            tested.append({"name": source, "ok": False})
            with self._reporting(source), self._open(source) as file:
                with _progress(options, source, file) as progress:
                    try:
                        result = Recovery(self._decompress(file, len, progress)[1])
                    except CorruptError:
                        if not file.seekable():
                            raise
                        result = recover(
                            file, None, model=options.model, threads=options.threads, memory=options.memory,
                            max_output=options.max_output, progress=lambda done: progress(done, 0),
                        )  # fmt: skip
                self._report(source, result)
                self.damaged += not result.intact
                tested[-1] |= {"ok": result.intact, **asdict(result)}
                if result.intact and options.quiet == 0 and not options.json:
                    click.echo(f"{_shown(source)}: {result.recovered} bytes of content, all intact", err=True)
            if "lost" not in tested[-1]:
                tested[-1]["error"] = self.complaint
        if options.json:
            click.echo(json.dumps(tested, indent=1))


def _standard_input() -> BinaryIO:
    """Standard input. Where whoever shares it has told it not to wait, this one does: nothing there yet is not its end."""
    file = cast(BinaryIO, sys.stdin.buffer)
    raw = getattr(file, "raw", None)
    return file if raw is None or file.seekable() else io.BufferedReader(_Waiting(raw))


class _Waiting(io.RawIOBase):
    """A raw file that may have nothing to give for a while, as one that waits."""

    def __init__(self, raw: io.RawIOBase) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while (size := cast("int | None", self._raw.readinto(buffer))) is None:
            select.select([self._raw], [], [])
        return size


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
    """Errors of the system that name no file name this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = name
        raise


class _Counted(io.RawIOBase):
    """A file of which `head` was read already, read from its start again; counts the bytes."""

    def __init__(self, file: BinaryIO, head: bytes) -> None:
        self._file, self._seekable, self.count = file, file.seekable(), 0
        if self._seekable:
            file.seek(-len(head), io.SEEK_CUR)
        self._head = b"" if self._seekable else head

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        head = self._head if size < 0 else self._head[:size]
        self._head = self._head[len(head) :]
        data = head + self._file.read(size if size < 0 else size - len(head))
        self.count += len(data)
        return data


@contextlib.contextmanager
def _progress(options: Options, source: str, file: BinaryIO) -> Iterator[Progress]:
    """A function to be told of bytes: it draws a bar when stderr is a terminal."""
    if options.quiet or not sys.stderr.isatty():
        yield lambda done, coded: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    size = _content_size(options, file)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[ratio]}"),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(_printable(os.path.basename(source)), total=size, ratio="")

        def advance(done: int, coded: int) -> None:
            bar.update(task, completed=done, ratio=f"{coded / done:.1%}" if done and coded else "")

        yield advance


def _content_size(options: Options, file: BinaryIO) -> int | None:
    """Bytes of content that there will be, if that can be known before."""
    if options.range is not None or not file.seekable():
        return None
    position = file.tell()
    try:
        if not options.decompress and not options.test:
            return file.seek(0, io.SEEK_END) - position
        return get_archive_info(file).raw_size
    except (LMCompressError, OSError):  # no archive; a file that has no end
        return None
    finally:
        file.seek(position)


def _ratio(read: int, written: int, decompress: bool) -> str:
    raw, coded = (written, read) if decompress else (read, written)
    percent = f"{coded / raw:.2%}, {8 * coded / raw:.3f} bits per byte" if raw else "empty"
    return f"{read} => {written} bytes ({percent})"


def _details(name: str, info: ArchiveInfo) -> str:
    lines = [f"{_printable(name)}: {_ratio(info.raw_size, info.coded_size, False)}"]
    for i, member in enumerate(info.members):
        lines.append(f"  member {i} at {member.offset}: format {member.version}, {member.raw_size} bytes of content")
        if member.model_digest:
            lines.append(f"    model {member.model_name}, SHA-256 {member.model_digest}")
        lines.append(f"    content SHA-256 {member.digest or '(none)'}")
        lines += [f"    {_printable(key)} = {_printable(value)}" for key, value in member.metadata.items()]
        for block in member.blocks:
            sizes = f"{block.raw_size} => {block.coded_size} bytes"
            lines.append(f"    block at {block.offset}: {block.method}, content from {block.raw_offset}, {sizes}")
    return "\n".join(lines)


def _printable(text: str) -> str:
    """A name that cannot play tricks on a terminal."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def _shown(source: str) -> str:
    return "standard input" if source == "-" else _printable(source)


def _explained(error: Exception) -> str:
    """What to tell of an error. One that nobody foresaw comes with its place in the program."""
    if isinstance(error, LMCompressError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, ImportError):
        return f"what is needed cannot be loaded: {error.__cause__ or error}"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error, please report it: {error!r} in {place.name}, {place.filename}:{place.lineno}"


@click.command("train", context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def train(arguments: tuple[str, ...]) -> None:
    """Trains a model (needs lmcompress[train])."""
    import importlib

    try:
        training = importlib.import_module("lmcompress.training.cli")
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error}; training needs pip install 'lmcompress[train]'") from None
    training.train.main(list(arguments), prog_name="lmcompress train", standalone_mode=False)


_BOTH = {"help_option_names": ["-h", "--help"]}


@click.command("models", context_settings=_BOTH)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def models(as_json: bool) -> None:
    """Lists the models that this version ships, what they know, and the levels that use them: lanes and the most memory
    that decoding takes are those of a block of 8 MiB."""
    from lmcompress import codec, modelfile

    listed: list[dict[str, Any]] = []
    for name in modelfile.shipped():
        model, levels = modelfile.load(name), []
        for n, level in LEVELS.items():
            if level.model == name:
                config = level.codec()
                lanes = codec.most_lanes(config, BLOCK_SIZE, BLOCK_SIZE)
                memory = LM_FIXED + codec.memory(config, model, BLOCK_SIZE)
                levels.append({"level": n, "lanes": lanes, "memory": memory, **asdict(config)})
        files = modelfile.files(name)
        known = {k: model.card.get(k) for k in ("text", "tokens")}
        ngrams = int((model.ngrams[:, 0] > 0).sum())
        about = {
            "name": name,
            "sha256": model.digest.hex(),
            "bytes": files[0].stat().st_size,
            "files": {path.name: path.stat().st_size for path in files},
            **known,
            **asdict(model.config),
            "longest_window": model.config.longest_window,
            "ngrams": ngrams,
        }
        listed.append({**about, "levels": levels})
    if as_json:
        click.echo(json.dumps(listed, indent=1))
        return
    for e in listed:
        click.echo(f"{e['name']}: {e['bytes']:,} bytes, SHA-256 {e['sha256']}")
        click.echo(
            f"  {e['n_layer']} layers of {e['d_model']}, {e['vocab_size']:,} pieces, sees at most {e['longest_window']} of them in a layer"
        )
        beside = "".join(f" ({name}: {size:,} bytes)" for name, size in list(e["files"].items())[1:])
        click.echo(
            f"  has read {e['tokens'] or 0:,} pieces of {e['text'] or 'some text'}; knows {e['ngrams']:,} n-grams{beside}"
        )
        click.echo("  level  network  mixer's tables  lanes  memory (lanes, memory: blocks of 8 MiB)")
        for n in e["levels"]:
            mixer = f"{2 ** n['mixer_bits'] >> 20} MiB" + (", light" if n["light"] else "")
            network = "yes" if n["network"] else "no"
            click.echo(f"  {n['level']:<5}  {network:7}  {mixer:14}  {n['lanes']:5}  {n['memory'] / 1e6:3.0f} MB")
    click.echo("Sizes and speeds of a text of yours: lmcompress bench FILE")


@click.command("bench", context_settings=_BOTH)
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--levels", default="1-9", help="One level, or FIRST-LAST.", show_default=True)
@click.option("-T", "--threads", type=click.IntRange(0), default=0, help="0: all cores.")
def bench(files: tuple[str, ...], levels: str, threads: int) -> None:
    """Compresses files in memory at several levels: size and speed both ways."""
    found = re.fullmatch("([1-9])(?:-([1-9]))?", levels)
    chosen = [n for n in LEVELS if int(found[1]) <= n <= int(found[2] or found[1])] if found else []
    if not chosen:
        raise click.UsageError(f"levels {levels!r} are not N or N-M, of {min(LEVELS)} to {max(LEVELS)}")
    for name in files:
        data = Path(name).read_bytes()
        for level in chosen:
            times = [time.perf_counter()]
            archive = compress(data, level, threads=threads)
            times.append(time.perf_counter())
            same = decompress(archive, threads=threads) == data
            times.append(time.perf_counter())
            if not same:
                raise click.ClickException(f"{name} does not come back at level {level}")
            there, back = (len(data) / 1e6 / max(b - a, 1e-9) for a, b in zip(times, times[1:], strict=False))
            ratio = _ratio(len(data), len(archive), False)
            click.echo(f"-{level}  {ratio}  {there:.3f} MB/s, back {back:.3f} MB/s  {_printable(name)}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ends the process by the signal that came. Not by an exception: one that is raised in the midst of anything, a
    destructor for instance, may be lost, or leave a file that nobody knows of."""
    paths.abandon()
    if sys.stderr.isatty():
        os.write(2, b"\x1b[?25h")  # the progress bar hides the cursor
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _prepare_standard_files() -> None:
    """Standard files that this process was started without refuse all use, and their numbers go to no other file.
    Output is buffered, as an unbuffered file may take less than it is given, and has no character that cannot be told."""
    for name, flags, mode in (("stdin", os.O_WRONLY, "r"), ("stdout", os.O_RDONLY, "w"), ("stderr", os.O_WRONLY, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.open(os.devnull, flags), mode))
    if isinstance(sys.stdout.buffer, io.RawIOBase):
        encoding = sys.stdout.encoding
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(cast(io.RawIOBase, sys.stdout.detach())), encoding)
    for file in (sys.stdout, sys.stderr):
        cast(io.TextIOWrapper, file).reconfigure(errors="backslashreplace")


def main(arguments: list[str] | None = None) -> NoReturn:
    """The command `lmcompress`. Exits."""
    _prepare_standard_files()
    arguments = sys.argv[1:] if arguments is None else arguments
    chosen: click.Command = command
    rest = arguments
    for sub in (train, models, bench):
        if arguments[:1] == [sub.name]:
            chosen, rest = sub, arguments[1:]
    if chosen is command:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
                signal.signal(getattr(signal, name), _interrupt)
    sys.exit(_guarded(chosen, rest))


def _guarded(chosen: click.Command, arguments: list[str]) -> int:
    """Runs a command; whatever the user or the input did wrong becomes a line and an exit code."""
    try:
        code = chosen.main(
            arguments, prog_name=f"lmcompress {chosen.name}".replace(" lmcompress", ""), standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        click.echo(f"lmcompress: {_printable(error.format_message())}", err=True)
    except (KeyboardInterrupt, click.Abort):
        return 130
    except BrokenPipeError:
        pass  # whoever read the output has enough of it
    except Exception as error:
        named = getattr(error, "filename", None)
        click.echo(f"lmcompress: {_shown(str(named)) + ': ' if named else ''}{_explained(error)}", err=True)
    try:
        sys.stdout.flush()
    except (OSError, ValueError):  # what could not be written, Python must not try to write again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 1


def lmcat() -> NoReturn:
    """The command `lmcat`: lmcompress -dcf."""
    main(["-dcf", *sys.argv[1:]])


def unlmc() -> NoReturn:
    """The command `unlmc`: lmcompress -d."""
    main(["-d", *sys.argv[1:]])

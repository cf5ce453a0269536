"""The compressors that are compared, one small class each.

Knows: how each is called, in this process through its Python module and as a command, and whether it is installed. Does not
know: timing, files' meaning. A codec of your own is named `package.module:Class` on the command line.

Not in package archives: cmix (https://github.com/byronknoll/cmix, `make`, needs 32 GB) and paq8px
(https://github.com/hxim/paq8px, `build/build-linux-with-gcc.sh`); put `cmix` and `paq8px` on the PATH, and the path of cmix's
dictionary/english.dic into CMIX_DICTIONARY. They take minutes per megabyte and are run only when named.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import importlib
import importlib.metadata
import importlib.util
import lzma
import os
import re
import shutil
import subprocess
import sys
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

DICTIONARY = Path(__file__).with_name("zstd-dictionary")


@dataclass(frozen=True)
class Command:
    """A program to run: its arguments, and the files that are its standard input and output, if any."""

    argv: tuple[str, ...]
    stdin: Path | None = None
    stdout: Path | None = None


class Codec:
    """A compressor at one setting: in process (`module`), as a command (`tool`), or both.

    encode() and decode() are there when `module` is; pack() and unpack() when `tool` is."""

    name: str
    module: str | None = None  # the Python module of encode() and decode()
    tool: str | None = None  # the program of pack() and unpack()
    tool_version: tuple[str, ...] = ("--version",)
    flags: tuple[str, ...] = ()  # pack() as a filter: tool, flags
    unflags: tuple[str, ...] = ("-d", "-c")  # unpack() as a filter
    usual = True  # run also when not named
    threads = 1

    @property
    def threaded(self) -> bool:
        """Whether it heeds `threads`."""
        return False

    def has_module(self) -> bool:
        return self.module is not None and importlib.util.find_spec(self.module.split(".")[0]) is not None

    def has_tool(self) -> bool:
        return self.tool is not None and shutil.which(self.tool) is not None

    def missing(self) -> str | None:
        """What would have to be installed, None when it can run."""
        if self.has_module() or self.has_tool():
            return None
        return " or ".join(
            filter(None, (self.module and f"module {self.module}", self.tool and f"command {self.tool}"))
        )

    def version(self) -> str:
        return self.module_version() if self.has_module() else command_version(self.tool or "", self.tool_version)

    def module_version(self) -> str:
        return importlib.metadata.version((self.module or "").split(".")[0])

    def prepare(self) -> None:
        """What a program does once, before encode() and decode(), and is not timed."""
        importlib.import_module(self.module or "")

    @property
    def model_bytes(self) -> int:
        """Bytes of what the decoder needs beside its program and the coded file: a model, a dictionary."""
        return 0

    def encode(self, data: bytes) -> bytes:
        raise NotImplementedError

    def decode(self, data: bytes) -> bytes:
        raise NotImplementedError

    def pack(self, source: Path, archive: Path) -> Command:
        return Command((str(self.tool), *self.flags), source, archive)

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command((str(self.tool), *self.unflags), archive, target)


def command_version(tool: str, arguments: tuple[str, ...]) -> str:
    """The first thing like a version number that the program prints: 1.2.3, version 21, v211."""
    done = subprocess.run(
        [tool, *arguments], capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL
    )
    found = re.search(r"\d+\.\d+(?:\.\d+)*|(?<=version )\d+|(?<=\bv)\d+", done.stdout + done.stderr)
    return found[0] if found else "unknown"


class Gzip(Codec):
    name, module, tool, flags = "gzip-9", "gzip", "gzip", ("-9", "-n", "-c")

    def module_version(self) -> str:
        return f"zlib {zlib.ZLIB_RUNTIME_VERSION}"

    def encode(self, data: bytes) -> bytes:
        return gzip.compress(data, 9, mtime=0)

    def decode(self, data: bytes) -> bytes:
        return gzip.decompress(data)


class Bzip2(Codec):
    name, module, tool, flags = "bzip2-9", "bz2", "bzip2", ("-9", "-c")

    def module_version(self) -> str:
        return f"Python {sys.version.split()[0]}"

    def encode(self, data: bytes) -> bytes:
        return bz2.compress(data, 9)

    def decode(self, data: bytes) -> bytes:
        return bz2.decompress(data)


class Xz(Codec):
    name, module, tool, flags = "xz-9e", "lzma", "xz", ("-9e", "-T1", "-c")

    def module_version(self) -> str:
        return f"Python {sys.version.split()[0]}"

    def encode(self, data: bytes) -> bytes:
        return lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)

    def decode(self, data: bytes) -> bytes:
        return lzma.decompress(data)


class Zstd(Codec):
    module, tool = "zstandard", "zstd"
    window = 27  # log2; the command's --long=27
    sized: tuple[int, Any] = (-1, None)  # the last compressor and the size it is for: it has digested the dictionary

    def __init__(self, level: int) -> None:
        self.level = level
        self.name = f"zstd-{level}"
        self.flags = ("--ultra", f"-{level}", "--long=27", "-c") if level == 22 else (f"-{level}", "-c")
        self.unflags = ("-d", "--long=27", "-c")

    def module_version(self) -> str:
        zstandard = importlib.import_module("zstandard")
        return f"{zstandard.__version__} (zstd {'.'.join(map(str, zstandard.ZSTD_VERSION))})"

    @cached_property
    def dictionary(self) -> Any:
        return None

    def compressor(self, size: int) -> Any:
        zstandard = importlib.import_module("zstandard")
        if self.level < 22:
            return zstandard.ZstdCompressor(level=self.level)
        # without dict_size the tables would be too small to index the dictionary
        dict_size = len(self.dictionary) if self.dictionary else 0
        parameters = zstandard.ZstdCompressionParameters.from_level(
            22, source_size=size, dict_size=dict_size, window_log=self.window, enable_ldm=True
        )
        return zstandard.ZstdCompressor(compression_params=parameters, dict_data=self.dictionary)

    @cached_property
    def decompressor(self) -> Any:
        zstandard = importlib.import_module("zstandard")
        return zstandard.ZstdDecompressor(max_window_size=2**self.window, dict_data=self.dictionary)

    def encode(self, data: bytes) -> bytes:
        if self.sized[0] != len(data):
            self.sized = len(data), self.compressor(len(data))
        coded: bytes = self.sized[1].compress(data)
        return coded

    def decode(self, data: bytes) -> bytes:
        decoded: bytes = self.decompressor.decompress(data)
        return decoded


class ZstdDictionary(Zstd):
    """With a dictionary trained on text of many kinds: what pretrained knowledge is worth without a model."""

    def __init__(self) -> None:
        super().__init__(22)
        self.name = "zstd-22-dict"
        self.flags = ("--ultra", "-22", "--long=27", "-D", str(DICTIONARY), "-c")
        self.unflags = ("-d", "--long=27", "-D", str(DICTIONARY), "-c")

    def module_version(self) -> str:
        return f"{super().module_version()}, dictionary {hashlib.sha256(DICTIONARY.read_bytes()).hexdigest()[:8]}"

    @cached_property
    def dictionary(self) -> Any:
        return importlib.import_module("zstandard").ZstdCompressionDict(DICTIONARY.read_bytes())

    @property
    def model_bytes(self) -> int:
        return DICTIONARY.stat().st_size


class Brotli(Codec):
    name, module, tool, flags = "brotli-11", "brotli", "brotli", ("-q", "11", "-w", "24", "-c")

    def encode(self, data: bytes) -> bytes:
        return importlib.import_module("brotli").compress(data, quality=11, lgwin=24)

    def decode(self, data: bytes) -> bytes:
        return importlib.import_module("brotli").decompress(data)


class Lz4(Codec):
    name, module, tool, flags = "lz4-12", "lz4.frame", "lz4", ("-12", "-c")

    def encode(self, data: bytes) -> bytes:
        return importlib.import_module("lz4.frame").compress(data, compression_level=12, block_linked=True)

    def decode(self, data: bytes) -> bytes:
        return importlib.import_module("lz4.frame").decompress(data)


class Ppmd(Codec):
    name, tool_version = "7z-ppmd", ()
    tool = next(filter(shutil.which, ("7z", "7zz")), "7z")  # Debian's package 7zip has either

    def pack(self, source: Path, archive: Path) -> Command:
        options = ("-t7z", "-m0=PPMd:o=16:mem=512m", "-mmt=1", "-bd", "-y")
        return Command((self.tool, "a", *options, f"{archive}.7z", f"{source}"))

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command((self.tool, "x", "-so", "-bd", "-y", f"{archive}.7z"), stdout=target)


class Zpaq(Codec):
    name, tool, tool_version = "zpaq-5", "zpaq", ()

    def pack(self, source: Path, archive: Path) -> Command:
        # -to keeps the path, and so the size, independent of the folder
        return Command(("zpaq", "add", f"{archive}.zpaq", str(source), "-to", "a", "-method", "5", "-threads", "1"))

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command(("zpaq", "extract", f"{archive}.zpaq", "a", "-to", str(target), "-threads", "1", "-force"))


class Bzip3(Codec):
    name, tool, flags = "bzip3-64", "bzip3", ("-e", "-b", "64", "-c")
    tool_version = ("-V",)


class Lrzip(Codec):
    name, tool, tool_version = "lrzip-z", "lrzip", ("-V",)

    def pack(self, source: Path, archive: Path) -> Command:
        return Command(("lrzip", "-z", "-p", "1", "-Q", "-f", "-o", str(archive), str(source)))

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command(("lrzip", "-d", "-p", "1", "-Q", "-f", "-o", str(target), str(archive)))


class Cmix(Codec):
    name, tool, tool_version, usual = "cmix", "cmix", (), False
    dictionary = tuple(filter(None, (os.environ.get("CMIX_DICTIONARY"),)))  # a path, or nothing

    @property
    def model_bytes(self) -> int:
        return sum(Path(path).stat().st_size for path in self.dictionary)

    def pack(self, source: Path, archive: Path) -> Command:
        return Command(("cmix", "-c", *self.dictionary, str(source), str(archive)))

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command(("cmix", "-d", *self.dictionary, str(archive), str(target)))


class Paq8px(Codec):
    name, tool, tool_version, usual = "paq8px-8", "paq8px", (), False

    def pack(self, source: Path, archive: Path) -> Command:
        return Command(("paq8px", "-8", str(source), str(archive)))

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command(("paq8px", "-d", str(archive), str(target)))


class LMCompress(Codec):
    """This project, at a level, with its model or another."""

    module, tool = "lmcompress", sys.executable

    def __init__(self, level: int, model: str | None = None) -> None:
        self.level, self.model = level, model
        self.usual = level in (1, 5, 6)  # an hour would not do for all of them on 26 MB
        self.name = f"lmcompress-{level}" + (f"@{model}" if model else "")

    @property
    def threaded(self) -> bool:
        network: bool = importlib.import_module("lmcompress.methods").LEVELS[self.level].network
        return network

    def has_tool(self) -> bool:
        return self.has_module()

    def module_version(self) -> str:
        modelfile = importlib.import_module("lmcompress.modelfile")
        digest = self.files[0].read_bytes()[-modelfile.DIGEST_SIZE :]
        return f"{importlib.import_module('lmcompress').__version__}, model {digest.hex()[:8]}"

    @property
    def files(self) -> list[Path]:
        """The model's."""
        level = importlib.import_module("lmcompress.methods").LEVELS[self.level]
        files: list[Path] = importlib.import_module("lmcompress.modelfile").files(self.model or level.model)
        return files

    @property
    def model_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files)

    def encode(self, data: bytes) -> bytes:
        lmcompress = importlib.import_module("lmcompress")
        return lmcompress.compress(data, self.level, model=self.model, threads=self.threads)

    def decode(self, data: bytes) -> bytes:
        lmcompress = importlib.import_module("lmcompress")
        return lmcompress.decompress(data, model=self.model, threads=self.threads)

    def command(self, *flags: str) -> tuple[str, ...]:
        model = ("--model", self.model) if self.model else ()
        return (sys.executable, "-m", "lmcompress", f"-T{self.threads}", *model, *flags, "-q", "-c")

    def pack(self, source: Path, archive: Path) -> Command:
        return Command(self.command(f"-{self.level}"), source, archive)

    def unpack(self, archive: Path, target: Path) -> Command:
        return Command(self.command("-d"), archive, target)


CODECS: dict[str, Codec] = {
    codec.name: codec
    for codec in (
        Lz4(), Gzip(), Zstd(3), Zstd(19), Zstd(22), ZstdDictionary(), Brotli(), Xz(), Bzip2(), Bzip3(), Ppmd(), Lrzip(),
        Zpaq(), *map(LMCompress, range(1, 10)), Paq8px(), Cmix(),
    )
}  # fmt: skip


def find(name: str) -> Codec:
    """The codec of that name; `lmcompress-LEVEL@MODEL` is a level with another model, `package.module:Class` a class of
    your own. Raises KeyError."""
    if ":" in name:
        module, cls = name.split(":")
        codec: Codec = getattr(importlib.import_module(module), cls)()
        codec.name = name
        return codec
    if "@" in name:
        base, model = name.split("@", 1)
        plain = CODECS[base]
        if not isinstance(plain, LMCompress):
            raise KeyError(name)
        return LMCompress(plain.level, model)
    return CODECS[name]

"""Which files are taken, what the results are called, and that a result appears whole or not at all.

Knows: suffixes, folders, modes and times, temporary names. Does not know: archives' content, the command's options.
Names that come from inside an archive are never trusted: see `restored_name`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Set
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, cast

SUFFIX = ".lmc"
SHORT_SUFFIXES = {".tlmc": ".tar"}  # what decompression turns them into
COMPRESSED = frozenset(
    ".lmc .tlmc .gz .tgz .bz2 .tbz2 .xz .txz .lz .lzma .zst .tzst .lz4 .br .zip .7z .rar .jar .whl .apk .docx .xlsx .pptx "
    ".odt .ods .epub .jpg .jpeg .png .gif .webp .avif .heic .mp3 .m4a .ogg .opus .flac .mp4 .mkv .webm .avi .mov".split()
)


class Skip(Exception):
    """A file that is not processed, and why; a warning rather than an error."""


def walk(path: Path, failed: Callable[[OSError], None] | None = None) -> Iterator[Path]:
    """The regular files under a folder, in a fixed order; symbolic links are not followed. `failed` is told of folders that
    cannot be read."""
    for folder, folders, names in os.walk(path, onerror=failed):
        folders.sort()
        yield from (p for p in (Path(folder) / name for name in sorted(names)) if p.is_file() and not p.is_symlink())


def check_source(path: Path, force: bool) -> None:
    """Raises Skip for what is not a plain file with one name, unless forced; OSError where there is none."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        if not force:
            raise Skip("a symbolic link; use -f")
        status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise Skip("a directory; use -r")
    if not force and not stat.S_ISREG(status.st_mode):
        raise Skip("not a regular file; use -f")
    if not force and status.st_nlink > 1:
        raise Skip(f"has {status.st_nlink - 1} other links; use -f")


def identity(path: Path) -> tuple[int, int]:
    """What is the same for all names of one file, on a case-insensitive file system too."""
    status = path.lstat()
    return status.st_dev, status.st_ino


def check_target(path: Path, source: Path, made: Set[tuple[int, int]]) -> None:
    """Raises FileExistsError, for which no force helps, when `path` is the source, or the output made of another source:
    one of `made`."""
    if not os.path.lexists(path):
        return
    if identity(path) in (identity(source), identity(source.resolve())):
        raise FileExistsError(17, "is both source and output", str(path))
    if identity(path) in made:
        raise FileExistsError(17, "was just made of another of the files", str(path))


def changed(before: os.stat_result, after: os.stat_result) -> bool:
    """Whether a file is another, or has other content, than it was."""
    return any(getattr(before, key) != getattr(after, key) for key in ("st_dev", "st_ino", "st_size", "st_mtime_ns"))


def compressed_name(path: Path) -> Path:
    """Raises Skip when the name says that it is an archive already."""
    if path.suffix in (SUFFIX, *SHORT_SUFFIXES):
        raise Skip(f"already has the suffix {path.suffix}")
    return path.with_name(path.name + SUFFIX)


def decompressed_name(path: Path) -> Path:
    """Raises Skip when the name does not end as an archive's does."""
    if path.name in (SUFFIX, f".{SUFFIX}", f"..{SUFFIX}"):
        raise Skip(f"without {SUFFIX} it has no name; use -o or -c")
    if path.suffix == SUFFIX:
        return path.with_name(path.stem)
    if path.suffix in SHORT_SUFFIXES:
        return path.with_suffix(SHORT_SUFFIXES[path.suffix])
    raise Skip(f"unknown suffix (not {SUFFIX}); use -o or -c")


def restored_name(name: str) -> str:
    """The last component of a name stored in an archive. Raises Skip when nothing usable is left: an archive may hold
    any text there, and must not choose a folder, a hidden name, or what a terminal does."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    if not last or last.startswith(".") or not all(c.isprintable() or "\udc80" <= c <= "\udcff" for c in last):
        raise Skip(f"the stored name {name!r} is not usable; leave out -N")
    return last


def placed(path: Path, source: Path, flat: Path | None, mirror: Path | None) -> Path:
    """Where the result goes: beside its source, in folder `flat`, or at the same place under folder `mirror`, which is
    made. Raises Skip when the mirrored place would not be under `mirror`."""
    if flat is not None:
        flat.mkdir(parents=True, exist_ok=True)
        return flat / path.name
    if mirror is not None:
        parts = [part for part in source.parent.parts if part not in (source.anchor, ".")]
        if ".." in parts:
            raise Skip("a path with .. cannot be mirrored")
        folder = mirror.joinpath(*parts)
        folder.mkdir(parents=True, exist_ok=True)
        return folder / path.name
    return path


def read_filelist(lines: Iterable[str]) -> list[str]:
    """One name a line; empty lines are left out. Raises ValueError for what cannot be a list of names."""
    names = [name for line in lines if (name := line.rstrip("\r\n"))]
    if any("\0" in name for name in names):
        raise ValueError("not a list of file names")
    return names


_unfinished: set[Path] = set()  # temporary files of outputs that were not committed
_NO_LINKS = {  # what file systems without hard links answer; Windows' says EINVAL
    *(errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOSYS, errno.EINVAL),
    *(getattr(errno, name) for name in ("ENOTSUP", "EOPNOTSUPP") if hasattr(errno, name)),
}


def abandon() -> None:
    """Removes what unfinished outputs have left, for a process that is about to end in their midst."""
    for path in list(_unfinished):
        with contextlib.suppress(OSError):
            path.unlink()


class Output:
    """A file that appears under its name when `commit` is called, and leaves nothing behind otherwise. Until then it
    has a hidden temporary name in the same folder and is readable by its owner only."""

    def __init__(self, path: Path, force: bool) -> None:
        """Raises FileExistsError when `path` is a directory, or exists and is not forced; OSError when there can be no
        such file, as with a name that is too long."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            pass
        else:
            if stat.S_ISDIR(status.st_mode):
                raise FileExistsError(17, "is a directory", str(path))
            if not force:
                raise _exists(path)
        self.path, self._force = path, force
        self._temporary: Path | None = path.with_name(f".lmcompress.{secrets.token_hex(8)}.tmp")
        _unfinished.add(self._temporary)  # before it exists, so that there is never one that `abandon` does not know
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(self._temporary, flags, 0o600)
        except OSError as error:
            _unfinished.discard(self._temporary)
            error.filename = str(path)
            raise
        self.file = cast(BinaryIO, os.fdopen(descriptor, "wb"))

    def commit(self, like: os.stat_result | None) -> None:
        """Puts the file in place, on the disk and under its name, with the mode, times and owner of `like` as far as
        the system allows. Raises FileExistsError, OSError, which name the file and not the temporary one."""
        try:
            self._commit(like)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def _commit(self, like: os.stat_result | None) -> None:
        assert self._temporary is not None
        self.file.flush()
        descriptor = self.file.fileno()
        if like is None:
            os.chmod(self._temporary, _mode_of_new(self._temporary.with_suffix(".new")))
        else:
            mode = stat.S_IMODE(like.st_mode) & 0o777
            with contextlib.suppress(OSError, AttributeError):  # only root may give files away
                os.fchown(descriptor, like.st_uid, -1)
            try:
                os.fchown(descriptor, -1, like.st_gid)
            except (OSError, AttributeError):  # another group than the source's may do what everybody may, and no more
                mode &= 0o707 | (mode & 0o007) << 3
            os.chmod(self._temporary, mode)
            os.utime(self._temporary, ns=(like.st_atime_ns, like.st_mtime_ns))
        os.fsync(descriptor)
        self.file.close()
        if self._force:
            os.replace(self._temporary, self.path)
        else:
            self._rename_new()
        _unfinished.discard(self._temporary)
        self._temporary = None
        _sync_folder(self.path.parent)

    def _rename_new(self) -> None:
        """Renames without replacing a file that has come into being since."""
        assert self._temporary is not None
        try:
            os.link(self._temporary, self.path)
        except FileExistsError:
            raise _exists(self.path) from None
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            if os.path.lexists(self.path):
                raise _exists(self.path) from None
            os.rename(self._temporary, self.path)
        else:
            os.unlink(self._temporary)

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            with contextlib.suppress(OSError):
                self._temporary.unlink()
            _unfinished.discard(self._temporary)


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(17, "already exists; use -f to overwrite it", str(path))


def _mode_of_new(probe: Path) -> int:
    """What the umask allows for a new file, here `probe`, without setting it, as other threads may run."""
    _unfinished.add(probe)
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        return stat.S_IMODE(probe.stat().st_mode)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
        _unfinished.discard(probe)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable, where folders can be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

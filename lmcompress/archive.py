"""Folder trees as .tar.lmc: make, list, take out, check.

Knows: tar. Does not know: how archives are coded. Members are found by random access, so taking one out decodes only the
blocks that it is in, and the blocks that hold the headers before it.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from lmcompress import paths
from lmcompress.errors import UnsupportedError
from lmcompress.file import LMFile, Recovery, recover

Progress = Callable[[str, int], None]  # told a member's name and the bytes of content written so far
Filter = Callable[[tarfile.TarInfo, str], tarfile.TarInfo | None]  # raises tarfile.FilterError for what it refuses

FILTERS = ("data", "tar", "fully_trusted")  # tarfile's own, by name
MOST_TOLD = 20  # members that one message names


def create(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
) -> None:
    """Writes everything under `folder` to a new file, with names relative to the folder that holds it. The file appears when
    it is complete and on the disk, and is itself left out. When `folder` is a symbolic link, what it leads to is written,
    under the link's name; links inside are kept as links. `options` as for LMFile. Raises FileExistsError."""
    folder = Path(folder)
    real = folder.resolve()
    name = real.name if folder.name in ("", "..") else folder.name
    with new_tar(archive, False, **options) as tar:

        def added(member: tarfile.TarInfo) -> tarfile.TarInfo:
            if progress is not None:
                progress(member.name, tar.offset)
            return member

        tar.add(real, arcname=name, filter=added)


@contextlib.contextmanager
def new_tar(archive: str | os.PathLike[str], force: bool, **options: Any) -> Iterator[tarfile.TarFile]:
    """A tar file to be filled; `archive` appears when that ends without an exception. With `force` it replaces a file.
    Neither the file that is written to nor the one that is replaced is ever a member. Raises FileExistsError."""
    with paths.Output(Path(archive), force) as output:
        with LMFile(output.file, "w", **options) as file, _open_tar(file, "w") as tar:
            status = os.fstat(output.file.fileno())
            tar.own.add((status.st_dev, status.st_ino))
            with contextlib.suppress(FileNotFoundError):
                tar.own.add(paths.identity(output.path))
            yield tar
        output.commit(None)


def members(archive: str | os.PathLike[str], **options: Any) -> list[tarfile.TarInfo]:
    """What is in the archive. Raises LMCompressError, tarfile.TarError."""
    with LMFile(archive, **options) as file, _open_tar(file, "r") as tar:
        return tar.getmembers()


def read(archive: str | os.PathLike[str], name: str, **options: Any) -> bytes:
    """The content of one regular file. Raises KeyError when there is none of that name, LMCompressError."""
    with LMFile(archive, **options) as file, _open_tar(file, "r") as tar:
        member = tar.extractfile(name)
        if member is None:
            raise KeyError(f"{name!r} is not a regular file")
        return member.read()


def extract(
    archive: str | os.PathLike[str], target: str | os.PathLike[str], *, filter: str | Filter = "data", **options: Any
) -> None:
    """Restores the tree under `target`. Members that tarfile's data filter refuses (those that would leave it, links to
    absolute paths, devices), and hard links to them, are left out; when all others are restored, an UnsupportedError names
    them. `filter` as for tarfile.TarFile.extractall. Raises LMCompressError, tarfile.TarError; ValueError for a filter that
    does not exist; UnsupportedError, before anything is restored, where Python's tarfile has no filters (before 3.10.12
    and 3.11.4)."""
    if not hasattr(tarfile, "data_filter"):
        raise UnsupportedError("restoring a tree needs tarfile's filters: Python 3.10.12, 3.11.4 or a later one")
    if isinstance(filter, str):
        if filter not in FILTERS:
            raise ValueError(f"filter {filter!r} not found")
        filter = cast(Filter, getattr(tarfile, f"{filter}_filter"))
    refusing = _Refusing(filter)
    with LMFile(archive, **options) as file, _open_tar(file, "r") as tar:
        tar.extractall(target, filter=refusing)
        while file.read(1 << 20):  # a tar's end is not the archive's, where it is known whether all was right
            pass
    if refusing.errors:
        told = [str(error) for error in refusing.errors[:MOST_TOLD]]
        if len(refusing.errors) > MOST_TOLD:
            told.append(f"{len(refusing.errors) - MOST_TOLD} more")
        raise UnsupportedError(f"all is restored but what is refused: {'; '.join(told)}") from refusing.errors[0]


class _Refusing:
    """Another filter that notes what it refuses and goes on with the next member."""

    def __init__(self, filter: Filter) -> None:
        self.errors: list[tarfile.FilterError] = []
        self._filter, self._names = filter, set[str]()

    def __call__(self, member: tarfile.TarInfo, target: str) -> tarfile.TarInfo | None:
        try:
            # where a hard link's target is missing, tarfile would make that under the link's name, and ask nobody
            if member.islnk() and os.path.normpath(member.linkname) in self._names:
                raise tarfile.FilterError(f"{member.name!r} is a link to {member.linkname!r}, which is refused")
            return self._filter(member, target)
        except tarfile.FilterError as error:
            self.errors.append(error)
            self._names.add(os.path.normpath(member.name))
            return None


def verify(archive: str | os.PathLike[str], **options: Any) -> Recovery:
    """Decodes everything and says what is not intact; `options` as for recover."""
    with open(archive, "rb") as file:
        return recover(file, None, **options)


class _Tar(tarfile.TarFile):
    """Leaves out the files in `own`, by device and inode: what it is itself written to."""

    own: set[tuple[int, int]]

    def gettarinfo(self, name: Any = None, arcname: Any = None, fileobj: Any = None) -> Any:
        if name is not None and paths.identity(Path(name)) in self.own:
            return None  # to `add` that is a file of a kind that tar cannot hold
        return super().gettarinfo(name, arcname, fileobj)


def _open_tar(file: LMFile, mode: str) -> _Tar:
    # in a seekable file tarfile skips members by seeking, and seeking decodes nothing
    tar = _Tar.open(fileobj=cast(IO[bytes], file), mode=cast(Any, f"{mode}:"))
    tar.own = set()
    return tar

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
from lmcompress.file import LMFile, Recovery, recover

Progress = Callable[[str, int], None]  # told a member's name and the bytes of content written so far


def create(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
) -> None:
    """Writes everything under `folder` to a new file, with names relative to the folder that holds it. The file appears when
    it is complete and on the disk. `options` as for LMFile. Raises FileExistsError."""
    folder = Path(folder)
    with new_tar(archive, False, **options) as tar:

        def added(member: tarfile.TarInfo) -> tarfile.TarInfo:
            if progress is not None:
                progress(member.name, tar.offset)
            return member

        tar.add(folder, arcname=folder.resolve().name, filter=added)


@contextlib.contextmanager
def new_tar(archive: str | os.PathLike[str], force: bool, **options: Any) -> Iterator[tarfile.TarFile]:
    """A tar file to be filled; `archive` appears when that ends without an exception. With `force` it replaces a file."""
    with paths.Output(Path(archive), force) as output:
        with LMFile(output.file, "w", **options) as file, _open_tar(file, "w") as tar:
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


def extract(archive: str | os.PathLike[str], target: str | os.PathLike[str], **options: Any) -> None:
    """Restores the tree under `target`. Members that would leave it are refused (tarfile's data filter)."""
    with LMFile(archive, **options) as file, _open_tar(file, "r") as tar:
        tar.extractall(target, filter="data")


def verify(archive: str | os.PathLike[str], **options: Any) -> Recovery:
    """Decodes everything and says what is not intact; `options` as for recover."""
    with open(archive, "rb") as file:
        return recover(file, None, **options)


def _open_tar(file: LMFile, mode: str) -> tarfile.TarFile:
    # in a seekable file tarfile skips members by seeking, and seeking decodes nothing
    return tarfile.open(fileobj=cast(IO[bytes], file), mode=cast(Any, f"{mode}:"))

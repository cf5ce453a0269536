"""Folder trees as .tar.lmc: make, list, take out, check.

Knows: tar. Does not know: how archives are coded. Members are found by random access, so taking one out decodes only the
blocks that it is in, and the blocks that hold the headers before it.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from lmcompress.file import LMFile, Recovery, recover

Progress = Callable[[str, int], None]  # told a member's name and the bytes of content written so far


def create(
    archive: str | os.PathLike[str], folder: str | os.PathLike[str], *, progress: Progress | None = None, **options: Any
) -> None:
    """Writes everything under `folder` to a new file, with names relative to the folder that holds it. `options` as
    for LMFile. Raises FileExistsError."""
    folder = Path(folder)
    with LMFile(archive, "x", **options) as file, open_tar(file, "w") as tar:

        def added(member: tarfile.TarInfo) -> tarfile.TarInfo:
            if progress is not None:
                progress(member.name, file.tell())
            return member

        tar.add(folder, arcname=folder.resolve().name, filter=added)


def members(archive: str | os.PathLike[str], **options: Any) -> list[tarfile.TarInfo]:
    """What is in the archive. Raises LMCompressError, tarfile.TarError."""
    with LMFile(archive, **options) as file, open_tar(file, "r") as tar:
        return tar.getmembers()


def read(archive: str | os.PathLike[str], name: str, **options: Any) -> bytes:
    """The content of one regular file. Raises KeyError when there is none of that name, LMCompressError."""
    with LMFile(archive, **options) as file, open_tar(file, "r") as tar:
        member = tar.extractfile(name)
        if member is None:
            raise KeyError(f"{name!r} is not a regular file")
        return member.read()


def extract(archive: str | os.PathLike[str], target: str | os.PathLike[str], **options: Any) -> None:
    """Restores the tree under `target`. Members that would leave it are refused (tarfile's data filter)."""
    with LMFile(archive, **options) as file, open_tar(file, "r") as tar:
        tar.extractall(target, filter="data")


def verify(archive: str | os.PathLike[str], **options: Any) -> Recovery:
    """Decodes everything and says what is not intact; `options` as for recover."""
    with open(archive, "rb") as file:
        return recover(file, None, **options)


def open_tar(file: LMFile, mode: str) -> tarfile.TarFile:
    # in a seekable file tarfile skips members by seeking, and seeking decodes nothing
    return tarfile.open(fileobj=cast(IO[bytes], file), mode=cast(Any, f"{mode}:"))

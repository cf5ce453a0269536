"""Tells other libraries of .lmc: shutil, fsspec, smart_open. numcodecs finds lmcompress.numcodec by its entry point.

Knows: how each of them registers a format. Imports none that is not installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from typing import Any

from lmcompress import archive
from lmcompress.file import LMFile

TAR_FORMAT, TAR_SUFFIXES = "lmctar", [".tar.lmc", ".tlmc"]


def register() -> None:
    """Registers with what is installed: shutil.make_archive("name", "lmctar", folder) and shutil.unpack_archive of
    .tar.lmc and .tlmc; fsspec's compression="lmcompress", inferred from .lmc; smart_open.open of .lmc. Again is harmless."""
    if TAR_FORMAT not in (name for name, _ in shutil.get_archive_formats()):
        shutil.register_archive_format(TAR_FORMAT, _make_archive, description="tar file compressed by lmcompress")
        shutil.register_unpack_format(TAR_FORMAT, TAR_SUFFIXES, _unpack_archive)
    if importlib.util.find_spec("fsspec"):
        from fsspec.compression import register_compression

        register_compression("lmcompress", _open, "lmc", force=True)
    if importlib.util.find_spec("smart_open"):
        from smart_open.compression import register_compressor

        register_compressor(".lmc", _open)


def _open(file: Any, mode: str = "rb", **options: Any) -> Any:
    return LMFile(file, mode[0], **options)


def _make_archive(base_name: str, base_dir: str, **options: Any) -> str:
    """shutil has changed to the root folder when it calls; owner, group, dry_run and logger are its. The folder for the
    archive is made, as for shutil's own formats."""
    name = base_name + TAR_SUFFIXES[0]
    if not options.get("dry_run"):
        os.makedirs(os.path.dirname(name) or os.curdir, exist_ok=True)
        with archive.new_tar(name, True) as tar:
            tar.add(base_dir)
    return name


def _unpack_archive(filename: str, extract_dir: str, *, filter: str | archive.Filter | None = None) -> None:
    """`filter` as for archive.extract; without one, the data filter."""
    os.makedirs(extract_dir, exist_ok=True)
    archive.extract(filename, extract_dir, filter="data" if filter is None else filter)

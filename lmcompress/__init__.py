"""Lossless text compression: a small Transformer predicts, a context mixer learns along, a range coder writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmcompress.errors import (
    CorruptError,
    LimitError,
    LMCompressError,
    MissingModelError,
    TruncatedError,
    UnsupportedError,
)
from lmcompress.file import (
    ArchiveInfo,
    BlockInfo,
    LMFile,
    Loss,
    MemberInfo,
    Recovery,
    compress,
    decompress,
    get_archive_info,
    open,
    recover,
)
from lmcompress.stream import LMCompressor, LMDecompressor

if TYPE_CHECKING:
    from lmcompress.modelfile import Model

__all__ = [
    "ArchiveInfo",
    "BlockInfo",
    "CorruptError",
    "LMCompressError",
    "LMCompressor",
    "LMDecompressor",
    "LMFile",
    "LimitError",
    "Loss",
    "MemberInfo",
    "MissingModelError",
    "Model",
    "Recovery",
    "TruncatedError",
    "UnsupportedError",
    "compress",
    "decompress",
    "get_archive_info",
    "open",
    "recover",
]
__version__ = "0.20.0"


def __getattr__(name: str) -> Any:
    if name == "Model":  # it brings numpy, which most uses of this package's start-up do without
        from lmcompress.modelfile import Model

        return Model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

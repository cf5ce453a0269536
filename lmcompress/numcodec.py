"""numcodecs' codec "lmcompress": chunks of bytes, as zarr stores them. Imported by numcodecs' entry point only."""

from __future__ import annotations

from typing import Any

from numcodecs.abc import Codec
from numcodecs.compat import ensure_bytes, ndarray_copy

from lmcompress.file import compress, decompress
from lmcompress.methods import DEFAULT_LEVEL


class LMNumcodec(Codec):  # type: ignore[misc]
    """An archive for each chunk. level, model: as for lmcompress.compress."""

    codec_id = "lmcompress"

    def __init__(self, level: int = DEFAULT_LEVEL, model: str | None = None) -> None:
        self.level, self.model = level, model

    def encode(self, buf: Any) -> bytes:
        return compress(ensure_bytes(buf), self.level, model=self.model)

    def decode(self, buf: Any, out: Any = None) -> Any:
        return ndarray_copy(decompress(ensure_bytes(buf), model=self.model), out)

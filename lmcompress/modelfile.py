"""A model on disk: configuration, vocabulary, integer weights; its digest is its identity.

Knows: the files' layout, the bounds that weights must keep. Does not know: arithmetic, archives.

Layout: MAGIC, uint32 length of the header, the header (JSON: name, arithmetic, config, trees, ngrams, table, card), one zstd frame with
vocabulary, trees, every array in the order of `_shapes` and the n-grams, little-endian, row by row, and the SHA-256 of everything
before it, which is the model's id. zstd's Huffman stage is within 1 % of an arithmetic coder on such weights (docs/LOG.md) and loads in milliseconds.
Models of one vocabulary may have the same n-grams: these then lie in a file of their own, which `table` in the header names by its id:
TABLE_MAGIC, zeros to the end of the line, the table line by line as it lies in memory, SHA-256 of everything before it.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lmcompress.config import HEAD_SIZE, ModelConfig
from lmcompress.errors import CorruptError, MissingModelError, UnsupportedError
from lmcompress.ngrams import LINE, MAX_LINES, NONE, WAYS, aligned, table_of
from lmcompress.tokenizer import MAX_PIECE, Tokenizer

MAGIC = b"\x89LMMODEL"
ARITHMETIC = 1  # docs/MODEL.md
WEIGHT_MAX = 63
START = b"\0"  # the piece before a lane's first
SINGLES = {bytes([i]) for i in range(256)}  # pieces of every vocabulary, so that nothing cannot be written
SHIPPED = Path(__file__).parent / "models"
SUFFIX = ".lmm"
TABLE_MAGIC = b"\x89LMNGRAM"
TABLE_SUFFIX = ".lmn"
MAX_FILE = 1 << 30
MAX_TREES = 64
MAX_TRIE = 65534  # nodes below the root (segment.c)
DIGEST_SIZE = 32


@dataclass(frozen=True, eq=False)
class Layer:
    """Integer weights of one layer: matrices int8 [rows out, columns in] within +-63, float32 scales per row out. Those of an
    attention without heads and of an MLP without columns are empty, but for the gains and attn_scale."""

    qkv: np.ndarray  # int8 [(H + 2) * D, d]: queries, key, value
    qkv_scale: np.ndarray  # float32 [(H + 2) * D]
    score: np.ndarray  # int32 [H], 1 to 511: score differences to 1/256 of log2, before the shift
    attn_scale: np.ndarray  # float32 scalar
    o: np.ndarray  # int8 [d, H * D]
    o_scale: np.ndarray  # float32 [d]
    up: np.ndarray  # int8 [d_ff, d]
    up_scale: np.ndarray  # float32 [d_ff]
    down: np.ndarray  # int8 [d, d_ff]
    down_scale: np.ndarray  # float32 [d]
    qkv_gain: np.ndarray  # float32 [d], powers of two from 2^-7 to 1: of the normalized channels that qkv reads
    up_gain: np.ndarray  # float32 [d], likewise


@dataclass(frozen=True, eq=False)
class Model:
    """Everything that a model file holds; for an archive what a dictionary is for zstd's. `model=` of compress, LMFile and the
    rest takes one, which saves reading it again, or what `load` takes."""

    name: str
    config: ModelConfig
    tokenizer: Tokenizer
    depths: np.ndarray  # uint8 [K, V]: trees over the vocabulary (tree.py), K of them, for as many kinds of text
    embed: np.ndarray  # int8 [V, d]
    layers: tuple[Layer, ...]
    head: np.ndarray  # int8 [V, d]
    head_scale: np.ndarray  # float32 [V]
    head_gain: np.ndarray  # float32 [d], as a layer's
    card: dict[str, Any] = field(default_factory=dict)  # how it was trained, under which licences, what it scored
    digest: bytes = b""  # the model's id, SHA-256, 32 bytes; set by loads()
    ngrams: np.ndarray = field(default_factory=lambda: NONE)  # uint16 [N, 2, WAYS]: N lines of them (ngrams.py)

    @staticmethod
    def load(name_or_path: str | os.PathLike[str]) -> Model:
        """A shipped model by name (`lmcompress models` lists them), or a model file by path. Raises MissingModelError
        where there is none, CorruptError, UnsupportedError."""
        return load(name_or_path)

    @property
    def alone(self) -> bool:
        """Whether what it has read had digits and codes by themselves, as its recipe says; text to compress is cut so, too."""
        recipe = self.card.get("recipe")
        return isinstance(recipe, dict) and recipe.get("alone") is True

    @property
    def model_id(self) -> str:
        """What archives name the model by: the SHA-256 of its file without the last 32 bytes, hexadecimal."""
        return self.digest.hex()

    @cached_property
    def start(self) -> int:
        """The id before a lane's first."""
        return self.tokenizer.pieces.index(START)


def _shapes(c: ModelConfig) -> list[tuple[str, str, tuple[int, ...]]]:
    """(name, dtype, shape) of every array in file order; a layer's come once for each layer, after the embedding."""
    d = c.d_model

    def layer(n_head: int, d_ff: int, _: int) -> list[tuple[str, str, tuple[int, ...]]]:
        heads = n_head * HEAD_SIZE
        qkv = heads + 2 * HEAD_SIZE if heads else 0
        return [
            ("qkv", "|i1", (qkv, d)), ("qkv_scale", "<f4", (qkv,)),
            ("score", "<i4", (n_head,)), ("attn_scale", "<f4", ()),
            ("o", "|i1", (d, heads)), ("o_scale", "<f4", (d if heads else 0,)),
            ("up", "|i1", (d_ff, d)), ("up_scale", "<f4", (d_ff,)),
            ("down", "|i1", (d, d_ff)), ("down_scale", "<f4", (d if d_ff else 0,)),
            ("qkv_gain", "<f4", (d,)), ("up_gain", "<f4", (d,)),
        ]  # fmt: skip

    ends = [("head", "|i1", (c.vocab_size, d)), ("head_scale", "<f4", (c.vocab_size,)), ("head_gain", "<f4", (d,))]
    return [("embed", "|i1", (c.vocab_size, d)), *(array for shape in c.layers for array in layer(*shape)), *ends]


def dumps(model: Model, table: bytes = b"") -> bytes:
    """The file's bytes. The same model gives the same bytes with the same version of zstandard. `table`: the id of a file that
    has its n-grams, which are then left out."""
    import zstandard

    arrays: dict[str, list[np.ndarray]] = {
        "embed": [model.embed],
        "head": [model.head],
        "head_scale": [model.head_scale],
        "head_gain": [model.head_gain],
    }
    for layer in model.layers:
        for name in vars(layer):
            arrays.setdefault(name, []).append(getattr(layer, name))
    tokenizer = model.tokenizer
    vocabulary = bytes(map(len, tokenizer.pieces)) + b"".join(tokenizer.pieces)
    parts = [vocabulary, np.array(tokenizer.costs, "<u2").tobytes(), np.asarray(model.depths, np.uint8).tobytes()]
    for name, dtype, shape in _shapes(model.config):
        array = np.asarray(arrays[name].pop(0))
        if array.shape != shape:
            raise ValueError(f"{name} is {array.shape}, not {shape}")
        parts.append(array.astype(dtype).tobytes())
    if not table:
        parts += [model.ngrams[:, i].astype("<u2").tobytes() for i in range(2)]  # keys, then tokens
    header = json.dumps(
        {
            "name": model.name,
            "arithmetic": ARITHMETIC,
            "config": asdict(model.config),
            "trees": len(model.depths),
            "ngrams": len(model.ngrams),
            **({"table": table.hex()} if table else {}),
            "card": model.card,
        }
    ).encode()
    body = zstandard.ZstdCompressor(level=3).compress(b"".join(parts))
    return _sealed(MAGIC + struct.pack("<I", len(header)) + header + body)


def dumps_table(table: np.ndarray) -> bytes:
    """The bytes of a file of n-grams, uint16 [N, 2, WAYS]; the last DIGEST_SIZE are its id."""
    return _sealed(TABLE_MAGIC.ljust(LINE, b"\0") + table.astype("<u2").tobytes())


def _sealed(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()


def loads(data: bytes, folders: Sequence[Path] = (SHIPPED,)) -> Model:
    """The model in a file's bytes; n-grams that it names are looked for in `folders`. Raises CorruptError where they are not
    one, UnsupportedError for another version, MissingModelError where the n-grams are missing."""
    import zstandard

    if len(data) > MAX_FILE or not data.startswith(MAGIC) or len(data) < len(MAGIC) + 4 + DIGEST_SIZE:
        raise CorruptError("not a model file")
    content, digest = memoryview(data)[:-DIGEST_SIZE], data[-DIGEST_SIZE:]
    if hashlib.sha256(content).digest() != digest:
        raise CorruptError("damaged model file: its SHA-256 does not fit")
    try:
        header, begin = _header(content)
        arithmetic, config, name = header["arithmetic"], ModelConfig(**header["config"]), str(header["name"])
        trees, lines = header.get("trees", 1), header.get("ngrams", 0)
        named = bytes.fromhex(header.get("table", ""))
        if arithmetic != ARITHMETIC:
            raise UnsupportedError(f"model {name} needs arithmetic {arithmetic}; this is {ARITHMETIC}")
        _check_config(config)
        if not (isinstance(trees, int) and 1 <= trees <= MAX_TREES):
            raise CorruptError("damaged model file: trees")
        if not (isinstance(lines, int) and 0 <= lines <= MAX_LINES):
            raise CorruptError("damaged model file: n-grams")
        V = config.vocab_size
        shapes = _shapes(config)
        arrays_size = sum(np.dtype(t).itemsize * int(np.prod(s)) for _, t, s in shapes)
        ngrams_size = 0 if named else LINE * lines
        limit = arrays_size + ngrams_size + V * (MAX_PIECE + 3 + trees)
        body = zstandard.ZstdDecompressor().stream_reader(content[begin:]).read(limit + 1)
        lengths = np.frombuffer(body, np.uint8, V)
        text = body[V : V + int(lengths.sum())]
        offset = V + len(text)
        if (
            len(body) != offset + (2 + trees) * V + arrays_size + ngrams_size
            or lengths.min() < 1
            or lengths.max() > MAX_PIECE
        ):
            raise CorruptError("the model's arrays have the wrong size")
        ends = np.cumsum(lengths, dtype=np.int64)
        pieces = tuple(text[e - n : e] for e, n in zip(ends.tolist(), lengths.tolist(), strict=True))
        costs = tuple(np.frombuffer(body, "<u2", V, offset).tolist())
        depths = np.frombuffer(body, np.uint8, trees * V, offset + 2 * V).reshape(trees, V).copy()  # the body goes
        offset += (2 + trees) * V
        fields: dict[str, list[np.ndarray]] = {}
        for field_name, dtype, shape in shapes:
            array = np.frombuffer(body, dtype, int(np.prod(shape)), offset).reshape(shape)
            offset += array.nbytes
            _check_array(field_name, array)
            fields.setdefault(field_name, []).append(array.astype(array.dtype.newbyteorder("=")))
        if named:
            ngrams = load_table(named, folders)
        else:
            ngrams = table_of(*np.frombuffer(body, "<u2", 2 * WAYS * lines, offset).reshape(2, lines, WAYS))
        if len(ngrams) != lines or (lines and ngrams[:, 1].max() >= V):
            raise CorruptError("damaged model file: n-grams")
    except (ValueError, TypeError, KeyError, RecursionError, zstandard.ZstdError) as error:
        raise CorruptError(f"damaged model file: {error}") from None
    if len(set(pieces)) != V or not SINGLES <= set(pieces) or START not in pieces or 0 in costs:
        raise CorruptError("damaged model file: vocabulary")
    if len(text) > MAX_TRIE and len({p[:n] for p in pieces for n in range(1, len(p) + 1)}) > MAX_TRIE:
        raise UnsupportedError(f"the model's pieces have more than {MAX_TRIE} beginnings")
    embed, head, head_scale, head_gain = (fields.pop(n)[0] for n in ("embed", "head", "head_scale", "head_gain"))
    layers = tuple(Layer(**{n: a[i] for n, a in fields.items()}) for i in range(config.n_layer))
    card = header.get("card", {})
    if not isinstance(card, dict):
        raise CorruptError("damaged model file: card")
    tokenizer = Tokenizer(pieces, costs)
    return Model(name, config, tokenizer, depths, embed, layers, head, head_scale, head_gain, card, digest, ngrams)


def _header(content: bytes | memoryview) -> tuple[Any, int]:
    """What a model file's JSON says, and where the body begins."""
    (size,) = struct.unpack_from("<I", content, len(MAGIC))
    begin = len(MAGIC) + 4 + size
    return json.loads(bytes(content[len(MAGIC) + 4 : begin])), begin


def _check_config(c: ModelConfig) -> None:
    """Bounds that keep every sum of docs/MODEL.md within its width, and what a header may claim within reason."""
    sizes = asdict(c).values()
    if not all(isinstance(v, int) for value in sizes for v in (value if isinstance(value, tuple) else (value,))):
        raise CorruptError("damaged model file: config")
    if not (256 <= c.vocab_size <= 32768 and c.vocab_size % 32 == 0 and 1 <= c.n_layer <= 64):
        raise UnsupportedError("the model's vocabulary or depth is out of bounds")
    if not (c.d_model % 64 == 0 and 64 <= c.d_model <= 2048):
        raise UnsupportedError("the model's width is out of bounds")
    for layer in c.layers:
        if not (
            layer.d_ff % 64 == 0 and 0 <= layer.d_ff <= 8192 and 0 <= layer.n_head <= 32 and 1 <= layer.window <= 1024
        ):
            raise UnsupportedError("a layer's heads, columns or window are out of bounds")


def _check_array(name: str, array: np.ndarray) -> None:
    if not array.size:
        good = True
    elif name == "score":
        good = array.min() >= 1 and array.max() <= 511
    elif name.endswith("_gain"):
        good = bool(np.isin(array, np.ldexp(np.float32(1), -np.arange(8))).all())
    elif array.dtype.kind == "f":
        good = bool(np.isfinite(array).all()) and array.min() >= 2.0**-40 and array.max() <= 2.0**10
    else:
        good = np.abs(array.astype(np.int16)).max() <= (127 if name == "embed" else WEIGHT_MAX)
    if not good:
        raise CorruptError(f"damaged model file: {name} out of bounds")


def load_table(digest: bytes, folders: Sequence[Path] = (SHIPPED,)) -> np.ndarray:
    """The n-grams with this id: uint16 [N, 2, WAYS]. Raises MissingModelError where none of the folders has them, CorruptError."""
    path = _ending(digest, TABLE_SUFFIX, folders)
    if path is None:
        raise MissingModelError(f"no n-grams with SHA-256 {digest.hex()}; their file belongs beside the model's")
    return read_table(path)[0]


def read_table(path: Path) -> tuple[np.ndarray, bytes]:
    """The n-grams in a file, uint16 [N, 2, WAYS], and their id. Raises CorruptError."""
    data = aligned(min(path.stat().st_size, MAX_FILE))  # in memory: a mapped file may change after it has been checked
    with path.open("rb") as file:
        file.readinto(data.data)
    content, digest = data[:-DIGEST_SIZE], data[-DIGEST_SIZE:].tobytes()
    if content.size % LINE or content[:LINE].tobytes() != TABLE_MAGIC.ljust(LINE, b"\0"):
        raise CorruptError(f"{path.name} is no file of n-grams")
    if hashlib.sha256(content.data).digest() != digest:
        raise CorruptError(f"damaged n-grams: the SHA-256 of {path.name} does not fit")
    table = content[LINE:].view("<u2").reshape(-1, 2, WAYS)
    return (table if sys.byteorder == "little" else table_of(table[:, 0], table[:, 1])), digest


def _ending(digest: bytes, suffix: str, folders: Sequence[Path]) -> Path | None:
    """The first file of that suffix that ends in its id."""
    for folder in folders:
        for path in sorted(folder.glob(f"*{suffix}")):
            with path.open("rb") as file:
                file.seek(max(0, path.stat().st_size - DIGEST_SIZE))
                if file.read() == digest:
                    return path
    return None


def _path_of(name: str) -> Path:
    """The file of a shipped model's name or a path. Raises MissingModelError."""
    path = SHIPPED / f"{name}{SUFFIX}"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise MissingModelError(f"no model {name}: neither shipped nor a file; shipped: {', '.join(shipped())}")
    return path


def load(name_or_path: str | os.PathLike[str]) -> Model:
    """See Model.load."""
    path = _path_of(os.fsdecode(name_or_path))
    return loads(path.read_bytes(), (path.parent, SHIPPED))


def files(name_or_path: str | os.PathLike[str]) -> list[Path]:
    """A model's file, and that of its n-grams where it names one. Raises MissingModelError."""
    path = _path_of(os.fsdecode(name_or_path))
    named = _header(path.read_bytes())[0].get("table", "")
    table = _ending(bytes.fromhex(named), TABLE_SUFFIX, (path.parent, SHIPPED)) if named else None
    return [path] if table is None else [path, table]


def given(model: Model | str | os.PathLike[str]) -> Model:
    """The model itself, or the one that load() finds. Raises as that does."""
    return model if isinstance(model, Model) else load(model)


def shipped() -> list[str]:
    """Names of the models in the package."""
    return sorted(p.name[: -len(SUFFIX)] for p in SHIPPED.glob(f"*{SUFFIX}"))


def find(digest: bytes) -> Model:
    """The shipped model with this SHA-256. Raises MissingModelError where there is none."""
    path = _ending(digest, SUFFIX, (SHIPPED,))
    if path is None:
        raise MissingModelError(f"no model with SHA-256 {digest.hex()}; give its file with --model")
    return loads(path.read_bytes())

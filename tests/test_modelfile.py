"""Model files: what comes back, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import struct
from pathlib import Path

import numpy as np
import pytest

from lmcompress import modelfile
from lmcompress.config import ModelConfig
from lmcompress.errors import CorruptError, LMCompressError, MissingModelError, UnsupportedError
from lmcompress.modelfile import MAGIC, Model, dumps, loads
from lmcompress.tokenizer import Tokenizer
from tests.models import random_model

CONFIG = ModelConfig(320, 64, 2, 1, 128, 8)


@pytest.fixture(scope="module")
def model() -> Model:
    return random_model(CONFIG)


def test_a_model_comes_back_whole(model: Model) -> None:
    data = dumps(model)
    again = loads(data)
    assert again.config == CONFIG
    assert again.tokenizer == model.tokenizer
    assert again.digest == hashlib.sha256(data[:-32]).digest() == data[-32:]
    assert again.model_id == again.digest.hex()
    assert np.array_equal(again.embed, model.embed) and np.array_equal(again.head, model.head)
    assert np.array_equal(again.depths, model.depths)
    for ours, theirs in zip(again.layers, model.layers, strict=True):
        for name in vars(theirs):
            assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name
    assert dumps(again) == data


def test_a_model_is_found_by_path_and_refused_by_an_unknown_name(model: Model, tmp_path: Path) -> None:
    path = tmp_path / "own.lmm"
    path.write_bytes(dumps(model))
    assert modelfile.load(path).digest == model.digest
    with pytest.raises(MissingModelError, match="nosuch"):
        modelfile.load("nosuch")
    with pytest.raises(MissingModelError):
        modelfile.find(bytes(32))


def test_shipped_models_load_and_are_found_by_their_digest() -> None:
    for name in modelfile.shipped():
        shipped = modelfile.load(name)
        assert shipped.name == name
        assert modelfile.find(shipped.digest).digest == shipped.digest


def sealed(content: bytes) -> bytes:
    """A model file of this content, its digest right."""
    return content + hashlib.sha256(content).digest()


def test_another_arithmetic_is_refused_by_name(model: Model) -> None:
    data = sealed(dumps(model)[:-32].replace(b'"arithmetic": 1', b'"arithmetic": 9'))
    with pytest.raises(UnsupportedError, match="arithmetic 9"):
        loads(data)


@pytest.mark.parametrize(
    "change", [{"qkv": 64}, {"embed": -128}, {"score": 512}, {"o_scale": np.nan}, {"up_scale": -1.0}]
)
def test_numbers_out_of_bounds_are_refused(model: Model, change: dict[str, float]) -> None:
    ((name, value),) = change.items()
    holder = model if name == "embed" else model.layers[0]
    array = getattr(holder, name).copy()
    array.flat[0] = value
    if name == "embed":
        bad = dataclasses.replace(model, embed=array)
    else:
        bad = dataclasses.replace(
            model, layers=(dataclasses.replace(model.layers[0], **{name: array}), model.layers[1])
        )
    with pytest.raises(CorruptError, match="out of bounds"):
        loads(dumps(bad))


@pytest.mark.parametrize("field", ["d_model", "n_layer", "d_ff", "vocab_size", "window", "n_head"])
@pytest.mark.parametrize("value", [0, -1, 10**9])
def test_impossible_shapes_are_refused_before_anything_is_allocated(model: Model, field: str, value: int) -> None:
    old = f'"{field}": {getattr(CONFIG, field)}'.encode()
    data = dumps(model)[:-32]
    (size,) = struct.unpack_from("<I", data, len(MAGIC))
    at = len(MAGIC) + 4
    header = data[at : at + size].replace(old, f'"{field}": {value}'.encode())
    with pytest.raises(LMCompressError):
        loads(sealed(MAGIC + struct.pack("<I", len(header)) + header + data[at + size :]))


def test_layers_may_differ() -> None:
    config = ModelConfig(256, 64, 3, (2, 0, 1), (0, 192, 64), (24, 1, 70))
    assert config.layers == ((2, 0, 24), (0, 192, 1), (1, 64, 70)) and config.longest_window == 70
    model = random_model(config)
    again = loads(dumps(model))
    assert again.config == config
    for ours, theirs in zip(again.layers, model.layers, strict=True):
        for name, array in vars(theirs).items():
            assert np.array_equal(getattr(ours, name), array), name
    assert [len(layer.qkv) for layer in again.layers] == [256, 0, 192]
    assert [len(layer.o_scale) for layer in again.layers] == [64, 0, 64]
    assert [layer.down.shape for layer in again.layers] == [(64, 0), (64, 192), (64, 64)]


@pytest.mark.parametrize(
    ("shape", "error"),
    [
        ({"n_head": [2, 2, 2]}, CorruptError),
        ({"d_ff": [192]}, CorruptError),
        ({"window": []}, CorruptError),
        ({"n_head": [2, "2"]}, CorruptError),
        ({"n_head": [2, [2]]}, CorruptError),
        ({"n_head": [2, -1]}, UnsupportedError),
        ({"d_ff": [192, 100]}, UnsupportedError),
        ({"window": [24, 0]}, UnsupportedError),
        ({"window": [24, 10**9]}, UnsupportedError),
        ({"n_layer": 10**9, "n_head": [2] * 1000}, UnsupportedError),
    ],
)
def test_impossible_layers_are_refused(model: Model, shape: dict, error: type[LMCompressError]) -> None:
    data = dumps(model)[:-32]
    (size,) = struct.unpack_from("<I", data, len(MAGIC))
    at = len(MAGIC) + 4
    header = json.loads(data[at : at + size])
    header["config"].update(shape)
    changed = json.dumps(header).encode()
    with pytest.raises(error):
        loads(sealed(MAGIC + struct.pack("<I", len(changed)) + changed + data[at + size :]))


@pytest.mark.parametrize("card", [{"recipe": {"alone": True}}, {"recipe": {"alone": "yes"}}, {"recipe": ["alone"]}, {}])
def test_a_card_tells_how_text_was_cut(model: Model, card: dict) -> None:
    assert loads(dumps(dataclasses.replace(model, card=card))).alone == (card == {"recipe": {"alone": True}})


def test_a_card_that_is_none_is_damage(model: Model) -> None:
    with pytest.raises(CorruptError, match="card"):
        loads(dumps(dataclasses.replace(model, card=["alone"])))


def test_a_damaged_file_is_refused(model: Model) -> None:
    data = dumps(model)
    rng = random.Random(0)
    cases = [data[:n] for n in (0, 7, 11, 43, *(rng.randrange(len(data)) for _ in range(40)))]
    for _ in range(100):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        cases.append(bytes(damaged))
    for case in cases:
        with pytest.raises(LMCompressError):
            loads(case)


def test_a_crafted_file_is_refused_or_a_sound_model(model: Model) -> None:
    content = dumps(model)[:-32]
    rng = random.Random(0)
    for _ in range(200):
        crafted = bytearray(content)
        crafted[rng.randrange(min(len(content), 2000))] = rng.randrange(256)
        try:
            loads(sealed(bytes(crafted)))
        except LMCompressError:
            pass


def test_hostile_headers_and_vocabularies_are_damage(model: Model) -> None:
    def signed(content: bytes) -> bytes:
        return content + hashlib.sha256(content).digest()

    deep = b"[" * 200_000
    with pytest.raises(CorruptError):
        loads(signed(MAGIC + len(deep).to_bytes(4, "little") + deep))
    pieces = list(model.tokenizer.pieces)
    pieces[pieces.index(b"q")] = b"nothing else"
    lacking = dataclasses.replace(model, tokenizer=dataclasses.replace(model.tokenizer, pieces=tuple(pieces)))
    with pytest.raises(CorruptError, match="vocabulary"):
        loads(dumps(lacking))


def test_pieces_that_begin_in_too_many_ways_are_refused(model: Model) -> None:
    rng = random.Random(0)
    config = dataclasses.replace(model.config, vocab_size=256 + 1056)
    pieces = (*(bytes([i]) for i in range(256)), *(rng.randbytes(64) for _ in range(1056)))
    large = random_model(config)
    with pytest.raises(UnsupportedError, match="beginnings"):
        loads(dumps(dataclasses.replace(large, tokenizer=Tokenizer(pieces, (1,) * len(pieces)))))
    few = (*pieces[:256], *(b"%064d" % i for i in range(1056)))
    allowed = loads(dumps(dataclasses.replace(large, tokenizer=Tokenizer(few, (1,) * len(few)))))
    assert allowed.tokenizer.decode(allowed.tokenizer.encode(few[-1])) == few[-1]


@pytest.mark.parametrize("name", ["文" * 22, "a\tb", "\u202ename", "\ud83d", ""])
def test_archives_open_whatever_the_model_is_called(model: Model, name: str, tmp_path: Path) -> None:
    from lmcompress import compress, decompress

    path = tmp_path / "model.lmm"
    path.write_bytes(dumps(dataclasses.replace(model, name=name)))
    text = b"as long as it takes to need a model, which is not so very long " * 3
    for given in (str(path), path, os.fsencode(path)):
        archive = compress(text, 3, model=given)  # type: ignore[arg-type]
        assert len(archive) < len(text) and decompress(archive, model=given) == text  # type: ignore[arg-type]

"""Damaged, hostile and old archives: the right content or a typed error, and as much saved as there is."""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
from pathlib import Path
from unittest import mock
from zlib import crc32

import pytest

import lmcompress
from lmcompress import LimitError, LMCompressError, TruncatedError, forms, methods
from lmcompress.container import FOOTER, LM, SYNC, ZSTD, Block, Header, pack_block
from lmcompress.file import get_archive_info, recover
from lmcompress.repeats import History
from tests import fakes, fuzz
from tests.golden import bad
from tests.golden.make import model_of

GOLDEN = Path(__file__).parent / "golden"
MANIFEST = json.loads((GOLDEN / "manifest.json").read_text()) if (GOLDEN / "manifest.json").exists() else {}
BAD = list(bad.archives())


@pytest.mark.parametrize("case", BAD, ids=lambda c: c.name)
def test_bad_archives_are_refused(fake_codec, case):
    with pytest.raises(LMCompressError) as caught:
        lmcompress.decompress(case.data, memory=1 << 25)
    assert caught.type is case.error, caught.value
    for size in (1, 7):
        decompressor = lmcompress.LMDecompressor(memory=1 << 25)
        with pytest.raises((LMCompressError, EOFError)):
            for start in range(0, len(case.data), size):
                decompressor.decompress(case.data[start : start + size])
            raise EOFError  # a stream that ends too early or goes on too long is for its user to see


def test_bad_archives_start_from_a_good_one(fake_codec):
    assert lmcompress.decompress(b"".join(bad.sound())) == bad.CONTENT
    assert len({b.name for b in BAD}) == len(BAD)


@pytest.mark.parametrize("name", sorted(MANIFEST))
def test_golden_archives_decode_for_ever(name):
    content = lmcompress.decompress((GOLDEN / name).read_bytes(), model=model_of(name))
    assert len(content) == MANIFEST[name]["size"]
    assert hashlib.sha256(content).hexdigest() == MANIFEST[name]["sha256"]


def test_golden_archives_have_every_form():
    found = set()

    def to_data(form, text, size, real=forms.to_data):
        found.update(
            (form & ~forms.FLAGS, *(flag for flag in (forms.CAPITALS, forms.RETURNS, forms.LINES) if form & flag))
        )
        return real(form, text, size)

    with mock.patch.object(forms, "to_data", to_data):
        for name in MANIFEST:
            lmcompress.decompress((GOLDEN / name).read_bytes(), model=model_of(name))
    reserved = {30, 31}
    assert found == set(range(32)) - reserved | {forms.CAPITALS, forms.RETURNS, forms.LINES}


@pytest.mark.parametrize("kind", range(9))
def test_every_truncation(fake_codec, kind):
    case = fuzz.cases()[kind]
    boundaries = set()  # a file cut there is a sound one
    for i in range(1, len(case.contents)):
        boundaries.add(sum(m.coded_size for m in get_archive_info(case.archive).members[:i]))
    rng = random.Random(0)
    for size in range(len(case.archive)):
        if size in boundaries:
            continue
        cut = case.archive[:size]
        with pytest.raises(TruncatedError):
            lmcompress.decompress(cut)
        fuzz.attempt(case, cut, rng)


def test_every_bit(fake_codec):
    """In the shortest archives every single bit matters."""
    for case in fuzz.cases()[:4]:
        for i in range(8 * len(case.archive)):
            damaged = bytearray(case.archive)
            damaged[i // 8] ^= 1 << i % 8
            with pytest.raises(LMCompressError):
                lmcompress.decompress(damaged)


def test_random_damage(fake_codec):
    fuzz.run(600, seed=7)


def test_random_damage_to_the_real_codec():
    fuzz.run(300, seed=8, model=fuzz.TOY)


def blocks(n: int = 8, size: int = 4096) -> tuple[list[bytes], bytearray]:
    contents = [fakes.text(size, seed) for seed in range(n)]
    return contents, bytearray(lmcompress.compress(b"".join(contents), block_size=size))


def recovered(archive: bytes) -> tuple[bytes, lmcompress.file.Recovery]:
    out = io.BytesIO()
    result = recover(io.BytesIO(archive), out)
    return out.getvalue(), result


def test_nothing_is_lost_of_a_sound_archive(fake_codec):
    contents, archive = blocks()
    content, result = recovered(archive)
    assert content == b"".join(contents) and result.intact and result.recovered == len(content)


@pytest.mark.parametrize("hit", [0, 3, 7])
def test_one_damaged_block_costs_no_other(fake_codec, hit):
    contents, archive = blocks()
    block = get_archive_info(archive).members[0].blocks[hit]
    archive[block.offset + block.coded_size // 2] ^= 1
    content, result = recovered(archive)
    assert content == b"".join(contents[:hit] + contents[hit + 1 :])
    (loss,) = result.lost
    assert (loss.offset, loss.raw_offset, loss.raw_size) == (block.offset, hit * 4096, 4096)
    assert f"bytes {hit * 4096} to {hit * 4096 + 4095}" in str(loss)


@pytest.mark.parametrize("where", ["header", "footer", "end", "block header", "bytes gone", "bytes more"])
def test_other_damage(fake_codec, where):
    contents, archive = blocks()
    block = get_archive_info(archive).members[0].blocks[4]
    middle, expected = block.offset + block.coded_size // 2, contents
    if where == "header":
        archive[9] ^= 1
    elif where == "footer":
        archive[-20] ^= 1
    elif where == "end":
        del archive[-3:]
    else:
        expected = contents[:4] + contents[5:]
        if where == "block header":
            archive[block.offset + 4] ^= 1
        elif where == "bytes gone":
            del archive[middle : middle + 3]
        else:
            archive[middle:middle] = b"abc"
    content, result = recovered(archive)
    assert content == b"".join(expected)
    assert not result.intact
    assert bool(result.lost) == (len(expected) < 8 or where in ("footer", "end"))


def test_a_cut_archive_gives_what_it_has(fake_codec):
    contents, archive = blocks()
    block = get_archive_info(archive).members[0].blocks[5]
    content, result = recovered(archive[: block.offset + 30])
    assert content == b"".join(contents[:5]) and result.lost


def test_members_survive_each_other(fake_codec):
    contents = [fakes.text(3000, seed) for seed in range(3)]
    coded = [lmcompress.compress(c) for c in contents]
    coded[1] = coded[1][:-100] + coded[1][-80:]
    content, result = recovered(b"".join(coded))
    assert content == contents[0] + contents[2] and result.lost


def test_recovery_keeps_limits(fake_codec):
    _, archive = blocks()
    with pytest.raises(LimitError):
        recover(io.BytesIO(archive), None, max_output=10_000)
    with pytest.raises(LimitError):
        recover(io.BytesIO(archive), None, memory=1000)
    content, result = recovered(b"")
    assert content == b"" and not result.intact


def test_a_block_that_is_too_large_is_refused_at_its_header(fake_codec):
    """Before its payload has arrived, let alone been held."""
    record = pack_block(LM, bytes(1 << 25), bytes(1 << 20))
    decompressor = lmcompress.LMDecompressor(memory=1 << 24)
    with pytest.raises(LimitError):
        decompressor.decompress(bytes(Header(30, b"\1\2\3")) + record[:30])


def test_searching_takes_time_in_proportion():
    """Files that look like the beginnings of thousands of long records and footers."""
    header = pack_block(ZSTD, bytes(1 << 20), b"x" * 50_000)[:-50_000]
    for mark in (header, SYNC + bytes([FOOTER]), header + SYNC + bytes([FOOTER])):
        begin = time.perf_counter()
        _, result = recovered(mark * (300_000 // len(mark)))
        assert not result.intact
        assert time.perf_counter() - begin < 20


def test_a_zstd_window_is_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 2 GiB that a block's first byte asks for, and one that there is no room for after all."""
    import zstandard

    text = b"ab" * 5000
    payload = methods._zstd_compress(text, 3)
    assert methods._window(payload) <= 2 * len(text)
    payload = b"\xa8" + payload[1:]
    assert methods._window(payload) == 1 << 31
    block = Block(ZSTD, len(text), len(payload), crc32(text), crc32(payload), payload)
    decoder = methods.BlockDecoder(Header(20), None, 1, 1 << 20)
    with pytest.raises(LimitError):
        decoder.decode(block, History(0))

    def full(*arguments: object, **options: object) -> bytes:
        raise zstandard.ZstdError("decompression error: Allocation error : not enough memory")

    monkeypatch.setattr(zstandard, "ZstdDecompressor", lambda **_: mock.Mock(decompress=full))
    with pytest.raises(MemoryError):
        methods._zstd_decompress(payload, len(text))

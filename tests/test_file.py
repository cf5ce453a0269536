"""The library: everything comes back through every interface, in pieces of any size, from any place."""

from __future__ import annotations

import io
import os
import pickle
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lmcompress
from lmcompress import LMCompressor, LMDecompressor, LMFile, archive, methods
from lmcompress.bits import Writer
from lmcompress.container import Header
from lmcompress.methods import BlockDecoder
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_codec")
quickly = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

CONTENTS = (
    st.binary(max_size=5000)
    | st.builds(fakes.text, st.integers(0, 9000), st.integers(0, 99))
    | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=5), st.integers(0, 3000))
    | st.builds(lambda a, b: a + b, st.builds(fakes.text, st.integers(0, 3000)), st.binary(max_size=3000))
)
BLOCK_SIZES = st.sampled_from([1 << 10, 1500, 1 << 12, 1 << 23])


def cut(data: bytes, seed: int) -> list[bytes]:
    """`data` in pieces of random sizes, some of them empty."""
    rng, pieces, start = random.Random(seed), [], 0
    while start < len(data):
        size = rng.choice([0, 1, 2, 7, 100, 1024, 5000])
        pieces.append(data[start : start + size])
        start += size
    return pieces


@quickly
@given(CONTENTS, BLOCK_SIZES, st.booleans())
def test_one_call(data, block_size, check):
    coded = lmcompress.compress(data, block_size=block_size, check=check, metadata={"a": "b"})
    assert lmcompress.decompress(coded) == data
    info = lmcompress.get_archive_info(coded)
    assert (info.raw_size, info.coded_size) == (len(data), len(coded))
    assert info.members[0].metadata == {"a": "b"}


@quickly
@given(CONTENTS, BLOCK_SIZES, st.integers(0, 1 << 30), st.sampled_from([-1, 1, 10, 1000]))
def test_pieces_of_any_size(data, block_size, seed, max_length):
    rng = random.Random(seed)
    compressor = LMCompressor(block_size=block_size)
    coded = b"".join(
        compressor.compress(piece, rng.choices([compressor.CONTINUE, compressor.FLUSH_BLOCK], [9, 1])[0])
        for piece in cut(data, seed)
    )
    assert compressor.last_mode != compressor.FLUSH_FRAME or not data
    coded += compressor.flush()
    decompressor, out, pieces = LMDecompressor(), [], iter(cut(coded + b"follows", seed + 1))
    while not decompressor.eof:
        out.append(decompressor.decompress(next(pieces) if decompressor.needs_input else b"", max_length))
        assert max_length < 0 or len(out[-1]) <= max_length
    assert b"".join(out) == data
    assert b"follows".startswith(decompressor.unused_data)
    with pytest.raises(EOFError):
        decompressor.decompress(b"")


@quickly
@given(st.lists(CONTENTS, min_size=1, max_size=4), BLOCK_SIZES, st.integers(0, 1 << 30))
def test_files_and_members(contents, block_size, seed):
    file, data, rng = io.BytesIO(), b"".join(contents), random.Random(seed)
    for content in contents:
        with LMFile(file, "w", block_size=block_size) as writer:
            for piece in cut(content, seed):
                writer.write(piece)
            assert writer.tell() == len(content)
    file.seek(0)
    with lmcompress.open(file) as reader:
        assert reader.read() == data
        for _ in range(5):
            offset, size = rng.randrange(len(data) + 10), rng.randrange(3000)
            assert reader.read_range(offset, size) == data[offset : offset + size]
            assert reader.tell() == min(max(offset, 0), max(len(data), offset)) + len(data[offset : offset + size])
            assert reader.peek(1)[:1] == data[reader.tell() : reader.tell() + 1]
        assert reader.seek(0, io.SEEK_END) == len(data)
        assert reader.seek(0) == 0 and list(reader) == data.splitlines(True) if b"\r" not in data else True


def test_the_smallest_method_wins():
    def methods(data: bytes) -> list[str]:
        return [b.method for m in lmcompress.get_archive_info(lmcompress.compress(data)).members for b in m.blocks]

    assert methods(fakes.text(300)) == ["lm"]
    assert methods(b"ab" * 5000) == ["zstd"]
    assert methods(fakes.noise(100_000)) == methods(b"?") == ["stored"]
    assert methods(b"") == []


def test_pure_repetition_is_not_given_to_a_model(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(fakes.FakeCodec, "encode", None)
    for data in (bytes(300_000), b"the same line\n" * 20_000):
        coded = lmcompress.compress(data)
        assert lmcompress.decompress(coded) == data and len(coded) < 150


@pytest.mark.parametrize("size", [0, 1, 2, 40, 100, 1000, 4096, 65_535, 65_536, 300_000])
def test_noise_hardly_grows(size):
    assert len(lmcompress.compress(fakes.noise(size))) <= size + 64 + size // 1000


def test_short_text_costs_little():
    data = fakes.text(1000)
    overhead = len(lmcompress.compress(data)) - len(fakes.FakeCodec().encode(data)[1])
    assert overhead <= 100


def test_a_model_is_named_only_where_it_is_needed(fake_codec):
    zstd, lm = (lmcompress.get_archive_info(lmcompress.compress(d)).members[0] for d in (b"ab" * 900, fakes.text(900)))
    assert (zstd.model_name, lm.model_name) == (None, "fake")
    assert lm.model_digest == fakes.DIGESTS["fake"].hex()


def test_models():
    with pytest.raises(lmcompress.MissingModelError):
        lmcompress.compress(fakes.text(900), model="nobody")
    coded = lmcompress.compress(fakes.text(900), model="other")
    with pytest.raises(lmcompress.MissingModelError, match="other"):
        lmcompress.decompress(coded)
    assert lmcompress.decompress(coded, model="other") == fakes.text(900)


def test_mistakes_are_the_callers():
    for wrong in ({"level": 0}, {"level": 10}, {"block_size": 1}, {"block_size": 1 << 31}):
        with pytest.raises(ValueError):
            LMCompressor(**wrong)
    with pytest.raises(ValueError):
        LMCompressor().compress(b"", 7)
    with pytest.raises(ValueError):
        LMCompressor().flush(LMCompressor.CONTINUE)
    with pytest.raises(ValueError):
        LMFile(io.BytesIO(), "rw")
    with pytest.raises(ValueError):
        lmcompress.open(io.BytesIO(), "rb", encoding="utf-8")
    with pytest.raises(ValueError):
        lmcompress.open(io.BytesIO(), "rbt")
    with pytest.raises(TypeError):
        LMFile(3)  # type: ignore[arg-type]


def test_limits():
    coded = lmcompress.compress(fakes.text(100_000), block_size=1 << 14)
    with pytest.raises(lmcompress.LimitError):
        lmcompress.decompress(coded, max_output=99_999)
    assert len(lmcompress.decompress(coded, max_output=100_000)) == 100_000
    with pytest.raises(lmcompress.LimitError):
        lmcompress.decompress(coded, memory=1000)
    with pytest.raises(lmcompress.LimitError):
        LMDecompressor(max_output=20_000).decompress(coded)


def test_empty_and_foreign_input():
    with pytest.raises(lmcompress.TruncatedError):
        lmcompress.decompress(b"")
    with pytest.raises(lmcompress.CorruptError, match="magic"):
        lmcompress.decompress(b"plain text")
    with pytest.raises(lmcompress.CorruptError):
        lmcompress.decompress(lmcompress.compress(b"text") + b"garbage")


@pytest.mark.parametrize("wrap", [io.BytesIO, lambda data: Pipe(data)])
def test_what_follows_an_archive_is_not_called_the_archive(wrap: Callable[[bytes], io.IOBase]) -> None:
    coded = lmcompress.compress(b"one") + lmcompress.compress(b"two")
    with pytest.raises(lmcompress.CorruptError, match=f"behind {len(coded)} bytes"):
        LMFile(wrap(coded + b"garbage\n")).read()  # type: ignore[arg-type]
    before = io.BytesIO(b"before" + coded + b"garbage\n")
    before.seek(6)
    with pytest.raises(lmcompress.CorruptError, match=f"behind {len(coded)} bytes"):
        LMFile(before).read()


def test_nothing_is_decoded_that_is_too_long(fake_codec: type[fakes.FakeCodec]) -> None:
    coded = lmcompress.compress(fakes.text(900)) * 2
    assert LMFile(io.BytesIO(coded), max_output=1800).read() == fakes.text(900) * 2
    file = LMFile(io.BytesIO(coded), max_output=1799)
    fake_codec.decoded = 0
    assert file.read(900) == fakes.text(900)
    for _ in range(2):
        with pytest.raises(lmcompress.LimitError):
            file.read(1)
    assert fake_codec.decoded == 1


def test_flush_block_shows_everything():
    compressor, decompressor = LMCompressor(), LMDecompressor()
    for line in (b"one\n", b"two\n"):
        assert decompressor.decompress(compressor.compress(line, LMCompressor.FLUSH_BLOCK)) == line
    assert not decompressor.eof and decompressor.needs_input
    assert decompressor.decompress(compressor.flush()) == b"" and decompressor.eof


def test_progress_is_told_within_blocks():
    data, target = fakes.text(10_000), io.BytesIO()
    told: list[int] = []
    with LMFile(target, "w", block_size=4096, threads=1, progress=told.append) as file:
        file.write(data)
    assert told == [2048, 4096, 6144, 8192, 9096, 10_000]  # the fake codec tells of the half
    told.clear()
    with LMFile(io.BytesIO(target.getvalue()), threads=1, progress=told.append) as file:
        assert file.read() == data
    assert told == [2048, 6144, 9096]
    told.clear()
    assert lmcompress.recover(target, None, progress=told.append).intact and told == [2048, 6144, 9096]


def test_frames_are_members():
    compressor = LMCompressor()
    coded = b"".join(compressor.compress(d, LMCompressor.FLUSH_FRAME) for d in (b"a", b"", b"b"))
    assert lmcompress.decompress(coded) == b"ab"
    assert len(lmcompress.get_archive_info(coded).members) == 3
    first = LMDecompressor()
    assert first.decompress(coded) == b"a" and len(lmcompress.decompress(first.unused_data)) == 1


def test_a_kilobyte_from_the_middle_of_50_megabytes(monkeypatch: pytest.MonkeyPatch):
    decoded, literal = [], BlockDecoder.literal
    monkeypatch.setattr(BlockDecoder, "literal", lambda self, *a: decoded.append(a) or literal(self, *a))
    data = b"".join(b"page %d" % i + b"." * 999_993 for i in range(50))
    coded = lmcompress.compress(data)
    with LMFile(io.BytesIO(coded)) as file:
        assert file.read_range(26_999_500, 1000) == data[26_999_500:27_000_500]
    assert len(decoded) == 1 and len(lmcompress.get_archive_info(coded).members[0].blocks) == 6


def test_random_access_decodes_what_it_needs(monkeypatch: pytest.MonkeyPatch):
    decoded, literal = [], BlockDecoder.literal
    monkeypatch.setattr(BlockDecoder, "literal", lambda self, *a: decoded.append(a) or literal(self, *a))
    data = fakes.text(2_000_000)
    coded = lmcompress.compress(data, block_size=1 << 14)
    with LMFile(io.BytesIO(coded)) as file:
        assert file.read_range(0, 1000) == data[:1000] and len(decoded) == 1
    decoded.clear()
    with LMFile(io.BytesIO(coded)) as file:
        assert file.read_range(1_000_000, 1000) == data[1_000_000:1_001_000]
        assert len(decoded) <= 2
        for back in (1_000_500, 1_000_000, 1_001_000):  # in the same block, or the next
            assert file.read_range(back, 100) == data[back : back + 100]
        assert len(decoded) <= 4


def damaged(block: int, threads: int) -> tuple[bytes, bytes]:
    """An archive of five blocks of 4 KiB with one that decodes to something else, and its content."""
    data = fakes.text(5 * 4096)
    coded = bytearray(lmcompress.compress(data, block_size=4096, threads=threads))
    coded[lmcompress.get_archive_info(coded).members[0].blocks[block].offset + 40] ^= 1
    return bytes(coded), data


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_blocks_at_once_are_the_same_archive(threads: int) -> None:
    data = fakes.text(40_000) + fakes.noise(9000) + fakes.text(100)
    coded = lmcompress.compress(data, block_size=4096, threads=1)
    assert lmcompress.compress(data, block_size=4096, threads=threads) == coded
    assert lmcompress.decompress(coded, threads=threads) == data
    decompressor = LMDecompressor(threads=threads)
    assert decompressor.decompress(coded) == data and decompressor.eof


@pytest.mark.parametrize(
    ("threads", "memory", "most"), [(4, 1 << 30, 4), (4, 3 * 20 * 4096, 2), (4, 20 * 4096 + 4096, 1)]
)
def test_blocks_at_once_share_threads_and_memory(
    monkeypatch: pytest.MonkeyPatch, threads: int, memory: int, most: int
) -> None:
    """As many as memory holds, each with its share of the threads; nobody goes on before all that may have begun have."""
    data = fakes.text(8 * 4096)
    coded = lmcompress.compress(data, block_size=4096)
    running, shares, lock, together = [0], list[int](), threading.Lock(), threading.Barrier(most, timeout=60)
    decode = fakes.FakeCodec.decode

    def counted(
        self: fakes.FakeCodec, payload: bytes, raw_size: int, learned: bool, progress: object, threads: int
    ) -> bytes:
        with lock:
            running[0] += 1
            assert running[0] <= most
            shares.append(threads)
        together.wait()
        with lock:
            running[0] -= 1
        together.wait()
        return decode(self, payload, raw_size)

    monkeypatch.setattr(fakes.FakeCodec, "decode", counted)
    assert lmcompress.decompress(coded, threads=threads, memory=memory) == data
    assert shares == [threads // most] * 8


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_before_the_damage_comes_first(threads: int) -> None:
    coded, data = damaged(3, threads)
    with LMFile(io.BytesIO(coded), threads=threads) as file:
        assert file.read(3 * 4096) == data[: 3 * 4096]
        for _ in range(2):
            with pytest.raises(lmcompress.CorruptError):
                file.read(1)
    decompressor, out = LMDecompressor(threads=threads), b""
    with pytest.raises(lmcompress.CorruptError):
        while True:
            out += decompressor.decompress(b"" if out else coded, 4096)
    assert out == data[: 3 * 4096]


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_end_is_not_the_end_before_the_digest_is_right(threads: int) -> None:
    data = fakes.text(20_000)
    compressor = LMCompressor(threads=1, block_size=4096)
    coded = compressor.compress(data)
    compressor._digest.update(b"and more")
    coded += compressor.flush()
    decompressor = LMDecompressor(threads=threads)
    assert decompressor.decompress(coded, len(data)) == data and not decompressor.eof
    with pytest.raises(lmcompress.CorruptError, match="SHA-256"):
        decompressor.decompress(b"")


@pytest.mark.parametrize("threads", [1, 3])
def test_what_fails_for_other_reasons_may_be_tried_again(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    data = fakes.text(5 * 4096)
    coded = lmcompress.compress(data, block_size=4096)
    decode, calls = fakes.FakeCodec.decode, list[int]()

    def fails(self: fakes.FakeCodec, payload: bytes, raw_size: int, *rest: object) -> bytes:
        calls.append(1)
        if threads == 1 and len(calls) == 2:
            raise MemoryError
        return decode(self, payload, raw_size)

    def interrupted(done: int) -> None:
        if len(calls) == 4 and not told:
            told.append(done)
            raise KeyboardInterrupt

    told: list[int] = []
    monkeypatch.setattr(fakes.FakeCodec, "decode", fails)
    out, errors = b"", list[type]()
    with LMFile(io.BytesIO(coded), threads=threads, progress=interrupted) as file:
        while len(out) < len(data):
            try:
                out += file.read1(4096)
            except (MemoryError, KeyboardInterrupt) as error:
                errors.append(type(error))
    assert out == data and (threads > 1 or MemoryError in errors)


@pytest.mark.parametrize("threads", [1, 3])
def test_what_is_interrupted_otherwise_leaves_nothing_out(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    data = fakes.text(5 * 4096)
    coded = lmcompress.compress(data, block_size=4096, check=False)
    content, calls = BlockDecoder.content, list[int]()

    def interrupted(*arguments: Any) -> bytes:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return content(*arguments)

    monkeypatch.setattr(BlockDecoder, "content", interrupted)
    decompressor = LMDecompressor(threads=threads)
    for piece in (coded, b""):  # the first block was decoded, too, and never returned
        with pytest.raises(KeyboardInterrupt):
            decompressor.decompress(piece)
    calls.clear()
    with LMFile(io.BytesIO(coded), threads=threads) as file:
        out = b""
        for _ in range(3):
            try:
                out += file.read1(4096)
            except KeyboardInterrupt:
                pass
    assert out == data[: len(out)] and len(calls) == 2


def test_content_that_could_not_be_written_is_not_left_out() -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 1000:
                raise OSError(28, "full")
            return super().write(data)

    file = LMFile(Full(), "w", block_size=1024, threads=1)
    for _ in range(2):
        with pytest.raises(OSError, match="full"):
            for i in range(9):
                file.write(random.Random(i).randbytes(1024))
    with pytest.raises(OSError, match="full"):
        file.close()


def test_wrong_types_spoil_nothing() -> None:
    target = io.BytesIO()
    with LMFile(target, "w") as file:
        for wrong in (memoryview(b"abcdef")[::2], "text", 5):
            with pytest.raises(TypeError):
                file.write(wrong)
        file.write(b"right")
    assert lmcompress.decompress(target.getvalue()) == b"right"
    for arguments in ({"block_size": 2000.5}, {"metadata": {"a": 1}}):
        with pytest.raises(TypeError):
            lmcompress.compress(b"", **arguments)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="memory"):
        lmcompress.decompress(target.getvalue(), memory=-1)
    for mode in ("br", "rbb", "tr", "rtt", "rw", ""):
        with pytest.raises(ValueError, match="mode"):
            lmcompress.open(io.BytesIO(), mode)


def test_small_members_do_not_gather_the_rest_of_the_file() -> None:
    coded = lmcompress.compress(b"a member")
    file = io.BytesIO(coded * (1_000_000 // len(coded)))
    with LMFile(file) as members:
        assert members.read(9_000) == b"a member" * 1125
        assert file.tell() == 1 << 18
        assert members.read() == b"a member" * (1_000_000 // len(coded) - 1125)


def test_a_writer_that_has_failed_makes_no_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = fakes.FakeCodec.encode

    def fails(self: fakes.FakeCodec, data: bytes, *rest: object) -> bytes:
        if data.startswith(b"bad"):
            raise MemoryError
        return encode(self, data)

    monkeypatch.setattr(fakes.FakeCodec, "encode", fails)
    for threads in (1, 3):
        compressor = LMCompressor(threads=threads, block_size=4096)
        with pytest.raises(MemoryError):
            compressor.compress(fakes.text(4096) + b"bad" + fakes.text(20_000, 1), LMCompressor.FLUSH_BLOCK)
        for _ in range(2):
            with pytest.raises(MemoryError):
                compressor.flush()


def test_progress_of_blocks_at_once_never_goes_back() -> None:
    data, told = fakes.text(300_000), list[int]()
    compressor = LMCompressor(threads=3, block_size=4096, progress=told.append)
    coded = compressor.compress(data) + compressor.flush()
    assert told == sorted(told) and told[-1] == len(data)
    told.clear()
    with LMFile(io.BytesIO(coded), threads=3, progress=told.append) as file:
        assert file.read() == data
    assert told == sorted(told)


def test_a_closed_reader_decodes_no_more(fake_codec: type[fakes.FakeCodec], monkeypatch: pytest.MonkeyPatch) -> None:
    ended, started, decode = threading.Event(), threading.Event(), fake_codec.decode

    def endless(
        self: fakes.FakeCodec,
        payload: bytes,
        raw_size: int,
        learned: bool,
        progress: Callable[[float], None],
        *rest: object,
    ) -> bytes:
        if raw_size == 4096:  # not the last
            return decode(self, payload, raw_size)
        try:
            while True:
                progress(0.5)
                started.set()
        finally:
            ended.set()

    monkeypatch.setattr(fakes.FakeCodec, "decode", endless)
    file = LMFile(io.BytesIO(lmcompress.compress(fakes.text(5000), block_size=4096)), threads=2)
    assert len(file.read1(10)) == 10 and started.wait(60)
    file.close()
    assert ended.wait(60)


def test_a_writer_left_open_does_not_hold_up_the_end(tmp_path: Path) -> None:
    code = "import lmcompress; from tests import fakes; fakes.install()\n"
    code += "file = lmcompress.LMFile('x.lmc', 'w', threads=2, block_size=4096); file.write(fakes.text(40_000))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=60, check=True)


@pytest.mark.parametrize("threads", [1, 3])
def test_the_limit_holds_for_blocks_at_once(threads: int) -> None:
    data = fakes.text(5 * 4096)
    coded = lmcompress.compress(data, block_size=4096)
    assert lmcompress.decompress(coded, threads=threads, max_output=5 * 4096) == data
    decompressor, out = LMDecompressor(threads=threads, max_output=4 * 4096), b""
    with pytest.raises(lmcompress.LimitError):
        while True:
            out += decompressor.decompress(b"" if out else coded, 4096)
    assert out == data[: 4 * 4096]


def test_content_of_known_size_is_cut_evenly() -> None:
    data = fakes.text(1 << 20) * 20
    sizes = [block.raw_size for block in lmcompress.get_archive_info(lmcompress.compress(data)).members[0].blocks]
    assert sizes == [-(-len(data) // 3), -(-len(data) // 3), len(data) - 2 * -(-len(data) // 3)]
    compressor = LMCompressor()
    coded = compressor.compress(data) + compressor.flush()
    assert [b.raw_size for b in lmcompress.get_archive_info(coded).members[0].blocks] == [
        1 << 23,
        1 << 23,
        len(data) - (1 << 24),
    ]
    assert lmcompress.decompress(coded) == data


class Pipe(io.RawIOBase):
    """A stream that cannot seek and gives a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return self._data.read(min(size, 777) if size >= 0 else size)


class Narrow(io.RawIOBase):
    """A raw file that takes seven bytes at a time, and `most` of them."""

    def __init__(self, most: int) -> None:
        self.taken, self._most = b"", most

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int | None:
        taken = bytes(data)[: min(7, self._most - len(self.taken))]  # type: ignore[call-overload]
        self.taken += taken
        return len(taken) or None


def test_files_that_take_a_part_at_a_time() -> None:
    data = fakes.text(9000)
    target, out = Narrow(1 << 20), Narrow(1 << 20)
    with LMFile(target, "w", block_size=4096) as file:
        file.write(data)
        file.flush(LMCompressor.FLUSH_BLOCK)
    assert lmcompress.decompress(target.taken) == data
    lmcompress.recover(io.BytesIO(target.taken), out)
    assert out.taken == data
    with pytest.raises(BlockingIOError):
        lmcompress.recover(io.BytesIO(target.taken), Narrow(100))
    with pytest.raises(BlockingIOError):
        LMFile(Narrow(10), "w").close()


def test_streams_that_cannot_seek():
    data = fakes.text(50_000)
    file = LMFile(Pipe(lmcompress.compress(data, block_size=4096)))
    assert not file.seekable()
    assert file.read(10) == data[:10]
    file.seek(30_000)  # forwards is reading
    assert file.read(10) == data[30_000:30_010]
    with pytest.raises(io.UnsupportedOperation):
        file.seek(0)
    with pytest.raises(io.UnsupportedOperation):
        file.seek(0, io.SEEK_END)
    with pytest.raises(ValueError, match="whence"):
        file.seek(5, 9)
    assert file.read() == data[30_010:]


def test_a_stream_gives_a_block_before_the_next_is_there() -> None:
    """However many threads there are: the next may be long in coming."""
    compressor = LMCompressor(threads=4)
    first = compressor.compress(fakes.text(1000), LMCompressor.FLUSH_BLOCK)

    class Stream(Pipe):
        def read(self, size: int = -1) -> bytes:
            data = super().read(size)
            assert data, "a real stream would wait here"
            return data

    assert LMFile(Stream(first), threads=4).read1(1000) == fakes.text(1000)


def test_seekable_files_that_give_a_few_bytes_at_a_time() -> None:
    class Short(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(7 if size is None or size < 0 else min(size, 7))

    data = fakes.text(20_000)
    coded = lmcompress.compress(data, block_size=4096, metadata={"a": "b"})
    assert LMFile(Short(coded)).read_range(9000, 100) == data[9000:9100]
    assert lmcompress.get_archive_info(Short(coded)) == lmcompress.get_archive_info(coded)
    out = io.BytesIO()
    assert lmcompress.recover(Short(coded), out).intact and out.getvalue() == data
    out = io.BytesIO()
    assert not lmcompress.recover(Short(coded[:-1]), out).intact and out.getvalue() == data


def test_a_member_that_cannot_be_read_costs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    good = lmcompress.compress(fakes.text(900))
    foreign = lmcompress.compress(fakes.text(800), model="other")
    later = bytes(Writer(good[:7] + b"\x02" + good[8 : 9 + good[8]]).crc()) + good[13 + good[8] :]
    load = fakes.load_for_reading

    def refusing(header: Header, *rest: Any) -> fakes.FakeCodec:
        if header.model_digest == fakes.DIGESTS["other"]:
            raise lmcompress.UnsupportedError("parameters")
        return load(header, *rest)

    for patched, unreadable, error in (
        (load, foreign, lmcompress.MissingModelError),
        (refusing, foreign, lmcompress.UnsupportedError),
        (load, later, lmcompress.UnsupportedError),
    ):
        monkeypatch.setattr(methods, "load_for_reading", patched)
        for coded in (unreadable + good, good + unreadable, unreadable + good[:-1]):
            out = io.BytesIO()
            result = lmcompress.recover(coded, out)
            assert fakes.text(900) in out.getvalue() and result.lost and not result.intact
        with pytest.raises(error):
            lmcompress.recover(unreadable, None)


def test_paths_of_any_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.lmc"
    with LMFile(os.fsencode(path), "w") as file:
        file.write(b"text")
    with lmcompress.open(os.fsencode(path)) as file:
        assert file.read() == b"text"
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes())):
        out = io.BytesIO()
        assert lmcompress.recover(source, out).intact and out.getvalue() == b"text"


def test_wrong_arguments_are_all_that_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "a.lmc"
    path.write_bytes(lmcompress.compress(b"text"))
    code = f"import lmcompress; lmcompress.open({str(path)!r}, threads=-1)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert done.stderr.endswith("ValueError: -1 threads\n") and "ignored" not in done.stderr


def test_modes(tmp_path: Path):
    path = tmp_path / "a.lmc"
    with lmcompress.open(path, "xt", encoding="utf-8", newline="\n") as file:
        file.write("Grüße\n")
        with pytest.raises(io.UnsupportedOperation):
            file.read()
    with pytest.raises(FileExistsError):
        lmcompress.open(path, "x")
    with lmcompress.open(path, "ab") as file:
        file.write("再见\n".encode())
    with lmcompress.open(path, "rt", encoding="utf-8") as file:
        assert list(file) == ["Grüße\n", "再见\n"]
    with lmcompress.open(path) as file:
        assert file.name == str(path) and file.readable() and not file.writable() and file.fileno() > 0
        assert file.mode == "r"
        with pytest.raises(io.UnsupportedOperation):
            file.write(b"")
        buffer = bytearray(4)
        assert file.readinto(buffer) == 4 and file.readline() == b"\xc3\x9fe\n"
    assert file.closed
    for call in (file.read, file.tell, file.peek, file.readable, lambda: file.write(b"")):
        with pytest.raises(ValueError):
            call()
    with lmcompress.open(path, "w") as file:
        file.write(memoryview(b"new"))
        file.flush()
    assert lmcompress.decompress(path.read_bytes()) == b"new"


def test_files_are_not_closed_for_their_owner():
    target = io.BytesIO()
    with LMFile(target, "w") as file:
        file.write(b"x")
    assert not target.closed


def test_an_error_stays():
    """Whoever goes on after an error must not be given what follows the damaged block as if nothing were missing."""
    coded = bytearray(lmcompress.compress(fakes.text(9000), block_size=1024, check=False))
    coded[lmcompress.get_archive_info(coded).members[0].blocks[3].offset + 50] ^= 1
    decompressor = LMDecompressor()
    assert len(decompressor.decompress(coded, 3000)) == 3000
    for _ in range(3):
        with pytest.raises(lmcompress.CorruptError):
            decompressor.decompress(b"")
    with LMFile(io.BytesIO(coded)) as file:
        for _ in range(3):
            with pytest.raises(lmcompress.CorruptError):
                file.read()


def test_a_wrong_digest_stays() -> None:
    """In the middle and at the end: what follows is not taken for the rest, nor the end for a good one."""
    compressor = LMCompressor()
    coded = compressor.compress(b"one")
    compressor._digest.update(b"and more")
    coded += compressor.flush()
    for data in (coded, coded + lmcompress.compress(b"two")):
        with LMFile(io.BytesIO(data)) as file:
            assert file.read1(3) == b"one"
            for _ in range(3):
                with pytest.raises(lmcompress.CorruptError, match="SHA-256"):
                    file.read()
            assert file.read_range(1, 2) == b"ne"


def test_ranges_from_several_threads() -> None:
    class Slow(LMFile):
        def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
            place = super().seek(offset, whence)
            time.sleep(0.001)  # for another thread to come between
            return place

    def check(seed: int) -> None:
        rng = random.Random(seed)
        for offset in rng.sample(range(len(data)), 20):
            if file.read_range(offset, 50) != data[offset : offset + 50]:
                wrong.append(offset)

    data, wrong = fakes.text(40_000), list[int]()
    with Slow(io.BytesIO(lmcompress.compress(data, block_size=4096))) as file:
        threads = [threading.Thread(target=check, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_what_can_be_pickled(tmp_path: Path):
    info = lmcompress.get_archive_info(lmcompress.compress(b"x", metadata={"a": "b"}))
    error = lmcompress.TruncatedError("cut")
    assert pickle.loads(pickle.dumps(info)) == info
    assert str(pickle.loads(pickle.dumps(error))) == "cut"
    for busy in (LMCompressor(), LMDecompressor(), LMFile(io.BytesIO(), "w")):
        with pytest.raises(TypeError):
            pickle.dumps(busy)


def test_pickle_through_a_file():
    things = [{"a": list(range(100))}, "text" * 1000, b"\0" * 5000]
    target = io.BytesIO()
    with LMFile(target, "w") as file:
        for thing in things:
            pickle.dump(thing, file)
    target.seek(0)
    with LMFile(target) as file:
        assert [pickle.load(file) for _ in things] == things


def test_tarfile_through_a_file():
    target = io.BytesIO()
    with LMFile(target, "w", block_size=4096) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for i in range(30):
            member = tarfile.TarInfo(f"{i}.txt")
            member.size = 1000 + i
            tar.addfile(member, io.BytesIO(fakes.text(1000 + i, i)))
    target.seek(0)
    with LMFile(target) as file, tarfile.open(fileobj=file) as tar:
        assert tar.extractfile("17.txt").read() == fakes.text(1017, 17)
        assert tar.extractfile("3.txt").read() == fakes.text(1003, 3)
        assert len(tar.getnames()) == 30


def test_archive_helper(tmp_path: Path):
    tree = tmp_path / "letters"
    (tree / "old").mkdir(parents=True)
    (tree / "a.txt").write_bytes(fakes.text(20_000))
    (tree / "old" / "b.txt").write_bytes(fakes.text(30_000, 1))
    told: list[tuple[str, int]] = []

    def stop(name: str, done: int) -> None:
        raise RuntimeError

    path = tmp_path / "letters.tar.lmc"
    archive.create(path, tree, progress=lambda name, done: told.append((name, done)), block_size=8192)
    assert [name for name, _ in told] == [m.name for m in archive.members(path)]
    assert archive.read(path, "letters/old/b.txt") == fakes.text(30_000, 1)
    for wrong in ("letters/c.txt", "letters/old"):
        with pytest.raises(KeyError):
            archive.read(path, wrong)
    with pytest.raises(FileExistsError):
        archive.create(path, tree)
    with pytest.raises(RuntimeError):
        archive.create(tmp_path / "half.tar.lmc", tree, progress=stop)
    assert sorted(os.listdir(tmp_path)) == ["letters", "letters.tar.lmc"]
    archive.extract(path, tmp_path / "out")
    assert (tmp_path / "out/letters/a.txt").read_bytes() == fakes.text(20_000)
    assert archive.verify(path).intact


@pytest.mark.parametrize("block_size", [2048, 1 << 20])
def test_a_tree_from_an_archive_that_is_cut_is_an_error(tmp_path: Path, block_size: int) -> None:
    """Also where all that tar needs is there."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.txt").write_bytes(fakes.text(5000))
    archive.create(tmp_path / "whole.tar.lmc", tmp_path / "tree", block_size=block_size)
    whole = (tmp_path / "whole.tar.lmc").read_bytes()
    for cut in (1, 9, 26):
        (tmp_path / "cut.tar.lmc").write_bytes(whole[:-cut])
        with pytest.raises(lmcompress.LMCompressError):
            archive.extract(tmp_path / "cut.tar.lmc", tmp_path / f"out{cut}")
    archive.extract(tmp_path / "whole.tar.lmc", tmp_path / "out")
    assert (tmp_path / "out/tree/a.txt").read_bytes() == fakes.text(5000)


def test_memory_is_bounded():
    """40 MB through the classes in blocks of 64 KiB: neither holds more than a few blocks."""
    tracemalloc = pytest.importorskip("tracemalloc")
    piece = b"the same line again and again\n" * 4000
    compressor, decompressor, total = LMCompressor(block_size=1 << 16), LMDecompressor(), 0
    tracemalloc.start()
    for _ in range(40_000_000 // len(piece)):
        total += len(decompressor.decompress(compressor.compress(piece)))
    total += len(decompressor.decompress(compressor.flush()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total == 40_000_000 // len(piece) * len(piece) and decompressor.eof
    assert peak < 3_000_000


def test_readme_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import doctest

    monkeypatch.chdir(tmp_path)
    readme = Path(__file__).parents[1] / "README.md"
    failed, tried = doctest.testfile(str(readme), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert tried and not failed
    assert os.path.exists("letters.lmc")

"""From text to an archive and back with the real codec and a model file: what the other tests' fake codec stands for."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import lmcompress
from lmcompress import choice, methods, modelfile
from tests.forks import status_of
from tests.models import random_model

TEXT = (Path(__file__).parents[1] / "corpora" / "samples" / "alice29.txt").read_bytes()[:6000]
INPUTS = {
    "text": TEXT,
    "one byte": b"?",
    "zeros": bytes(3000),
    "invalid UTF-8": TEXT[:500] + bytes(range(128, 256)) + TEXT[500:900],
}


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network_used: None) -> str:
    """The file of a model of random weights; neither zstd nor learning without it wins, so that it is used."""
    path = tmp_path / "random.lmm"
    path.write_bytes(modelfile.dumps(random_model()))
    monkeypatch.setattr(methods, "_zstd_compress", lambda data, level: data + b"longer")
    return str(path)


@pytest.mark.parametrize("level", [1, 4])
@pytest.mark.parametrize("name", INPUTS)
def test_there_and_back(model: str, name: str, level: int):
    data = INPUTS[name]
    archive = lmcompress.compress(data, level, model=model, threads=1)
    assert lmcompress.decompress(archive, model=model, threads=2) == data
    (member,) = lmcompress.get_archive_info(archive).members
    if len(data) > 1000:
        assert [b.method for b in member.blocks] == ["lm"]
        assert member.model_digest == modelfile.load(model).digest.hex()
        with pytest.raises(lmcompress.MissingModelError, match="random"):
            lmcompress.decompress(archive)


@pytest.mark.parametrize("name", INPUTS)
def test_there_and_back_without_a_network_that_knows_nothing(
    model: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "STRANGE", 100)
    data = INPUTS[name]
    archive = lmcompress.compress(data, 4, model=model, threads=1)
    assert lmcompress.decompress(archive, model=model, threads=2) == data
    (block,) = lmcompress.get_archive_info(archive).members[0].blocks
    assert block.method == ("learned" if len(data) > 1000 else "stored")


def test_a_model_that_is_loaded_once(model: str):
    loaded = lmcompress.Model.load(model)
    coded = lmcompress.compress(TEXT, 3, model=loaded, threads=1)
    assert coded == lmcompress.compress(TEXT, 3, model=Path(model)) == lmcompress.compress(TEXT, 3, model=model)
    assert lmcompress.get_archive_info(coded).members[0].model_digest == loaded.model_id
    assert lmcompress.decompress(coded, model=loaded) == TEXT
    with pytest.raises(lmcompress.MissingModelError):
        lmcompress.Model.load("no such model")


def test_memory_is_refused_before_it_is_taken(model: str):
    coded = lmcompress.compress(TEXT, 3, model=model)
    assert lmcompress.decompress(coded, model=model, memory=96 << 20) == TEXT
    for memory in (76 << 20, len(TEXT), 0):
        with pytest.raises(lmcompress.LimitError):
            lmcompress.decompress(coded, model=model, memory=memory)


def test_progress_within_a_block(model: str):
    for level in (1, 3):
        told: list[int] = []
        coded = lmcompress.LMCompressor(level, model=model, progress=told.append).compress(TEXT, 2)
        back: list[int] = []
        assert lmcompress.LMFile(io.BytesIO(coded), model=model, progress=back.append).read() == TEXT
        for seen in (told, back):
            assert len(seen) > 10 and seen == sorted(seen) and seen[-1] <= len(TEXT)


def test_threads_may_share_a_model(model: str):
    def round_trip(i: int) -> bool:
        text = TEXT[100 * i : 100 * i + 1500]
        return (
            lmcompress.decompress(lmcompress.compress(text, 3, model=model, threads=2), model=model, threads=2) == text
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(round_trip, range(12)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_does_not_wait_for_its_parents_threads(model: str):
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            lmcompress.compress(TEXT, 3, model=model, threads=2)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(8):
            time.sleep(0.01 * i)
            child = os.fork()
            if child == 0:
                lmcompress.compress(TEXT[:300], 3, model=model, threads=2)
                os._exit(0)
            assert status_of(child) == 0
    finally:
        stop.set()
        thread.join()


def test_blocks_are_independent(model: str):
    archive = bytearray(lmcompress.compress(TEXT, 4, model=model, block_size=2048))
    first = lmcompress.get_archive_info(archive).members[0].blocks[0]
    archive[first.offset + 50] ^= 1
    with pytest.raises(lmcompress.CorruptError):
        lmcompress.decompress(archive, model=model)
    out = io.BytesIO()
    result = lmcompress.recover(io.BytesIO(archive), out, model=model)
    assert out.getvalue() == TEXT[2048:] and len(result.lost) == 1


def test_a_damaged_model_does_not_decode(model: str):
    archive = lmcompress.compress(TEXT, 4, model=model)
    data = bytearray(Path(model).read_bytes())
    data[-20] ^= 1
    Path(model).write_bytes(data)
    with pytest.raises(lmcompress.LMCompressError):
        lmcompress.decompress(archive, model=model)


@pytest.mark.skipif("fast" not in modelfile.shipped(), reason="no model ships yet")
@pytest.mark.parametrize("level", methods.LEVELS)
def test_every_level(level: int):
    archive = lmcompress.compress(TEXT, level)
    assert lmcompress.decompress(archive) == TEXT
    assert len(archive) < 0.45 * len(TEXT)


@pytest.mark.parametrize("level", [1, 3])
@pytest.mark.parametrize("loaded", [False, True])
def test_a_file_that_is_closed_as_the_interpreter_ends_is_whole(tmp_path: Path, level: int, loaded: bool) -> None:
    path = tmp_path / "log.lmc"
    code = (
        "import atexit, sys, lmcompress\n"
        f"if {loaded}: lmcompress.compress(b'warm and loaded, ' * 50, {level})\n"
        f"file = lmcompress.open({str(path)!r}, 'wb', level={level}, block_size=2048)\n"
        "atexit.register(file.close)\n"
        "file.write(open(sys.argv[1], 'rb').read(5000))\n"
    )
    (tmp_path / "text").write_bytes(TEXT)
    command = [sys.executable, "-c", code, str(tmp_path / "text")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert lmcompress.decompress(path.read_bytes()) == TEXT[:5000]

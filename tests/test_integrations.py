"""Other libraries read and write .lmc; the real packages, where they are installed."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import lmcompress
from lmcompress import archive, integrations
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_codec")


def package(name: str) -> Any:
    """A package that is another's; `make test` has them all, and there a missing one is an error."""
    return importlib.import_module(name) if os.environ.get("LMC_TEST_ALL") else pytest.importorskip(name)


@pytest.fixture(autouse=True)
def registered():
    integrations.register()
    integrations.register()  # again is harmless


def test_shutil(tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep/a.txt").write_bytes(fakes.text(5000))
    made = shutil.make_archive(str(tmp_path / "made"), "lmctar", tree)
    assert made == str(tmp_path / "made.tar.lmc")
    shutil.unpack_archive(made, tmp_path / "out")
    assert (tmp_path / "out/deep/a.txt").read_bytes() == fakes.text(5000)


def test_shutil_leaves_out_what_it_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_bytes(fakes.text(5000))
    Path("made.tar.lmc").write_bytes(b"to be replaced")
    made = shutil.make_archive("made", "lmctar")
    assert [member.name for member in archive.members(made)] == [".", "./a.txt"]


def test_shutil_makes_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tree").mkdir()
    monkeypatch.chdir(tmp_path)
    shutil.make_archive("new/deep/made", "lmctar", tmp_path / "tree", dry_run=True)
    assert not Path("new").exists()
    for _ in range(2):
        shutil.make_archive("new/deep/made", "lmctar", tmp_path / "tree")
        assert os.listdir("new/deep") == ["made.tar.lmc"]


def test_shutil_passes_a_filter(tmp_path: Path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to("/somewhere")
    made = shutil.make_archive(str(tmp_path / "made"), "lmctar", tmp_path / "tree")
    for i, careful in enumerate([{}, {"filter": None}, {"filter": "data"}]):
        with pytest.raises(lmcompress.UnsupportedError, match="link"):
            shutil.unpack_archive(made, tmp_path / f"out{i}", **careful)
        assert os.listdir(tmp_path / f"out{i}") == []
    shutil.unpack_archive(made, tmp_path / "out", filter="fully_trusted")
    assert os.readlink(tmp_path / "out/link") == "/somewhere"


def test_fsspec(tmp_path: Path):
    fsspec = package("fsspec")
    path = tmp_path / "a.txt.lmc"
    with fsspec.open(str(path), "wb", compression="lmcompress") as file:
        file.write(fakes.text(5000))
    assert lmcompress.decompress(path.read_bytes()) == fakes.text(5000)
    with fsspec.open(str(path), "rb", compression="infer") as file:
        assert file.read() == fakes.text(5000)
    with fsspec.open(str(path), "rt", compression="infer") as file:
        assert file.readline() == fakes.text(5000).decode().splitlines(True)[0]


def test_pandas(tmp_path: Path):
    pandas = package("pandas")
    fsspec = package("fsspec")
    table = pandas.DataFrame({"n": range(100), "word": ["some", "words"] * 50})
    path = tmp_path / "table.csv.lmc"
    with lmcompress.open(path, "wt", encoding="utf-8", newline="") as file:
        table.to_csv(file, index=False)
    with fsspec.open(str(path), "rb", compression="infer") as file:
        assert pandas.read_csv(file).equals(table)


def test_smart_open(tmp_path: Path):
    smart_open = package("smart_open")
    path = str(tmp_path / "a.txt.lmc")
    with smart_open.open(path, "wb") as file:
        file.write(fakes.text(5000))
    assert lmcompress.decompress(Path(path).read_bytes()) == fakes.text(5000)
    with smart_open.open(path, "rb") as file:
        assert file.read() == fakes.text(5000)


def test_numcodecs():
    numcodecs = package("numcodecs")
    from lmcompress.numcodec import LMNumcodec

    numcodecs.register_codec(LMNumcodec)
    codec = numcodecs.get_codec({"id": "lmcompress", "level": 3})
    assert codec.get_config() == {"id": "lmcompress", "level": 3, "model": None}
    coded = codec.encode(fakes.text(900))
    assert bytes(codec.decode(coded)) == fakes.text(900)
    out = bytearray(900)
    codec.decode(coded, out)
    assert bytes(out) == fakes.text(900)


def test_numcodecs_finds_it_by_its_entry_point():
    package("numcodecs")
    from importlib.metadata import entry_points

    found = [e for e in entry_points(group="numcodecs.codecs") if e.name == "lmcompress"]
    if not found and not os.environ.get("LMC_TEST_ALL"):
        pytest.skip("lmcompress is not installed, only importable")
    assert found[0].load().codec_id == "lmcompress"


def test_zarr(tmp_path: Path):
    zarr = package("zarr")
    numpy = package("numpy")
    from lmcompress.numcodec import LMNumcodec

    words = numpy.array([w.decode() for w in fakes.text(3000).split()], dtype="U20")
    array = zarr.create_array(
        store=str(tmp_path / "z"),
        shape=words.shape,
        chunks=(100,),
        dtype=words.dtype,
        zarr_format=2,
        compressors=LMNumcodec(),
    )
    array[:] = words
    assert (zarr.open_array(str(tmp_path / "z"), mode="r")[:] == words).all()

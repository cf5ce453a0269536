"""Trees that are packed and restored where something stands in the way."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from lmcompress import archive
from lmcompress.errors import UnsupportedError
from tests import fakes

pytestmark = pytest.mark.usefixtures("fake_codec")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def names(path: str) -> list[str]:
    return [member.name for member in archive.members(path)]


def odd(path: str, *added: tuple[str, bytes, str]) -> None:
    """An archive of empty files of any kind: names, types, and where links lead to."""
    with archive.new_tar(path, True) as tar:
        for name, kind, link in added:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, link
            tar.addfile(member, io.BytesIO())


@pytest.mark.parametrize("given", ["link", "link/", "../{}/link"])
def test_a_link_to_a_folder_is_followed(folder: Path, given: str) -> None:
    Path("tree").mkdir()
    Path("tree/a.txt").write_bytes(fakes.text(500))
    Path("tree/inner").symlink_to("a.txt")
    Path("link").symlink_to("tree")
    archive.create("made.tar.lmc", given.format(folder.name))
    assert names("made.tar.lmc") == ["link", "link/a.txt", "link/inner"]
    archive.extract("made.tar.lmc", "out")
    assert Path("out/link/a.txt").read_bytes() == fakes.text(500) and os.readlink("out/link/inner") == "a.txt"


@pytest.mark.parametrize("given", [".", "../tree", "deep/.."])
def test_a_folder_has_a_name(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tree/deep").mkdir(parents=True)
    monkeypatch.chdir("tree")
    archive.create("../made.tar.lmc", given)
    assert names("../made.tar.lmc") == ["tree", "tree/deep"]


def test_an_archive_is_not_in_itself() -> None:
    Path("tree").mkdir()
    Path("tree/a.txt").write_bytes(fakes.text(500))
    archive.create("tree/made.tar.lmc", "tree")
    assert names("tree/made.tar.lmc") == ["tree", "tree/a.txt"]
    archive.create("tree/other.tar.lmc", "tree")
    assert names("tree/other.tar.lmc") == ["tree", "tree/a.txt", "tree/made.tar.lmc"]
    with archive.new_tar("tree/other.tar.lmc", True) as tar:
        tar.add("tree")
    assert names("tree/other.tar.lmc") == ["tree", "tree/a.txt", "tree/made.tar.lmc"]


def test_what_is_refused_keeps_nothing_else_from_being_restored() -> None:
    odd(
        "odd.tar.lmc",
        ("absolute", tarfile.SYMTYPE, "/somewhere"),
        ("pipe", tarfile.FIFOTYPE, ""),
        ("../outside", tarfile.REGTYPE, ""),
        ("hard", tarfile.LNKTYPE, "./absolute"),
        ("harder", tarfile.LNKTYPE, "hard"),
        ("good", tarfile.REGTYPE, ""),
        ("link", tarfile.SYMTYPE, "good"),
        ("same", tarfile.LNKTYPE, "good"),
    )
    with pytest.raises(UnsupportedError) as caught:
        archive.extract("odd.tar.lmc", "out")
    assert all(repr(name) in str(caught.value) for name in ("absolute", "pipe", "../outside", "hard", "harder"))
    assert isinstance(caught.value.__cause__, tarfile.FilterError)
    assert sorted(os.listdir("out")) == ["good", "link", "same"] and not Path("outside").exists()


def test_a_message_names_only_so_many() -> None:
    odd("odd.tar.lmc", *((f"pipe{i}", tarfile.FIFOTYPE, "") for i in range(100)))
    with pytest.raises(UnsupportedError, match="; 80 more$"):
        archive.extract("odd.tar.lmc", "out")


def test_filters() -> None:
    odd("odd.tar.lmc", ("absolute", tarfile.SYMTYPE, "/somewhere"), ("good", tarfile.REGTYPE, ""))
    with pytest.raises(ValueError, match="'no'"):
        archive.extract("odd.tar.lmc", "out", filter="no")
    archive.extract("odd.tar.lmc", "out", filter=lambda member, _: None if member.issym() else member)
    assert os.listdir("out") == ["good"]
    archive.extract("odd.tar.lmc", "out", filter="tar")
    assert os.readlink("out/absolute") == "/somewhere"


def test_a_python_without_filters_restores_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    odd("odd.tar.lmc", ("good", tarfile.REGTYPE, ""))
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(UnsupportedError, match="3.10.12"):
        archive.extract("odd.tar.lmc", "out")
    assert not Path("out").exists()

"""Trees that are packed and restored, and outputs that appear under their names, where something stands in the way."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from lmcompress import archive, paths
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


def failing(error: int) -> Any:
    """A call of the system that fails, and names what it was given."""

    def call(*arguments: Any) -> None:
        raise OSError(error, os.strerror(error), str(arguments[0]), None, *map(str, arguments[1:]))

    return call


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


@pytest.mark.parametrize("force", [False, True])
def test_what_can_never_be_made_is_refused_before_the_work(folder: Path, force: bool) -> None:
    Path("folder").mkdir()
    for name, kind in (("folder", errno.EEXIST), ("x" * 257, errno.ENAMETOOLONG), ("no/x", errno.ENOENT)):
        with pytest.raises(OSError) as caught:
            paths.Output(Path(name), force)
        assert (caught.value.errno, caught.value.filename) == (kind, name)
    assert os.listdir(folder) == ["folder"]


@pytest.mark.parametrize(("call", "force"), [("replace", True), ("link", False), ("fsync", False)])
def test_what_fails_late_names_the_file(call: str, force: bool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, failing(errno.EIO))
    with pytest.raises(OSError) as caught, paths.Output(Path("a.txt"), force) as output:
        output.commit(None)
    assert (caught.value.errno, caught.value.filename, caught.value.filename2) == (errno.EIO, "a.txt", None)
    assert not os.listdir(folder)


@pytest.mark.parametrize("name", ["EPERM", "EOPNOTSUPP", "EMLINK", "ENOSYS", "EACCES"])
def test_where_there_are_no_links_a_file_is_renamed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(getattr(errno, name)))
    with pytest.raises(FileExistsError), paths.Output(Path("a.txt"), False) as output:
        Path("a.txt").write_bytes(b"meanwhile")
        output.commit(None)
    assert Path("a.txt").read_bytes() == b"meanwhile"
    os.unlink("a.txt")
    with paths.Output(Path("a.txt"), False) as output:
        output.commit(None)
    assert os.listdir() == ["a.txt"]


@pytest.mark.parametrize("name", ["EEXIST", "EIO", "ENOSPC"])
def test_where_a_link_fails_otherwise_nothing_is_renamed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "link", failing(getattr(errno, name)))
    with pytest.raises(OSError) as caught, paths.Output(Path("a.txt"), False) as output:
        output.commit(None)
    assert caught.value.errno == getattr(errno, name) and not os.listdir()


def test_the_file_that_tells_the_umask_is_never_left(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known, real = [], os.open

    def interrupted(path: Any, *rest: Any) -> int:
        known.append(Path(path) in paths._unfinished)
        made = real(path, *rest)
        if Path(path).suffix == ".new":
            os.close(made)
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(os, "open", interrupted)
    with pytest.raises(KeyboardInterrupt), paths.Output(Path("a.txt"), False) as output:
        output.commit(None)
    assert known == [True, True] and not paths._unfinished and not os.listdir(folder)

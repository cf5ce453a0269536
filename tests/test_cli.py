"""The command: what it makes, keeps, refuses, and says; whole processes where signals, pipes and terminals matter."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest

import lmcompress
from lmcompress import cli, modelfile, paths
from tests import fakes

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-m", "tests.fakes"]  # the command with the fake codec
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
TEXT = fakes.text(20_000)

pytestmark = pytest.mark.usefixtures("fake_codec")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("LMC_LEVEL", "LMC_THREADS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "a.txt").write_bytes(TEXT)
    return tmp_path


class Result:
    """What a run of the command in this process left."""

    def __init__(self, code: int, out: bytes, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def lmc(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """The command in this process: lmc(*arguments, stdin=b"...")."""

    def run(*arguments: object, stdin: bytes = b"") -> Result:
        out = io.TextIOWrapper(io.BytesIO(), write_through=True)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
            patch.setattr(sys, "stdout", out)
            code = cli._guarded(cli.command, [str(a) for a in arguments])
        return Result(code, out.buffer.getvalue(), capsys.readouterr().err)

    return run


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.endswith(".tmp")]


def test_there_and_back(lmc, folder):
    os.utime("a.txt", (1_000_000_000, 1_100_000_000))
    os.chmod("a.txt", 0o640)
    result = lmc("a.txt")
    assert (result.code, result.out, result.err) == (0, b"", "")
    assert lmcompress.decompress(Path("a.txt.lmc").read_bytes()) == TEXT == Path("a.txt").read_bytes()
    os.unlink("a.txt")
    assert lmc("-d", "a.txt.lmc").code == 0
    for name in ("a.txt", "a.txt.lmc"):
        status = os.stat(name)
        assert stat.S_IMODE(status.st_mode) == 0o640 and status.st_mtime == 1_100_000_000
    assert Path("a.txt").read_bytes() == TEXT and not leftovers(folder)


def test_filter(lmc):
    coded = lmc(stdin=TEXT)
    assert coded.code == 0 and lmc("-d", stdin=coded.out).out == TEXT
    assert lmc("-dc", "-", stdin=coded.out).out == TEXT
    assert lmc("-c", "a.txt").out == coded.out
    assert lmc("-d", stdin=b"").code == 1


def test_output_name(lmc):
    assert lmc("-o", "x", "a.txt").code == 0
    assert lmc("-d", "-o", "y", "x").code == 0
    assert Path("y").read_bytes() == TEXT
    assert lmc("-o", "a.txt", "-f", "a.txt").code == 1  # its own source
    assert Path("a.txt").read_bytes() == TEXT
    Path("b.txt").write_bytes(b"b")
    assert lmc("-o", "both", "a.txt", "b.txt").code == 0
    assert lmc("-dc", "both").out == TEXT + b"b"
    assert lmc("-o", "none", "a.txt", "missing").code == 1 and not os.path.exists("none")
    assert lmc("--rm", "-o", "z", "-", stdin=TEXT).code == 0 and lmc("-dc", "z").out == TEXT
    assert lmc("--rm", "-o", "z", "-f", "a.txt").code == 0 and not os.path.exists("a.txt")


def test_a_device_is_written_to_and_not_replaced(lmc):
    assert lmc("-f", "-o", "/dev/null", "a.txt").code == 0
    assert not os.path.isfile("/dev/null")


def test_nothing_is_overwritten(lmc):
    Path("a.txt.lmc").write_bytes(b"precious")
    result = lmc("a.txt")
    assert result.code == 1 and "already exists" in result.err and Path("a.txt.lmc").read_bytes() == b"precious"
    assert lmc("-f", "a.txt").code == 0
    assert lmc("-d", "a.txt.lmc").code == 1
    assert lmc("-df", "a.txt.lmc").code == 0


def test_source_is_kept_or_removed(lmc):
    assert lmc("a.txt").code == 0 and os.path.exists("a.txt")
    assert lmc("--rm", "-f", "a.txt").code == 0 and not os.path.exists("a.txt")
    assert lmc("-d", "--rm", "a.txt.lmc").code == 0 and not os.path.exists("a.txt.lmc")
    assert lmc("--rm", "-k", "a.txt").code == 0 and os.path.exists("a.txt")
    damaged = bytearray(Path("a.txt.lmc").read_bytes())
    damaged[100] ^= 1
    Path("a.txt.lmc").write_bytes(damaged)
    assert lmc("-df", "--rm", "a.txt.lmc").code == 1 and os.path.exists("a.txt.lmc")
    assert Path("a.txt").read_bytes() == TEXT
    assert lmc("--rm", "-c", "a.txt").code == 0 and os.path.exists("a.txt")


def test_what_is_skipped(lmc, folder):
    lmc("a.txt")
    os.symlink("a.txt", "link")
    os.link("a.txt", "second")
    os.mkdir("dir")
    for name, why in {
        "a.txt.lmc": "suffix", "link": "symbolic link", "second": "other links", "dir": "directory",
    }.items():  # fmt: skip
        result = lmc(name)
        assert result.code == 2 and why in result.err, name
        assert lmc("-q", name).err == ""
    assert lmc("-d", "a.txt").code == 2
    assert lmc("-f", "link").code == 0 and lmc("-f", "second").code == 0
    assert lmc("nothing").code == 1
    os.unlink("second")
    Path("photo.jpg").write_bytes(b"x")
    assert lmc("--exclude-compressed", "photo.jpg").code == 2
    assert lmc("photo.jpg").code == 0


def test_one_bad_file_does_not_stop_the_others(lmc):
    Path("b.txt").write_bytes(b"b")
    result = lmc("nothing", "a.txt", "dir", "b.txt")
    assert result.code == 1 and os.path.exists("a.txt.lmc") and os.path.exists("b.txt.lmc")
    assert "nothing: No such file" in result.err


def test_folders(lmc, folder):
    (folder / "tree/deep").mkdir(parents=True)
    for name in ("tree/1.txt", "tree/deep/2.txt"):
        Path(name).write_bytes(TEXT)
    assert lmc("-r", "--rm", "tree").code == 0
    assert sorted(str(p) for p in paths.walk(Path("tree"))) == ["tree/1.txt.lmc", "tree/deep/2.txt.lmc"]
    assert lmc("-r", "-d", "tree").code == 0
    assert Path("tree/deep/2.txt").read_bytes() == TEXT
    assert lmc("-r", "-t", "tree").code == 0
    assert lmc("-r", "--output-dir-flat", "flat", "-f", "tree").code == 0
    assert sorted(os.listdir("flat")) == ["1.txt.lmc", "2.txt.lmc"]
    assert lmc("-d", "-r", "--output-dir-mirror", "mirror", "tree").code == 0
    assert Path("mirror/tree/deep/2.txt").read_bytes() == TEXT
    os.mkdir("inside")
    os.chdir("inside")
    assert lmc("--output-dir-mirror", "mirror", "../a.txt").code == 2


def test_filelist(lmc):
    Path("list").write_text("a.txt\n\nmissing\n")
    assert lmc("--filelist", "list").code == 1 and os.path.exists("a.txt.lmc")


def test_a_filelist_of_windows(lmc):
    Path("names").write_bytes(b"\xef\xbb\xbfa.txt\r\n")
    assert lmc("--filelist", "names").code == 0 and os.path.exists("a.txt.lmc")


def test_filelist_from_standard_input(lmc):
    Path("b.txt").write_bytes(TEXT)
    assert lmc("--filelist", "-", stdin=b"a.txt\r\nb.txt\n").code == 0
    assert os.path.exists("a.txt.lmc") and os.path.exists("b.txt.lmc")


def test_folders_with_short_suffixes(lmc, folder):
    (folder / "tree").mkdir()
    Path("tree/a.tlmc").write_bytes(lmcompress.compress(TEXT))
    assert "20000 bytes of content" in lmc("-t", "-r", "tree").err
    assert lmc("-d", "-r", "tree").code == 0 and Path("tree/a.tar").read_bytes() == TEXT


def test_a_bad_model_is_named(lmc):
    Path("bad.lmm").write_bytes(b"no model")
    for arguments in (["a.txt"], ["-d", "a.txt.lmc"]):
        assert lmc("--model", "bad.lmm", *arguments).err == "lmcompress: bad.lmm: not a model file\n"


def test_a_block_that_takes_much_memory_is_told_of(lmc, fake_codec, monkeypatch):
    monkeypatch.setattr(cli, "BLOCK_SIZE", 4096)
    assert lmc("--block-size", "48M", "a.txt").err == ""
    monkeypatch.setattr(fake_codec, "memory", lambda self, size: size << 17)
    assert "may need --memory" in lmc("-f", "--block-size", "48M", "a.txt").err
    assert "may need --memory" in lmc("-c", "--block-size", "16K", stdin=TEXT).err
    assert lmc("-f", "-q", "--block-size", "48M", "a.txt").err == lmc("-c", "a.txt").err == ""


def test_names(lmc):
    assert lmc("-N", "a.txt").code == 0
    os.rename("a.txt.lmc", "renamed.lmc")
    os.unlink("a.txt")
    assert lmc("-d", "renamed.lmc").code == 0 and os.path.exists("renamed")
    assert lmc("-d", "-N", "renamed.lmc").code == 0 and os.path.exists("a.txt")


@pytest.mark.parametrize("name", ["../../up", "/etc/x", "a/b", "c:\\x", "..", "", ".bashrc", "a\x1b[2J", "a\nb"])
def test_stored_names_are_not_trusted(lmc, folder, name):
    (folder / "in").mkdir()
    Path("in/x.lmc").write_bytes(lmcompress.compress(b"content", metadata={"name": name}))
    before = {str(p) for p in folder.rglob("*")}
    result = lmc("-d", "-N", "in/x.lmc")
    after = {str(p) for p in folder.rglob("*")} - before
    assert all(Path(p).parent == folder / "in" and not Path(p).name.startswith(".") for p in after)
    assert result.code in (0, 2) and "\x1b" not in result.err


def test_levels_and_models(lmc, monkeypatch):
    used = []
    load = fakes.load_for_writing
    monkeypatch.setattr(lmcompress.methods, "load_for_writing", lambda *a: used.append(a) or load(*a))
    monkeypatch.setenv("LMC_LEVEL", "3")
    monkeypatch.setenv("LMC_THREADS", "2")
    assert lmc("-c", "a.txt").code == 0 and used[-1] == (3, None, 2)
    assert lmc("-c", "-1", "-9k", "-T1", "a.txt").code == 0 and used[-1] == (9, None, 1)
    assert lmc("-c", "--model", "other", "a.txt").code == 0 and used[-1] == (3, "other", 2)
    result = lmc("-c", "--model", "nobody", "a.txt")
    assert result.code == 1 and "no model nobody" in result.err
    lmc("a.txt")
    monkeypatch.setenv("LMC_LEVEL", "99")
    assert lmc("-f", "a.txt").code == 1
    for arguments in (["-dc"], ["-t"], ["-l"], ["--recover", "-c"]):
        assert lmc(*arguments, "a.txt.lmc").code == 0


def test_list(lmc):
    Path("b.lmc").write_bytes(lmcompress.compress(fakes.text(500), metadata={"by": "me\x1b[2J"}))
    lmc("a.txt")
    table = lmc("-l", "a.txt.lmc", "b.lmc").out.decode().splitlines()
    assert len(table) == 3 and "20000" in table[1] and "fake" in table[2]
    details = lmc("-lv", "b.lmc").out.decode()
    assert fakes.DIGESTS["fake"].hex() in details and "lm" in details and "by = me" in details and "\x1b" not in details
    (listed,) = json.loads(lmc("-l", "--json", "b.lmc").out)
    assert listed["name"] == "b.lmc" and listed["raw_size"] == 500
    assert lmc("-l", "a.txt").code == 1


def test_test(lmc):
    lmc("a.txt")
    assert lmc("-t", "a.txt.lmc").code == 0
    assert lmc("-t", stdin=Path("a.txt.lmc").read_bytes()).code == 0
    coded = bytearray(lmcompress.compress(TEXT, block_size=4096))
    block = lmcompress.get_archive_info(coded).members[0].blocks[2]
    coded[block.offset + 40] ^= 1
    Path("bad.lmc").write_bytes(coded)
    result = lmc("-t", "bad.lmc", "a.txt.lmc")
    assert result.code == 1 and "bytes 8192 to 12287" in result.err
    bad, good = json.loads(lmc("-t", "--json", "bad.lmc", "a.txt.lmc").out)
    assert (bad["ok"], good["ok"], bad["lost"][0]["raw_offset"]) == (False, True, 8192)


def test_recover(lmc):
    coded = bytearray(lmcompress.compress(TEXT, block_size=4096))
    block = lmcompress.get_archive_info(coded).members[0].blocks[2]
    coded[block.offset + 40] ^= 1
    Path("bad.lmc").write_bytes(coded)
    assert lmc("-d", "bad.lmc").code == 1 and not os.path.exists("bad")
    result = lmc("--recover", "bad.lmc")
    assert result.code == 1 and "lost: bytes 8192 to 12287" in result.err
    assert Path("bad").read_bytes() == TEXT[:8192] + TEXT[12288:]
    assert lmc("--recover", "-o", "saved", "--rm", "bad.lmc").code == 1
    assert Path("saved").read_bytes() == TEXT[:8192] + TEXT[12288:] and os.path.exists("bad.lmc")
    lmc("-N", "a.txt")
    assert lmc("--recover", "-c", "a.txt.lmc").out == TEXT
    os.rename("a.txt.lmc", "other.lmc")
    os.unlink("a.txt")
    assert lmc("--recover", "-N", "other.lmc").code == 0 and Path("a.txt").read_bytes() == TEXT
    Path("cut.lmc").write_bytes(Path("other.lmc").read_bytes()[:-1])
    assert lmc("-d", "-N", "cut.lmc").code == 1 and not os.path.exists("cut")
    assert lmc("--recover", "-N", "cut.lmc").code == 1 and Path("cut").read_bytes() == TEXT


def test_nothing_recovered_is_no_file(lmc):
    Path("bad.lmc").write_bytes(lmcompress.compress(b"")[:9])
    result = lmc("--recover", "bad.lmc")
    assert result.code == 1 and "nothing of it is left" in result.err and not os.path.exists("bad")


def test_options_that_have_no_effect_are_refused(lmc, monkeypatch):
    os.mkdir("empty")
    for arguments in (
        ["-o", "x", "--output-dir-flat", "empty"], ["-c", "--output-dir-mirror", "empty"], ["--max-output", "5"],
    ):  # fmt: skip
        assert lmc(*arguments, "a.txt").code == 1 and not os.path.exists("x") and os.listdir("empty") == []
    result = lmc("-r", "empty", "-o", "out")
    assert result.code == 2 and "no file to make it of" in result.err and not os.path.exists("out")
    os.rename("a.txt", "a.gz")
    for arguments in (["-c"], ["-o", "out"], []):
        result = lmc("--exclude-compressed", *arguments, "a.gz")
        assert result.code == 2 and result.out == b"" and os.listdir() != ["out"] and not os.path.exists("out")
    monkeypatch.setenv("LMC_THREADS", "abc")
    assert "LMC_THREADS is 'abc'" in lmc("a.gz").err


@pytest.mark.parametrize("name", [".lmc", "..lmc", "...lmc"])
def test_an_archive_without_another_name_is_skipped(lmc, name):
    Path(name).write_bytes(lmcompress.compress(TEXT))
    result = lmc("-d", f"./{name}")
    assert result.code == 2 and "no name" in result.err
    assert lmc("-d", "-c", f"./{name}").out == TEXT


def test_a_link_to_a_folder(lmc):
    os.mkdir("folder")
    os.rename("a.txt", "folder/a.txt")
    os.symlink("folder", "link")
    assert lmc("-r", "link").code == 2
    assert lmc("-r", "-f", "link").code == 0 and os.path.exists("folder/a.txt.lmc")


def test_range(lmc):
    Path("x.lmc").write_bytes(lmcompress.compress(TEXT, block_size=4096))
    assert lmc("--range", "5K:100", "x.lmc").out == TEXT[5120:5220]
    assert lmc("-d", "--range", "19990:100", "x.lmc").out == TEXT[19990:]
    assert lmc("--range", "100:", "-o", "y", "x.lmc").code == 0
    assert Path("y").read_bytes() == TEXT[100:]
    assert lmc("--range", "1:2", stdin=Path("x.lmc").read_bytes()).out == TEXT[1:3]
    assert lmc("--range", "a:b", "x.lmc").code == 1


def test_limits(lmc):
    lmc("a.txt")
    assert lmc("-d", "-o", "x", "--max-output", "19999", "a.txt.lmc").code == 1
    assert lmc("-d", "-o", "x", "--memory", "1K", "a.txt.lmc").code == 1
    assert not os.path.exists("x")
    assert lmc("-d", "-o", "x", "--max-output", "20000", "--memory", "1G", "a.txt.lmc").code == 0


def test_other_formats_pass_through(lmc):
    assert lmc("-dcf", "a.txt").out == TEXT
    assert lmc("-dcf", stdin=b"x").out == b"x"
    assert lmc("-dc", "a.txt").code == 1
    assert lmc("-dcf", stdin=lmcompress.compress(TEXT)).out == TEXT


def test_other_formats_pass_through_within_range_and_limit(lmc):
    for stdin, name in ((b"", "a.txt"), (TEXT, "-")):
        assert lmc("-dcf", "--range", "5:10", name, stdin=stdin).out == TEXT[5:15]
        assert lmc("-dcf", "--range", "3:2", name, stdin=stdin).out == TEXT[3:5]
        assert lmc("-dcf", "--max-output", "20000", name, stdin=stdin).out == TEXT
        assert lmc("-dcf", "--max-output", "10", name, stdin=stdin).code == 1
    coded = lmcompress.compress(TEXT)
    assert lmc("-dcf", "--range", "3:2", stdin=coded).out == TEXT[3:5]


def test_nothing_is_decoded_that_is_too_long(lmc, fake_codec):
    Path("x.lmc").write_bytes(lmcompress.compress(fakes.text(900)))
    result = lmc("-dc", "--max-output", "10", "x.lmc")
    assert (result.code, result.out, fake_codec.decoded) == (1, b"", 0) and "longer than allowed" in result.err
    assert lmc("-dc", "--max-output", "10", "--range", "5:10", "x.lmc").out == fakes.text(900)[5:15]


def test_no_check(lmc):
    assert lmc("--no-check", "a.txt").code == 0
    assert lmcompress.get_archive_info("a.txt.lmc").members[0].digest == ""
    assert lmc("-dc", "a.txt.lmc").out == TEXT


def test_verbosity(lmc):
    result = lmc("-v", "a.txt")
    assert result.err.startswith("a.txt: 20000 => ") and "bits per byte" in result.err
    assert "fake engine" in result.err and "a.txt.lmc" in result.err
    Path("b.txt").write_bytes(TEXT)
    assert "2 files: 40000 => " in lmc("-vf", "a.txt", "b.txt").err
    assert lmc("-qq", "missing").err == ""


def test_mistakes_get_a_line_not_a_traceback(lmc):
    for arguments in (
        ["--nonsense"],
        ["-T", "x"],
        ["-c", "-o", "x", "a.txt"],
        ["--json", "a.txt"],
        ["--memory", "much"],
        ["--recover", "--range", "0:1", "a.txt"],
        ["-t", "--range", "0:1", "a.txt"],
        ["-l", "--range", "0:1", "a.txt"],
        ["--output-dir-flat", "x", "--output-dir-mirror", "y", "a.txt"],
        ["--filelist", "-", "-"],
    ):
        result = lmc(*arguments)
        assert result.code == 1 and result.err.startswith("lmcompress: ") and result.err.count("\n") == 1, arguments


def test_help_fits_a_screen(lmc):
    lines = lmc("-h").out.decode().splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 120
    assert lmc("-V").out.decode() == f"lmcompress {lmcompress.__version__}\n"
    for parameter in cli.command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        if isinstance(parameter, click.Option) and not (parameter.name or "").startswith("level_"):
            assert any(name in cli.HELP for name in names), names


def test_a_terminal_gets_no_binary():
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "-c", "a.txt"], stdout=slave, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, check=False
    )
    assert done.returncode == 1 and "terminal" in done.stderr
    done = subprocess.run([*COMMAND, "-d"], stdin=slave, capture_output=True, env=ENVIRONMENT, check=False)
    assert done.returncode == 2 and b"terminal" in done.stderr
    done = subprocess.run([*COMMAND, "-f", "a.txt"], stderr=slave, env=ENVIRONMENT, check=False)
    assert done.returncode == 0 and b"20000 =>" in os.read(master, 100_000)
    os.close(slave)
    os.close(master)


def test_a_broken_pipe_is_quiet():
    Path("big.lmc").write_bytes(lmcompress.compress(b"many words\n" * 500_000))
    done = subprocess.run(
        f"{' '.join(COMMAND)} -dc big.lmc | head -c 10", shell=True, capture_output=True, env=ENVIRONMENT, check=False
    )
    assert done.stdout == b"many words" and done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_leave_nothing_behind(folder, number):
    process = subprocess.Popen(
        [*COMMAND, "-o", "out.lmc", "-"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
        preexec_fn=lambda: signal.signal(
            number, signal.SIG_DFL
        ),  # tests run in the background inherit an ignored SIGINT
    )
    assert process.stdin is not None and process.stderr is not None
    process.stdin.write(TEXT)
    process.stdin.flush()
    for _ in range(500):
        if leftovers(folder):
            break
        time.sleep(0.01)
    assert leftovers(folder)
    process.send_signal(number)
    assert process.wait(10) == -number
    assert process.stderr.read() == b""
    assert sorted(os.listdir()) == ["a.txt"]
    process.stdin.close()
    process.stderr.close()


@pytest.mark.parametrize("direction", ["compress", "decompress"])
def test_kill_at_any_moment(folder, direction):
    """kill -9: the source or the complete result exists, and never a part of it under the final name."""
    content = b"".join(fakes.text(1 << 20, 5) for _ in range(3))
    archive = lmcompress.compress(content, block_size=1 << 16)
    arguments, source, result = (["-1"], "s", "s.lmc") if direction == "compress" else (["-d"], "s.lmc", "s")
    rng, killed, seconds = random.Random(direction), 0, 0.0
    for i in range(1 + int(os.environ.get("LMC_TEST_KILLS", 10))):
        for name in os.listdir():
            os.unlink(name)
        Path(source).write_bytes(content if direction == "compress" else archive)
        started = time.monotonic()
        process = subprocess.Popen([*COMMAND, "--rm", *arguments, source], env=ENVIRONMENT)
        if i == 0:  # how long it takes when nobody kills it
            assert process.wait() == 0
            seconds = time.monotonic() - started
        else:
            time.sleep(rng.uniform(0, seconds))
            process.kill()
            killed += process.wait() != 0
        there = {name: Path(name).read_bytes() for name in (source, result) if os.path.exists(name)}
        assert there
        for name, data in there.items():
            assert (lmcompress.decompress(data) if name.endswith(".lmc") else data) == content
    assert killed


def test_a_long_stream_in_bounded_memory():
    """200 MB (or LMC_TEST_STREAM) through both directions at once, with the real codec on two threads, which code two
    blocks at once; neither process takes more than 300 MB. Of so much repetition every block is zstd's."""
    megabytes = int(os.environ.get("LMC_TEST_STREAM", 200))
    code = (
        "import resource, subprocess, sys\n"
        "command = [sys.executable, '-m', 'lmcompress', '-T2']\n"
        "first = subprocess.Popen([*command, '-c'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "second = subprocess.Popen([*command, '-dc'], stdin=first.stdout, stdout=subprocess.DEVNULL)\n"
        "first.stdout.close()\n"
        f"for _ in range({megabytes}): first.stdin.write(b'again and again\\n' * 62500)\n"
        "first.stdin.close()\n"
        "assert first.wait() == second.wait() == 0\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=True)
    print(f"{megabytes} MB, at most {done.stdout.strip()} KiB of memory in each process")
    assert int(done.stdout) < 300_000


@pytest.mark.skipif(shutil.which("tar") is None, reason="no tar")
def test_tar(folder):
    (folder / "tree").mkdir()
    for i in range(5):
        (folder / f"tree/{i}.txt").write_bytes(fakes.text(3000, i))
    command = " ".join(COMMAND)
    subprocess.run(["tar", "-I", command, "-cf", "tree.tar.lmc", "tree"], env=ENVIRONMENT, check=True)
    os.rename("tree", "old")
    subprocess.run(["tar", "-I", command, "-xf", "tree.tar.lmc"], env=ENVIRONMENT, check=True)
    assert all((folder / f"tree/{i}.txt").read_bytes() == fakes.text(3000, i) for i in range(5))


def test_start_up_loads_nothing_heavy():
    heavy = "{'numpy', 'torch', 'zstandard', 'constriction', 'sentencepiece', 'rich'}"
    told = f"import sys, lmcompress.cli; print(sorted({heavy} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", told], env=ENVIRONMENT, check=True, capture_output=True)
    assert result.stdout.strip() == b"[]"


@pytest.mark.skipif(os.name == "nt", reason="pipes that do not wait")
def test_input_that_is_not_there_yet_is_no_end():
    """Whoever shares a pipe may have told it not to wait."""
    for given, arguments, expected in (
        (TEXT, ["-c"], lmcompress.compress(TEXT)),
        (lmcompress.compress(TEXT), ["-d", "-c"], TEXT),
        (b"a.txt\n", ["--filelist", "-", "-c"], lmcompress.compress(TEXT)),
    ):
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        process = subprocess.Popen([*COMMAND, *arguments], stdin=ours, stdout=subprocess.PIPE, env=ENVIRONMENT)
        os.close(ours)
        time.sleep(0.5)
        for i in range(0, len(given), 1 + len(given) // 2):
            os.write(theirs, given[i : i + 1 + len(given) // 2])
            time.sleep(0.2)
        os.close(theirs)
        out = process.communicate()[0]
        content = lmcompress.decompress(out) if "-d" not in arguments else out
        assert process.returncode == 0 and content == TEXT and len(out) <= len(expected) + 16


@pytest.mark.skipif(os.name == "nt", reason="pipes that do not wait")
def test_a_library_file_that_gives_nothing_now_is_an_error():
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    coded = lmcompress.compress(TEXT, block_size=4096)
    os.write(theirs, coded[: len(coded) // 2])
    with open(ours, "rb") as pipe, lmcompress.open(pipe) as file:
        out = file.read(4096)
        with pytest.raises(BlockingIOError):
            while True:
                out += file.read1(100)
        os.write(theirs, coded[len(coded) // 2 :])
        os.close(theirs)
        assert out + file.read() == TEXT


def test_subcommands(lmc, monkeypatch, capsys):
    assert cli._guarded(cli.bench, ["--levels", "1", "a.txt"]) == 0
    assert "bits per byte" in capsys.readouterr().out
    for levels in ("x", "0", "9-1", "-", "1-", "0-1", "19"):
        assert cli._guarded(cli.bench, ["--levels", levels, "a.txt"]) == 1
        assert "levels" in capsys.readouterr().err


@pytest.mark.skipif("fast" not in modelfile.shipped(), reason="no model ships yet")
def test_models():
    def told(*arguments: str) -> str:
        command = [sys.executable, "-m", "lmcompress", "models", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout

    model, size = modelfile.load("fast"), (modelfile.SHIPPED / "fast.lmm").stat().st_size
    text = told()
    assert f"fast: {size:,} bytes, SHA-256 {model.digest.hex()}\n" in text
    rows = [line.split() for line in text.splitlines() if line.endswith(" MB")]
    assert sorted(int(row[0]) for row in rows) == list(lmcompress.methods.LEVELS)
    assert {row[1] for row in rows} == {"yes", "no"}
    (entry,) = (e for e in json.loads(told("--json")) if e["name"] == "fast")
    levels = [n for n, v in lmcompress.methods.LEVELS.items() if v.model == "fast"]
    assert entry["bytes"] == size and [level["level"] for level in entry["levels"]] == levels


def test_no_option_loses_a_file(lmc, folder):
    """What --rm, -f and names together must never do."""
    lmc("a.txt")
    for arguments in (
        ["--range", "0:10", "-o", "x", "--rm", "a.txt.lmc"],
        ["-d", "--rm", "-o", "x", "a.txt.lmc", "a.txt.lmc"],
    ):
        result = lmc(*arguments)
        assert result.code == 1 and "--rm" in result.err and os.path.exists("a.txt.lmc") and not os.path.exists("x")
    Path("own.lmc").write_bytes(lmcompress.compress(TEXT, metadata={"name": "own.lmc"}))
    result = lmc("-d", "-N", "-f", "--rm", "own.lmc")  # its stored name is its own
    assert result.code == 1 and "both source and output" in result.err
    assert lmcompress.decompress(Path("own.lmc").read_bytes()) == TEXT
    Path("x").write_bytes(lmcompress.compress(TEXT))
    os.symlink("x", "x.lmc")
    assert lmc("-d", "-f", "--rm", "x.lmc").code == 1 and os.path.islink("x.lmc")
    for name in ("1", "2"):
        os.mkdir(name)
        Path(name, "same.txt").write_text(name)
    result = lmc("-r", "-f", "--rm", "--output-dir-flat", "flat", "1", "2")
    assert result.code == 1 and "just made of another" in result.err
    assert sorted(map(str, folder.rglob("same*"))) == [str(folder / "2/same.txt"), str(folder / "flat/same.txt.lmc")]


def test_a_source_that_grows_is_kept(lmc, monkeypatch):
    compress = cli.Run._compress

    def growing(self, source, *arguments):
        with open(source, "ab") as file:
            file.write(b"more")
        return compress(self, source, *arguments)

    monkeypatch.setattr(cli.Run, "_compress", growing)
    for arguments in (["a.txt"], ["-f", "-o", "a.txt.lmc", "a.txt"]):
        result = lmc("--rm", *arguments)
        assert result.code == 1 and "a.txt: has changed" in result.err
        assert os.path.exists("a.txt") and os.path.exists("a.txt.lmc")


def test_recovery_of_what_may_not_be_all_is_an_error(lmc):
    coded = lmcompress.compress(TEXT, block_size=4096)
    (member,) = lmcompress.get_archive_info(coded).members
    last, third = member.blocks[-1], member.blocks[2]
    for name, data in {
        "cut.lmc": coded[: last.offset + last.coded_size],  # behind a block
        "less.lmc": coded[: third.offset] + coded[third.offset + third.coded_size :],
    }.items():
        Path(name).write_bytes(data)
        result = lmc("--recover", "--rm", name)
        assert result.code == 1 and os.path.exists(name) and "lost: " in result.err, name


def test_foreign_files_are_said_to_be(lmc):
    for option in ("-t", "-l", "-d"):
        result = lmc(option, *(["-c"] if option == "-d" else []), "a.txt")
        assert result.code == 1 and "not an lmcompress archive" in result.err
    assert lmc("-tcf", "-", stdin=TEXT).code == 1
    (tested,) = json.loads(lmc("-t", "--json", "missing").out)
    assert tested == {"name": "missing", "ok": False, "error": "No such file or directory"}


def test_standard_output_by_its_name(lmc):
    assert lmc("-d", "-o", "-", stdin=lmc("-o", "-", "a.txt").out).out == TEXT
    assert not os.path.exists("-")


def test_block_size(lmc):
    assert lmc("--block-size", "4K", "a.txt").code == 0
    assert len(lmcompress.get_archive_info("a.txt.lmc").members[0].blocks) == 5
    assert lmc("--block-size", "1", "a.txt").code == 1


@pytest.mark.parametrize("name", ["é" * 120 + ".txt", "new\nline", " ", "-", "caf\udce9", "*", "a" * 251])
def test_any_name_will_do(lmc, folder, name):
    try:
        Path(name).write_bytes(TEXT)
    except (OSError, UnicodeError):
        pytest.skip("not a name here")
    assert lmc("--rm", "--", f"./{name}").code == 0
    assert lmc("-l", "-t", "--", f"./{name}.lmc").code == lmc("-d", "--rm", "--", f"./{name}.lmc").code == 0
    assert Path(name).read_bytes() == TEXT and not leftovers(folder)


def test_names_that_cannot_be(lmc, folder):
    for arguments in (["x" * 254], ["-o", "x" * 300, "a.txt"], ["-o", "no/x", "a.txt"], ["-o", ".", "a.txt"], [""]):
        result = lmc(*arguments)
        assert result.code == 1 and result.err.count("\n") == 1 and ".tmp" not in result.err
    Path("list").write_bytes(b"a\0b\n")
    assert lmc("--filelist", "list").code == 1
    assert lmc("-d", "--range", "9999999999T:1", "a.txt").code == 1
    assert not leftovers(folder)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no permissions")
def test_what_may_not_be_read_is_an_error_and_stops_nothing(folder):
    for name in ("secret.txt", "tree/dir/x", "tree/ok"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(TEXT)
    for name in ("secret.txt", "tree/dir"):
        os.chmod(name, 0)
    for name in (folder, folder / "tree"):
        os.chmod(name, 0o777)
    # all that is imported later too: what nobody may read, or look into, may be where the packages lie
    code = "import os, sys, difflib, zstandard; from tests import fakes; from lmcompress import cli; import lmcompress.codec\n"
    code += "fakes.install()\n"
    code += "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
    code += "cli.main(['-r', 'secret.txt', 'tree', 'a.txt'])"
    os.chmod(folder.parent, 0o755)
    os.chmod(folder.parent.parent, 0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, check=False)
    os.chmod("tree/dir", 0o700)
    assert done.returncode == 1 and done.stderr.count("Permission denied") == 2 == done.stderr.count("\n"), done.stderr
    assert os.path.exists("a.txt.lmc") and os.path.exists("tree/ok.lmc") and not os.path.exists("tree/dir/x.lmc")


def test_an_error_that_nobody_foresaw_is_a_line(lmc, monkeypatch):
    monkeypatch.setattr(cli, "LMCompressor", None)
    Path("b.txt").write_bytes(b"b")
    result = lmc("a.txt", "b.txt")
    assert result.code == 1 and result.err.count("internal error") == result.err.count("\n") == 2


@pytest.mark.skipif(os.name != "posix", reason="a shell")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["a.txt", "-f -v a.txt", "-c a.txt", "-c", "-l x.lmc", "-t x.lmc", "-h"])
def test_closed_standard_files(folder, closed, arguments):
    Path("x.lmc").write_bytes(lmcompress.compress(TEXT))
    done = subprocess.run(
        f"{' '.join(COMMAND)} {arguments} {closed}", shell=True, capture_output=True, env=ENVIRONMENT,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr and b"internal" not in done.stderr
    needed = {"<&-", ">&-"} if arguments == "-c" else {">&-"} if arguments[:2] in ("-c", "-l", "-h") else set[str]()
    assert (done.returncode == 0) == needed.isdisjoint(closed.split()), done.stderr
    for name in ("a.txt", "a.txt.lmc"):
        if os.path.exists(name):
            data = Path(name).read_bytes()
            assert (lmcompress.decompress(data) if name.endswith(".lmc") else data) == TEXT


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", ["-c a.txt", "-dc x.lmc", "-l x.lmc", "-h", "-f -o /dev/full a.txt"])
def test_a_full_disk(arguments):
    Path("x.lmc").write_bytes(lmcompress.compress(TEXT))
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments.split()], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "No space left" in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="a shell")
@pytest.mark.parametrize("arguments", ["-c noise", "-dc x.lmc", "--recover -c x.lmc", "-dcf noise"])
def test_what_an_unbuffered_output_does_not_take_is_an_error(arguments):
    Path("noise").write_bytes(b"a" + fakes.noise(5000))
    Path("x.lmc").write_bytes(lmcompress.compress(fakes.noise(5000)))
    done = subprocess.run(
        f"ulimit -f 1; {' '.join(COMMAND)} {arguments} > out", shell=True, stderr=subprocess.PIPE, text=True,
        env={**ENVIRONMENT, "PYTHONUNBUFFERED": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "too large" in done.stderr


def test_any_name_is_told_in_any_encoding(folder):
    Path("中文.lmc").write_bytes(lmcompress.compress(TEXT))
    variables = {**ENVIRONMENT, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([*COMMAND, "-l", "中文.lmc"], capture_output=True, env=variables, check=False)
    assert done.returncode == 0 and b"\\u4e2d\\u6587.lmc" in done.stdout, done.stderr


def test_other_groups_get_no_more_than_everybody(monkeypatch, tmp_path):
    def refused(*arguments):
        raise PermissionError

    monkeypatch.setattr(os, "fchown", refused)
    os.chmod("a.txt", 0o654)
    with paths.Output(tmp_path / "b.txt", False) as output:
        output.commit(os.stat("a.txt"))
    assert stat.S_IMODE(os.stat("b.txt").st_mode) == 0o644


def test_strict_python():
    """-W error -bb -X dev: no warning of any kind, no bytes compared with text."""
    command = [sys.executable, "-W", "error", "-bb", "-X", "dev", "-m", "tests.fakes"]
    for arguments in (["a.txt"], ["-t", "a.txt.lmc"], ["-l", "-v", "a.txt.lmc"], ["-df", "-N", "a.txt.lmc"]):
        done = subprocess.run([*command, *arguments], capture_output=True, env=ENVIRONMENT, check=False)
        assert done.returncode == 0 and b"Warning" not in done.stderr, done.stderr


def test_shell_completion():
    for shell in ("bash", "zsh", "fish"):
        variables = {**ENVIRONMENT, "_LMCOMPRESS_COMPLETE": f"{shell}_source"}
        done = subprocess.run(COMMAND, capture_output=True, env=variables, text=True, check=False)
        if "Bash version" in done.stderr:
            continue
        assert done.returncode == 0 and "lmcompress" in done.stdout, done.stderr

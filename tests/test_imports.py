"""The house's import table: a module imports only from rooms below its own; heavy packages only where they belong."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lmcompress"
FLOORS = [  # from the ground up; rooms on one floor do not know each other
    {"errors", "config", "inorder", "_native"},
    {"base64lines", "bits", "charsets", "marks"},
    {"letters", "mail", "noise", "repeats", "strings"},
    {"coder", "distribution", "forms", "ngrams", "tokenizer", "tree"},
    {"choice", "modelfile"},
    {"engine", "mixer"},
    {"predictor"},
    {"codec", "container"},
    {"methods"},
    {"stream"},
    {"file"},
    {"numcodec", "paths"},
    {"archive"},
    {"integrations", "training"},
    {"cli"},
    {"__init__", "__main__"},
]
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of every import in a file, wherever it stands, but for those that only type checkers see."""
    tree = ast.parse(path.read_text())
    unseen = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in unseen:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    own = room(path)
    assert own in FLOOR, f"{own} has no place in the house: add it to FLOORS"
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "lmcompress" or name == "lmcompress.__version__":
            continue
        assert parts[1] == own or FLOOR[parts[1]] < FLOOR[own], f"{own} imports {parts[1]}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_torch_stays_in_training(path):
    if room(path) != "training" and path.name != "torch_engine.py":
        assert not any(name.split(".")[0] in ("torch", "tensorboard") for name in imported(path))


def test_start_up_imports_nothing_heavy():
    heavy = "{'numpy', 'torch', 'zstandard', 'constriction', 'sentencepiece', 'rich'}"
    code = f"import sys, lmcompress.cli; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_public_names():
    import lmcompress

    assert all(hasattr(lmcompress, name) for name in lmcompress.__all__)
    with pytest.raises(AttributeError):
        _ = lmcompress.no_such_name

"""docs/API.md is what the code says."""

from __future__ import annotations

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def test_the_reference_is_current():
    assert runpy.run_path(str(DOCS / "api.py"))["reference"]() == (DOCS / "API.md").read_text(encoding="utf-8"), (
        "make docs"
    )

"""Fixtures that several test modules use."""

from __future__ import annotations

import pytest

from lmcompress import methods
from tests import fakes


@pytest.fixture
def fake_codec(monkeypatch: pytest.MonkeyPatch) -> type[fakes.FakeCodec]:
    """The archive with a codec that is quick and needs no model."""
    monkeypatch.setattr(methods, "load_for_writing", fakes.load_for_writing)
    monkeypatch.setattr(methods, "load_for_reading", fakes.load_for_reading)
    monkeypatch.setattr(fakes.FakeCodec, "decoded", 0)
    return fakes.FakeCodec

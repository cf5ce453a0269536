"""Fixtures that several test modules use."""

from __future__ import annotations

import pytest

from lmcompress import choice, methods
from tests import fakes


@pytest.fixture
def fake_codec(monkeypatch: pytest.MonkeyPatch) -> type[fakes.FakeCodec]:
    """The archive with a codec that is quick and needs no model."""
    monkeypatch.setattr(methods, "load_for_writing", fakes.load_for_writing)
    monkeypatch.setattr(methods, "load_for_reading", fakes.load_for_reading)
    monkeypatch.setattr(fakes.FakeCodec, "decoded", 0)
    return fakes.FakeCodec


@pytest.fixture
def network_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is one, though it knows nothing and the mixer does better alone."""
    monkeypatch.setattr(choice, "STRANGE", 0)
    monkeypatch.setattr(choice, "MANY_NUMBERS", 100)

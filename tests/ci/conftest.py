"""A forge that is served for one test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ci.forge import Forge, Served, script


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Forge]:
    monkeypatch.setattr(script("sticky"), "PAUSES", (0.0, 0.0))
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Served() as served:
        yield served

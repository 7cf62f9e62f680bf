"""What every test may use. A folder's own fixtures lie in that folder's conftest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.engines.fixtures"]

_QUICK = [Path(__file__).parent / name for name in ("unit", "contract")]

# How long an example takes says more about the machine than about the code.
settings.register_profile("kino", deadline=None)
# A submission answers for what it changed; new examples are looked for wherever people work.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "kino")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs no engine, no browser and no suite, so that it can be run apart."""
    for item in items:
        if item.get_closest_marker("engine") is None and any(
            item.path.is_relative_to(folder) for folder in _QUICK
        ):
            item.add_marker(pytest.mark.quick)

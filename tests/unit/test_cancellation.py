from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_nothing_waits_in_a_way_that_can_swallow_its_cancellation() -> None:
    """Before Python 3.12 `asyncio.wait_for` drops a cancellation that comes with what it waits for."""
    found = [
        str(path.relative_to(ROOT))
        for folder in ("services", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if "asyncio.wait_for(" in path.read_text()
    ]
    assert found == []

"""Each store's port against the same statements on the bare client, embedded and real side by side.

One module a port, `stores_<port>.py`, each with `async def measure(rounds: int) -> list[Row]`.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from pathlib import Path

from bench.report import Report, Row, conditions

ROUNDS = 5


def run(rounds: int = ROUNDS) -> Report:
    """One port after the other, each in turns with its bare client; engines come from `tests/engines`."""
    stated = conditions(rounds=rounds)
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    rows: list[Row] = []
    for name in sorted(module.name for module in found if module.name.startswith("stores_")):
        rows += asyncio.run(importlib.import_module(f"bench.{name}").measure(rounds))
    return Report(bench="stores", rows=rows, conditions=stated)

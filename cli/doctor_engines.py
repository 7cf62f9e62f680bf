"""What `kino doctor` looks at in the engines that the settings choose, a module for each engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from cli.doctor_cassandra import examine_cassandra
from cli.doctor_s3 import examine_s3
from cli.doctor_search import examine_search
from cli.doctor_sql import examine_sql
from cli.findings import Finding
from services.runtime.settings import Settings

#: Each looks at one engine, and finds nothing where the settings don't choose it. None raises: that an engine
#: doesn't answer is a finding.
CHECKS: Sequence[Callable[[Settings], Awaitable[list[Finding]]]] = (
    examine_sql,
    examine_cassandra,
    examine_s3,
    examine_search,
)


async def examine_engines(settings: Settings) -> list[Finding]:
    """Look at every engine at once; the findings in the order of `CHECKS`."""
    found = await asyncio.gather(*(check(settings) for check in CHECKS))
    return [finding for findings in found for finding in findings]

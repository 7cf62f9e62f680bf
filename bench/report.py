"""The form of every benchmark's result: rows with a goal each, and under what conditions."""

from __future__ import annotations

import operator
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured figure."""

    name: str
    value: float
    unit: str
    #: What it is compared with, and our value over its; None when there is none.
    peer: str | None = None
    ratio: float | None = None
    #: `<=N` or `>=N`: holds for `ratio`, or for `value` where there is no ratio.
    goal: str | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return _COMPARISONS[self.goal[:2]](
            self.value if self.ratio is None else self.ratio, float(self.goal[2:])
        )

    def as_dict(self) -> dict[str, Any]:
        """The row as JSON has it."""
        names = ("name", "value", "unit", "peer", "ratio", "goal")
        return {name: _rounded(getattr(self, name)) for name in names}


@dataclass(frozen=True, kw_only=True)
class Report:
    """A benchmark's result."""

    bench: str
    rows: Sequence[Row]
    conditions: Mapping[str, object] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON has it."""
        rows = [row.as_dict() for row in self.rows]
        return {"bench": self.bench, "rows": rows, "conditions": dict(self.conditions)}


def conditions(**more: object) -> dict[str, object]:
    """What a figure of this machine depends on."""
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control")
    return {
        "cores": len(os.sched_getaffinity(0)),
        "congestion_control": congestion.read_text().strip() if congestion.exists() else "unknown",
        "load_before": round(os.getloadavg()[0], 2),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **more,
    }


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value

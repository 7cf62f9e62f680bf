"""Reports to record, and what the pure model makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from services.history.model import Key, Order, Report, View

NOW = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = 1_000_000_000


def after(seconds: float) -> datetime:
    """So long after `NOW`."""
    return NOW + timedelta(seconds=seconds)


def report(
    profile: str, title: int = 1, *, started: float = 0, sequence: int = 1, lease: str = "a", **fields: object
) -> Report:
    """What a playback says that was started so many seconds after `NOW`."""
    made = Report(
        key=Key(profile=profile, title=f"titles/t{title}"),
        order=Order(start_time=after(started), lease=f"leases/{lease}", sequence=sequence),
        position_ns=5 * SECOND,
        intervals=((0, 5 * SECOND), (7 * SECOND, 8 * SECOND)),
        duration_ns=100 * SECOND,
        device="телевизор",
        receive_time=after(started + min(sequence, 3600)),
    )
    return replace(made, **fields)  # type: ignore[arg-type]


@dataclass
class Model:
    """The history of one profile, as the words of `HistoryStore` have it."""

    profile: str
    views: dict[str, View] = field(default_factory=dict)
    until: dict[str, datetime] = field(default_factory=dict)

    def record(self, heard: Report) -> View | None:
        title = heard.key.title
        ends = [self.until[name] for name in (title, "") if name in self.until]
        if ends and heard.order.start_time <= max(ends):
            return None
        view = View.of(heard)
        self.views[title] = self.views[title].merged(view) if title in self.views else view
        return self.views[title]

    def delete(self, title: str, now: datetime) -> None:
        """Delete one view; all of them for an empty title."""
        gone = [name for name in self.views if title in ("", name)]
        starts = [self.views.pop(name).order.start_time for name in gone]
        self.until[title] = max([now, *starts, *([self.until[title]] if title in self.until else [])])

    def newest(self) -> list[View]:
        return sorted(
            self.views.values(), key=lambda view: (view.last_watch_time, view.key.title), reverse=True
        )

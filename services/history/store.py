"""Where history keeps its views."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from services.history.model import Key, Report, View


class HistoryStore(Protocol):
    """Views of profiles. Acknowledged means durable.

    Every operation stands for itself, and none needs what was read before to be still true: an engine without
    transactions keeps reports as rows of their own, and deletions as marks, and merges when it reads.
    """

    async def record(self, report: Report) -> View | None:
        """Merge a report into its view; the view after it.

        None when the view or the profile's history was deleted at or after the start of the report's
        playback: the report is then dropped for good. Concurrent reports of one view are all kept.
        """

    async def view(self, key: Key) -> View | None:
        """One view; None when there is none or it was deleted."""

    async def views(self, profile: str, after: tuple[datetime, str] | None, limit: int) -> list[View]:
        """A profile's views, last watched first; `after` is (last_watch_time, title) of the last one seen."""

    async def unfinished(self, profile: str, limit: int) -> list[View]:
        """A profile's views that are not finished, last watched first.

        An engine need not look further back than the last 500 views.
        """

    async def delete(self, key: Key, now: datetime) -> None:
        """Delete a view for good: what was recorded and what playbacks started until `now` still report."""

    async def clear(self, profile: str, now: datetime) -> None:
        """The same for all views of a profile."""

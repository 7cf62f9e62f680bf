"""What history does."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from services.history.errors import ViewNotFound
from services.history.model import Key, Report, View
from services.history.store import HistoryStore
from services.runtime.clock import Clock


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some views of a profile."""

    views: list[View]
    #: Whether others follow.
    more: bool


class History:
    """The use cases of history, over a store."""

    def __init__(self, store: HistoryStore, clock: Clock) -> None:
        """`clock` says when views were deleted."""
        self._store = store
        self._clock = clock

    async def record(self, report: Report) -> View | None:
        """Record progress; the view after it, None when it was deleted since the playback began.

        Raises `InvalidArgument`.
        """
        return await self._store.record(report.checked())

    async def get(self, key: Key) -> View:
        """One view. Raises `ViewNotFound`."""
        view = await self._store.view(key)
        if view is None:
            raise ViewNotFound(key.name)
        return view

    async def views(self, profile: str, after: tuple[datetime, str] | None, limit: int) -> Page:
        """What a profile watched, last watched first."""
        found = await self._store.views(profile, after, limit + 1)
        return Page(views=found[:limit], more=len(found) > limit)

    async def continue_watching(self, profile: str, limit: int) -> list[View]:
        """What a profile began and did not finish, last watched first."""
        return await self._store.unfinished(profile, limit)

    async def delete(self, key: Key) -> None:
        """Delete a view; deleting twice succeeds."""
        await self._store.delete(key, self._clock.now())

    async def clear(self, profile: str) -> None:
        """Delete all views of a profile."""
        await self._store.clear(profile, self._clock.now())

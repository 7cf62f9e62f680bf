"""What the catalog does with titles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from services.catalog.errors import TitleNotFound
from services.catalog.media_usecases import MediaCases, existing
from services.catalog.model import Sweep, Title, Viewer
from services.catalog.rights import Availability, Window, availability, checked
from services.catalog.series import Series
from services.catalog.store import Session
from services.catalog.text import TitleText
from services.runtime.auth import NotYours
from services.runtime.ids import new_id

T = TypeVar("T", bound="Title | Series")

#: A page of anything stays well below the size of a message.
PAGE_BYTES = 2 << 20


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """Some of a list."""

    items: list[T]
    #: Whether others follow.
    more: bool


class Catalog(MediaCases):
    """The catalog's use cases, over a store."""

    async def create(
        self,
        owner: str,
        text: TitleText,
        request_id: str,
        request: bytes,
        *,
        unpublished: bool = False,
        rights: tuple[Window, ...] = (),
    ) -> Title:
        """A new title without a source; a repetition of the request gives the same one."""
        now = self._clock.now()
        title = Title(
            title_id=new_id(),
            owner=owner,
            text=text.check(),
            create_time=now,
            update_time=now,
            unpublished=unpublished,
            rights=checked(rights),
        )

        def save(session: Session) -> str:
            session.save_title(title)
            return title.title_id

        def run(session: Session) -> Title:
            scope = f"{owner}/CreateTitle"
            title_id = session.once(scope, request_id, request, now, lambda: save(session))
            return existing(session, title_id)

        return await self._write(run)

    async def get(self, viewer: Viewer, title_id: str) -> Title:
        """A title `viewer` may see. Raises `TitleNotFound`."""
        return await self._store.read(lambda session: seen(session, viewer, title_id))

    async def several(self, viewer: Viewer, title_ids: Sequence[str]) -> list[Title]:
        """Those of these titles that `viewer` may see, in the order asked for."""

        def run(session: Session) -> list[Title]:
            found = [session.title(title_id) for title_id in title_ids]
            return [title for title in found if title is not None and title.seen_by(viewer)]

        return await self._store.read(run)

    async def titles(
        self,
        viewer: Viewer,
        after: tuple[datetime, str] | None,
        limit: int,
        *,
        without_episodes: bool = False,
    ) -> Page[Title]:
        """At most `limit` of the titles `viewer` may see, newest first."""
        return page_of(
            await self._store.read(
                lambda session: session.titles(viewer, after, limit + 1, without_episodes=without_episodes)
            ),
            limit,
        )

    async def update(
        self,
        viewer: Viewer,
        title_id: str,
        edit: Callable[[TitleText], TitleText],
        rights: tuple[Window, ...] | None,
        etag: str,
    ) -> Title:
        """Change a title's words and, unless None, its rights.

        Raises `TitleNotFound`, `NotYours`, `TitleChanged`, `InvalidArgument`.
        """
        return await self._change(
            viewer, title_id, lambda old: old.edited(self._clock.now(), edit(old.text), rights, etag)
        )

    async def show(self, viewer: Viewer, title_id: str, *, published: bool) -> Title:
        """Publish a title or take it away from viewers. Raises `TitleNotFound`, `NotYours`."""
        return await self._change(
            viewer, title_id, lambda old: old.shown(self._clock.now(), published=published)
        )

    async def _change(self, viewer: Viewer, title_id: str, change: Callable[[Title], Title]) -> Title:
        def run(session: Session) -> Title:
            old = owned(session, viewer, title_id)
            new = change(old)
            if new is not old:
                session.save_title(new)
            return new

        return await self._write(run)

    async def availability(self, title_id: str, region: str) -> Availability:
        """Whether a title may be watched in a region now. Raises `TitleNotFound`."""
        title = await self._store.read(lambda session: existing(session, title_id))
        return availability(title.rights, region, self._clock.now())

    async def delete(self, viewer: Viewer, title_id: str) -> None:
        """Make a title disappear and have its objects collected. Raises `TitleNotFound`, `NotYours`."""

        def run(session: Session) -> None:
            now = self._clock.now()
            old = owned(session, viewer, title_id)
            session.save_title(old.changed(now, delete_time=now))
            session.leave_places(title_id)
            session.add_sweep(Sweep(title_id=title_id, job="", due_time=now, rounds=2))

        await self._write(run)

    async def unsent(self, limit: int) -> list[Title]:
        """Titles whose newest version the search index may lack, but for those put off."""
        return await self._store.read(lambda session: session.unsent(self._clock.now(), limit))

    async def put_off(self, title: Title, delay: timedelta) -> None:
        """Try this version of a title again later, not before the others."""
        until = self._clock.now() + delay
        await self._store.write(lambda session: session.put_off(title.title_id, title.version, until))

    async def mark_sent(self, titles: Sequence[Title]) -> None:
        """The search index has these versions."""

        def run(session: Session) -> None:
            for title in titles:
                session.mark_sent(title.title_id, title.version)

        await self._store.write(run)


def page_of(found: list[T], limit: int) -> Page[T]:
    """A page of at most `limit` of what was found, below the size of a message; `found` has one more."""
    size_bytes, count = 0, 0
    for one in found[:limit]:
        size_bytes += len(one.text.description.encode())
        if count and size_bytes > PAGE_BYTES:
            break
        count += 1
    return Page(items=found[:count], more=count < len(found))


def seen(session: Session, viewer: Viewer, title_id: str) -> Title:
    """A title `viewer` may see. Raises `TitleNotFound`."""
    title = existing(session, title_id)
    if not title.seen_by(viewer):
        raise TitleNotFound(title_id)
    return title


def owned(session: Session, viewer: Viewer, title_id: str) -> Title:
    """A title `viewer` may change. Raises `TitleNotFound`, `NotYours`."""
    title = seen(session, viewer, title_id)
    if not title.managed_by(viewer):
        raise NotYours(f"titles/{title_id}")
    return title

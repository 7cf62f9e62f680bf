"""The pictures that stand for titles and series."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from services.catalog.errors import ArtworkNotFound, FrameNotReady, PictureChanged
from services.catalog.media_usecases import MediaView
from services.catalog.model import Kind, Media, Rendition, Sweep, Viewer
from services.catalog.series_usecases import owned_series
from services.catalog.store import Session, Store
from services.catalog.usecases import owned
from services.runtime.clock import Clock
from services.runtime.errors import KinoError, NotFound
from services.runtime.ids import new_id
from services.runtime.logs import logger
from services.runtime.objects import ObjectStore

_log = logger("catalog")
#: A frame is taken of the smallest rendition that is at least so high.
_HEIGHT = 720
#: How many stale pictures are taken anew at a time.
_AT_ONCE = 200
_OURSELVES = Viewer(subject="services/catalog", sees_all=True)


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame of a published segment."""

    init_key: str
    segment_key: str
    ticks: int


class Pictures(Protocol):
    """The preprocessor."""

    async def of_picture(self, data: bytes) -> dict[str, bytes]:
        """JPEG files by name, made of an uploaded picture. Raises `PICTURE_UNREADABLE`."""

    async def of_frame(self, frame: Frame) -> dict[str, bytes]:
        """The same of a frame."""

    def frame_ticks(self, view: MediaView, offset_ns: int) -> int:
        """When the frame on show at that moment of a title was begun to be shown."""


class Artwork:
    """The use cases of pictures, over the catalog's store."""

    def __init__(
        self,
        store: Store,
        objects: ObjectStore,
        pictures: Pictures,
        clock: Clock,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """`changed` is called after each change that the collector should see."""
        self._store = store
        self._objects = objects
        self._pictures = pictures
        self._clock = clock
        self._changed = changed

    async def set_picture(self, viewer: Viewer, name: str, data: bytes) -> str:
        """Make `titles/…` or `series/…` have this picture; its id.

        Raises `TitleNotFound`, `SeriesNotFound`, `NotYours`, and what the preprocessor refuses with.
        """
        await self._store.read(lambda session: _owned(session, viewer, name))
        return await self._keep(viewer, name, await self._pictures.of_picture(data))

    async def set_frame(self, viewer: Viewer, name: str, title_id: str, offset_ns: int) -> str:
        """The same with a frame of a title. Raises `FrameNotReady` besides."""
        files = await self._files(viewer, name, title_id, offset_ns)
        return await self._keep(viewer, name, files, offset_ns if name == f"titles/{title_id}" else None)

    async def _files(self, viewer: Viewer, name: str, title_id: str, offset_ns: int) -> dict[str, bytes]:
        frame = await self._store.read(
            lambda session: self._frame(session, viewer, name, title_id, offset_ns)
        )
        return await self._pictures.of_frame(frame)

    async def renew(self) -> None:
        """Take pictures anew that are frames of a source that was replaced: at their moment, or the new end.

        What is not encoded yet, or can't be made now, is left for the next time.
        """
        for title in await self._store.read(lambda session: session.stale_artwork(_AT_ONCE)):
            name = f"titles/{title.title_id}"
            offset_ns = min(title.artwork_frame_ns or 0, max((title.duration_ns or 0) - 1, 0))
            try:
                files = await self._files(_OURSELVES, name, title.title_id, offset_ns)
                await self._keep(_OURSELVES, name, files, offset_ns, instead_of=title.artwork)
            except (FrameNotReady, PictureChanged):
                continue
            except KinoError as error:
                _log.warning("picture not renewed", title=name, reason=error.reason)

    async def clear(self, viewer: Viewer, name: str) -> None:
        """Take the picture away. Raises `TitleNotFound`, `SeriesNotFound`, `NotYours`."""
        await self._store.write(lambda session: self._put(session, viewer, name, ""))
        self._changed()

    async def get(self, key: str) -> bytes:
        """A picture by its key. Raises `ArtworkNotFound`."""
        try:
            return await self._objects.get(key)
        except NotFound:
            raise ArtworkNotFound() from None

    async def _keep(
        self,
        viewer: Viewer,
        name: str,
        files: dict[str, bytes],
        frame_ns: int | None = None,
        instead_of: str | None = None,
    ) -> str:
        artwork = new_id()
        keys = [f"artwork/{name.partition('/')[2]}/{artwork}/{file}" for file in files]
        for key, data in zip(keys, files.values(), strict=True):
            await self._objects.put(key, data)
        try:
            await self._store.write(
                lambda session: self._put(session, viewer, name, artwork, frame_ns, instead_of)
            )
        except Exception:
            for key in keys:
                await self._objects.delete(key)
            raise
        self._changed()
        return artwork

    def _put(
        self,
        session: Session,
        viewer: Viewer,
        name: str,
        artwork: str,
        frame_ns: int | None = None,
        instead_of: str | None = None,
    ) -> None:
        old, now = _owned(session, viewer, name), self._clock.now()
        kind, _, owner_id = name.partition("/")
        if instead_of not in (None, old):
            raise PictureChanged(owner_id)
        if old == artwork:
            return
        if kind == "titles":
            fields = {"artwork": artwork, "artwork_frame_ns": frame_ns, "artwork_stale": False}
            session.save_title(owned(session, viewer, owner_id).changed(now, **fields))
        else:
            session.save_series(owned_series(session, viewer, owner_id).changed(now, artwork=artwork))
        if old:
            session.add_sweep(Sweep(title_id=owner_id, job=f"artwork/{old}", due_time=now, rounds=1))

    def _frame(self, session: Session, viewer: Viewer, name: str, title_id: str, offset_ns: int) -> Frame:
        _owned(session, viewer, name)
        title = owned(session, viewer, title_id)
        media = session.media(title_id, title.job)
        rendition = _rendition(media) if media else None
        if media is None or rendition is None or rendition.init is None:
            raise FrameNotReady(title_id)
        details = session.details(title_id, media.job)
        ticks = self._pictures.frame_ticks(MediaView(title=title, media=media, details=details), offset_ns)
        number = bisect_right(details.starts, ticks) - 1
        found = session.segments(title_id, media.job, rendition.rendition_id, max(number, 0), 1)
        if not found or found[0].number != number:
            raise FrameNotReady(title_id)
        return Frame(
            init_key=rendition.init.object_key,
            segment_key=found[0].object_key,
            ticks=ticks * rendition.init.timescale // media.timescale,
        )


def _owned(session: Session, viewer: Viewer, name: str) -> str:
    """The picture a title or series has. Raises unless `viewer` may change it."""
    kind, _, owner_id = name.partition("/")
    found = owned(session, viewer, owner_id) if kind == "titles" else owned_series(session, viewer, owner_id)
    return found.artwork


def _rendition(media: Media) -> Rendition | None:
    """The one whose frames are large enough at the least cost; H.264, which is decoded quickest."""
    ready = [r for r in media.renditions if r.kind is Kind.VIDEO and r.init is not None]
    h264 = sorted([r for r in ready if r.h264] or ready, key=lambda one: one.height)
    return next((one for one in h264 if one.height >= _HEIGHT), h264[-1] if h264 else None)

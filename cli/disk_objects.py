"""The object store by title, job and rendition, beside what the catalog says of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from cli.disk_records import Records
from cli.holdings import Holding, State, measured
from services.runtime.claims import claimed
from services.runtime.errors import KinoError
from services.runtime.objects import PATIENCE_S
from services.runtime.objects_local import contents
from services.runtime.settings import Settings, SettingsError

_PATIENCE_S = 2.0
_KINDS = {"media": "media", "sources": "source", "artwork": "artwork"}
_UNPUBLISHED = "by attempts that run or were cut short: the scheduler removes them when the job has ended"


@dataclass
class _Pile:
    """Objects that belong together."""

    count: int = 0
    size_bytes: int = 0
    #: Of these, those that every rendition has one of, and that are not counted as segments.
    init_count: int = 0
    init_bytes: int = 0

    def add(self, key: str, size_bytes: int) -> None:
        self.count += 1
        self.size_bytes += size_bytes
        if key.endswith("/init.mp4"):
            self.init_count += 1
            self.init_bytes += size_bytes


#: Kind, title or series, job or picture, rendition.
_Group = tuple[str, str, str, str]


async def objects_of(settings: Settings, records: Records) -> tuple[list[Holding], list[str]]:
    """All objects, and what could not be looked at."""
    piles: dict[_Group, _Pile] = {}
    problems = []
    try:
        async for key, size_bytes in _objects(settings):
            piles.setdefault(_group(key), _Pile()).add(key, size_bytes)
    except (KinoError, SettingsError) as error:
        problems.append(f"The object store can't be read: {error.message}")
    found = [one for group, pile in sorted(piles.items()) for one in _holdings(group, pile, records)]
    if settings.objects_store == "local":
        found += await asyncio.to_thread(_unfinished, settings)
    return found, problems


async def _objects(settings: Settings) -> AsyncIterator[tuple[str, int]]:
    if settings.objects_store == "local":
        # Opening the store would sweep it.
        for entry in await asyncio.to_thread(lambda: list(contents(settings.objects_folder))):
            yield entry
        return
    # Imported where it is used: half a second that other commands need not wait.
    from services.runtime.objects_s3 import open_s3

    PATIENCE_S.set(_PATIENCE_S)
    store = open_s3(settings)
    try:
        async for found in store.list():
            yield found.key, found.size_bytes
    finally:
        await store.close()


def _group(key: str) -> _Group:
    top, _, rest = key.partition("/")
    title, _, rest = rest.partition("/")
    item, _, rest = rest.partition("/")
    rendition = rest.rpartition("/")[0]
    return (_KINDS[top], title, item, rendition) if top in _KINDS else (top, "", "", "")


def _holdings(group: _Group, pile: _Pile, records: Records) -> list[Holding]:
    kind, title, item, rendition = group
    name = records.names.get(title, "")
    owner = " ".join(
        filter(None, (f"{title}/{item}" if title else kind, rendition, f"“{name}”" if name else ""))
    )
    state, note = _judged(group, records)
    count, size_bytes = pile.count, pile.size_bytes
    found = []
    published = records.published.get((title, item, rendition))
    over = count - pile.init_count - published[0] if published else 0
    if kind == "media" and state == "used" and published and over > 0:
        more_bytes = size_bytes - pile.init_bytes - published[1]
        found = [
            Holding(
                kind=kind,
                owner=owner,
                size_bytes=more_bytes,
                file_count=over,
                state="unpublished",
                note=_UNPUBLISHED,
            )
        ]
        count, size_bytes = count - over, size_bytes - more_bytes
    whole = Holding(
        kind=kind if title else "other object",
        owner=owner,
        size_bytes=size_bytes,
        file_count=count,
        state=state,
        note=note,
    )
    return [whole, *found]


def _judged(group: _Group, records: Records) -> tuple[State, str]:
    _, title, item, _ = group
    if not title:
        return "unknown", "no part of Kino's catalog names it"
    if not records.knows_catalog:
        return "unknown", "the catalog's database can't be read, so it isn't known whose it is"
    if (title, item) in records.kept or item in records.uploads:
        return "used", ""
    due = records.sweeps.get((title, item)) or records.sweeps.get((title, ""))
    if due is not None:
        return "orphan", f"the catalog removes it, next at {due:%Y-%m-%d %H:%M} UTC"
    return "orphan", "nothing names it any more, and nothing will remove it: delete it by hand"


def _unfinished(settings: Settings) -> list[Holding]:
    """What processes write now, or died over."""
    return [
        measured(one.path, "unfinished objects", "a running process")
        if one.alive
        else measured(
            one.path, "unfinished objects", one.path.name, "orphan", "whoever opens the store next removes it"
        )
        for one in claimed(settings.objects_folder / ".tmp")
    ]

"""What `kino doctor disk` says: who owns every byte, what is an orphan, and who collects it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cli.disk_objects import objects_of
from cli.disk_records import Records, database_sizes, read_records
from cli.holdings import Holding, measured
from services.runtime.claims import PREFIX, claimed
from services.runtime.settings import Settings

_NO_LOCK = "it has no lock: remove it by hand when nothing works in it"
_NO_RECORDS = "ingest's database can't be read, so it isn't known whose it is"


@dataclass(frozen=True, kw_only=True)
class Free:
    """The room on one disk."""

    path: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True, kw_only=True)
class Disk:
    """Everything that was found."""

    holdings: tuple[Holding, ...]
    disks: tuple[Free, ...]
    #: What could not be looked at, a sentence each.
    problems: tuple[str, ...]


async def examine_disk(settings: Settings) -> Disk:
    """Look at everything that this configuration names."""
    records = await asyncio.to_thread(read_records, settings)
    objects, problems = await objects_of(settings, records)
    holdings = [*objects, *await asyncio.to_thread(lambda: list(_local(settings, records)))]
    databases, more = await asyncio.to_thread(database_sizes, settings)
    return Disk(
        holdings=tuple(holdings + databases),
        disks=tuple(_disks(settings)),
        problems=(*records.problems, *problems, *more),
    )


def _local(settings: Settings, records: Records) -> Iterator[Holding]:
    data = settings.data_dir
    yield from _uploads(data / "uploads", records)
    yield from _scratch(settings)
    yield from _databases(data / "sql")
    yield from _each(data / "logs", "logs")
    yield from _whole(settings.edge_dir or data / "edge", "cache", "edge: segments of hot titles")
    yield from _whole(data / "scratch", "cache", "copies of sources that workers open")
    yield from _whole(settings.keys_folder, "keys", "the deployment's keys")
    yield from _whole(data / "run", "run", "the running Kino")
    known = {"uploads", "sql", "logs", "edge", "scratch", "keys", "run", "objects"}
    for path in _entries(data):
        if path.name not in known:
            yield measured(path, "other", path.name, "unknown", "no part of Kino knows it")


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _whole(folder: Path, kind: str, owner: str) -> Iterator[Holding]:
    if folder.is_dir():
        yield measured(folder, kind, owner)


def _each(folder: Path, kind: str) -> Iterator[Holding]:
    return (measured(path, kind, path.name) for path in _entries(folder))


def _databases(folder: Path) -> Iterator[Holding]:
    """SQLite's files by service: the database, its log and its index are one."""
    sizes, files = Counter[str](), Counter[str]()
    for path in _entries(folder):
        name = path.name.partition(".")[0]
        found = measured(path, "database", name)
        sizes[name] += found.size_bytes
        files[name] += found.file_count
    for name, size_bytes in sizes.items():
        yield Holding(kind="database", owner=name, size_bytes=size_bytes, file_count=files[name])


def _uploads(folder: Path, records: Records) -> Iterator[Holding]:
    for path in _entries(folder):
        upload = records.uploads.get(path.stem)
        if upload is not None:
            yield measured(path, "upload", f"{upload} (uploads/{path.stem})")
        elif records.knows_uploads:
            yield measured(path, "upload", path.name, "orphan", "ingest removes it when it starts next")
        else:
            yield measured(path, "upload", path.name, "unknown", _NO_RECORDS)


def _scratch(settings: Settings) -> Iterator[Holding]:
    """What workers and commands write meanwhile: a lock beside each folder tells whether they live."""
    for root in {settings.scratch_dir or Path(tempfile.gettempdir()), Path(tempfile.gettempdir())}:
        held = claimed(root, PREFIX)
        for one in held:
            work = one.note.get("task") or one.path.name.removeprefix(PREFIX).partition("-")[0]
            owner = f"{one.note.get('worker') or 'unnamed'}: {work}"
            state: Literal["used", "orphan"] = "used" if one.alive else "orphan"
            note = "" if one.alive else "the next worker removes it that starts there or finds its disk full"
            yield measured(one.path, "scratch", owner, state, note)
        told = {one.path for one in held} | {settings.data_dir, settings.objects_folder}
        for path in sorted(root.glob(f"{PREFIX}*")):
            if path not in told and path.is_dir() and path.stat().st_uid == os.geteuid():
                yield measured(path, "scratch", path.name, "unknown", _NO_LOCK)


def _disks(settings: Settings) -> Iterator[Free]:
    wanted: Iterable[Path | None] = (
        settings.data_dir,
        settings.objects_folder if settings.objects_store == "local" else None,
        settings.edge_dir,
        settings.scratch_dir or Path(tempfile.gettempdir()),
    )
    seen = set()
    for path in wanted:
        if path is not None and path.exists() and (device := path.stat().st_dev) not in seen:
            seen.add(device)
            room = shutil.disk_usage(path)
            yield Free(path=str(path), free_bytes=room.free, total_bytes=room.total)

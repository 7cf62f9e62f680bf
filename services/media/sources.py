"""A source of the origin as a file that can be seeked in."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from services.runtime.objects import PIECE_BYTES, ObjectStore


@asynccontextmanager
async def source_file(objects: ObjectStore, key: str) -> AsyncIterator[Path]:
    """The object's own file where the store has one, else a scratch copy that goes with the context.

    Raises `ObjectNotFound`.
    """
    own = await objects.local_path(key)
    if own is not None:
        yield own
        return
    info = await objects.stat(key)
    with tempfile.TemporaryDirectory(prefix="kino-source-") as folder:
        copy = Path(folder) / "source"
        with copy.open("wb") as file:
            async for piece in objects.stream(key, 0, info.size_bytes, PIECE_BYTES):
                file.write(piece)
        yield copy

"""One owner's bytes, as `kino doctor disk` tells them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

State = Literal["used", "unpublished", "orphan", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Holding:
    """Bytes of one owner."""

    #: What it is: `source`, `media`, `scratch`, …
    kind: str
    owner: str
    size_bytes: int
    file_count: int
    #: `unpublished`: by attempts that run, or were cut short; `unknown`: what we could read doesn't tell.
    state: State = "used"
    #: Who collects what is not in use, or why that isn't known.
    note: str = ""


def measured(path: Path, kind: str, owner: str, state: State = "used", note: str = "") -> Holding:
    """All that lies below a path."""
    sizes = list(_sizes(path))
    return Holding(
        kind=kind, owner=owner, size_bytes=sum(sizes), file_count=len(sizes), state=state, note=note
    )


def _sizes(path: Path) -> Iterator[int]:
    """Of every file; what vanishes meanwhile, or may not be seen, is left out."""
    with suppress(OSError):
        if not path.is_dir():
            yield path.lstat().st_size
    for folder, _, names in os.walk(path):
        for name in names:
            with suppress(OSError):
                yield os.lstat(os.path.join(folder, name)).st_size

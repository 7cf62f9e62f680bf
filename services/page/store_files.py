"""The page's files in a folder as Vite writes it: `index.html` and what lies beside it, and `assets/`."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from services.page.model import INDEX, Asset
from services.page.store import AssetNotFound, PageNotBuilt

_Stamp = tuple[int, int]


class FileAssets:
    """Files kept in memory once read, and read again when they change on disk."""

    def __init__(self, folder: Path) -> None:
        """Names must have been checked to hold no separator."""
        self._folder = folder
        self._read: dict[Path, tuple[_Stamp, Asset]] = {}

    async def get(self, name: str) -> Asset:
        """See `AssetStore.get`."""
        return await asyncio.to_thread(self._get, name)

    def _get(self, name: str) -> Asset:
        # Compressed copies are chosen by negotiation, never by name.
        if not name.startswith(".") and not name.endswith(".br"):
            for path in (self._folder / name, self._folder / "assets" / name):
                if path.is_file():
                    return self._asset(path)
        if not (self._folder / INDEX).is_file():
            raise PageNotBuilt()
        raise AssetNotFound(name)

    def _asset(self, path: Path) -> Asset:
        found = path.stat()
        stamp = found.st_mtime_ns, found.st_size
        known = self._read.get(path)
        if known is None or known[0] != stamp:
            plain, brotli = path.read_bytes(), path.with_name(path.name + ".br")
            asset = Asset(
                name=path.name,
                digest=hashlib.sha256(plain).hexdigest(),
                plain=plain,
                brotli=brotli.read_bytes() if brotli.is_file() else None,
            )
            known = self._read[path] = stamp, asset
        return known[1]

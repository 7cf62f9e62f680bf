"""Where the page's files are."""

from __future__ import annotations

from typing import Protocol

from services.page.model import Asset
from services.runtime.errors import FailedPrecondition, NotFound


class AssetNotFound(NotFound):
    """The page has no file {resource}."""

    reason = "ASSET_NOT_FOUND"


class PageNotBuilt(FailedPrecondition):
    """The web page is not built: run `make web`."""

    reason = "PAGE_NOT_BUILT"


class AssetStore(Protocol):
    """The files of one build of the page."""

    async def get(self, name: str) -> Asset:
        """A file by its name, without folders. Raises `AssetNotFound`, `PageNotBuilt`."""

"""Where the index lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.search.model import Document, Hit, Viewer


class TitleIndex(Protocol):
    """Titles that can be searched, in generations: one answers, and a next one may be built beside it.

    Acknowledged means durable. In every generation an older version of a title never replaces a newer one.
    """

    async def put(self, documents: Sequence[Document]) -> None:
        """Put titles in or take deleted ones out, in the answering generation and in the one being built."""

    async def search(self, query: str, viewer: Viewer, limit: int) -> list[Hit]:
        """At most `limit` hits, best first, as `services.search.model.rank` has it.

        All of `query` is plain text. What `viewer` may not see is left out before anything is ranked.
        """

    async def built(self) -> bool:
        """Whether a generation was ever finished; an index that came by news alone may lack titles."""

    async def begin(self) -> int:
        """Begin a new generation and give up one that was never finished."""

    async def fill(self, generation: int, documents: Sequence[Document]) -> None:
        """Put titles into a generation that is being built."""

    async def finish(self, generation: int) -> int:
        """Let a built generation answer from now on and drop the other; the number of titles in it."""

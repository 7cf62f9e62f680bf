"""Where the index lies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from services.runtime.errors import Aborted, Unavailable
from services.search.model import Document, Hit, Viewer


class SearchUnavailable(Unavailable):
    """The search index can't be reached at the moment; try again."""

    reason = "SEARCH_UNAVAILABLE"


class IndexLost(SearchUnavailable):
    """The search index is being built anew from the catalog; try again."""

    reason = "SEARCH_INDEX_BUILDING"


class RebuildSuperseded(Aborted):
    """Another rebuild of the search index was begun after this one and goes on in its place."""

    reason = "REBUILD_SUPERSEDED"


class TitleIndex(Protocol):
    """Titles that can be searched, in generations: one answers, and a next one may be built beside it.

    Acknowledged means durable, and found by every search that begins afterwards. In every generation an older
    version of a title never replaces a newer one. Several processes may share an index. Every method raises
    `SearchUnavailable` while the index can't be reached: what was asked for may have happened or not, and may
    be repeated.
    """

    async def put(self, documents: Sequence[Document]) -> None:
        """Put titles in or take deleted ones out, in the answering generation and in the one being built.

        A put that begins before a generation is begun may be missing from it: the titles must have been in
        the catalog before. Raises `IndexLost` when no generation answers.
        """

    async def search(self, query: str, viewer: Viewer, limit: int) -> list[Hit]:
        """At most `limit` hits, best first, as `services.search.model.rank` has it.

        All of `query` is plain text. What `viewer` may not see is left out before anything is ranked. Raises
        `IndexLost` when no generation answers.
        """

    async def built(self) -> bool:
        """Whether the answering generation was finished and is there.

        One that came by news alone may lack titles; one that was deleted or damaged has to be built anew.
        """

    async def begin(self) -> int:
        """Begin a new generation and give up one that was never finished."""

    async def fill(self, generation: int, documents: Sequence[Document]) -> None:
        """Put titles into a generation that is being built. Raises `RebuildSuperseded` if it was given up."""

    async def finish(self, generation: int) -> int:
        """Let a built generation answer from now on and drop the other; the number of titles in it.

        Raises `RebuildSuperseded` if it was given up.
        """

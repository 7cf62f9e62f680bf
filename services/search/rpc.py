"""`kino.search.v1.SearchService`: Protobuf to domain and back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog_resources
from kino.search.v1 import resources_pb2 as res
from kino.search.v1 import search_pb2 as pb
from kino.search.v1 import search_pb2_grpc
from services.runtime.auth import OPERATOR, principal
from services.runtime.paging import Pager, page_size
from services.search.model import Document, Hit, Viewer
from services.search.usecases import Search

_DEFAULT_PAGE = 20
_MAX_PAGE = 50
_CATALOG_PAGE = 200


class SearchServicer(search_pb2_grpc.SearchServiceServicer):
    """Serves the use cases of search."""

    def __init__(self, search: Search, pager: Pager) -> None:
        """`pager` makes the page tokens."""
        self._search = search
        self._pager = pager

    async def SearchTitles(self, request: pb.SearchTitlesRequest, context: Any) -> pb.SearchTitlesResponse:
        """See the contract."""
        caller = principal()
        viewer = Viewer(subject=caller.subject, sees_all=caller.has_role(OPERATOR))
        limit = page_size(request.page_size, default=_DEFAULT_PAGE, maximum=_MAX_PAGE)
        asked = f"SearchTitles {viewer.subject} {request.query}"
        cursor = self._pager.cursor(asked, request.page_token)
        offset = int(cursor[0] or 0) if cursor else 0
        page = await self._search.find(request.query, viewer, offset, limit)
        response = pb.SearchTitlesResponse(hits=[_hit(hit) for hit in page.hits])
        if page.more:
            response.next_page_token = self._pager.token(asked, [offset + limit])
        return response

    async def IndexTitles(self, request: pb.IndexTitlesRequest, context: Any) -> pb.IndexTitlesResponse:
        """See the contract."""
        await self._search.put([_document(document) for document in request.documents])
        return pb.IndexTitlesResponse()

    async def RebuildIndex(self, request: pb.RebuildIndexRequest, context: Any) -> pb.RebuildIndexResponse:
        """See the contract."""
        return pb.RebuildIndexResponse(title_count=await self._search.rebuild())


async def catalog_titles(stub: catalog_pb2_grpc.CatalogServiceStub) -> AsyncIterator[Sequence[Document]]:
    """All titles of the catalog, page by page."""
    token = ""
    while True:
        page = await stub.ListTitles(catalog_pb2.ListTitlesRequest(page_size=_CATALOG_PAGE, page_token=token))
        yield [_from_title(title) for title in page.titles]
        token = page.next_page_token
        if not token:
            return


def _name(series: str, name: str) -> str:
    """What a title is found by: an episode by its series too."""
    return f"{series}: {name}" if series else name


def _from_title(title: catalog_resources.Title) -> Document:
    return Document(
        title=title.name,
        version=title.version,
        display_name=_name(title.place.series_display_name, title.display_name),
        release_year=title.release_year,
        owner=title.owner,
        visible=title.HasField("playable_time") and not title.unpublished,
    )


def _document(message: res.TitleDocument) -> Document:
    return Document(
        title=message.title,
        version=message.version,
        display_name=_name(message.series_display_name, message.display_name),
        release_year=message.release_year,
        owner=message.owner,
        visible=message.visible,
        deleted=message.deleted,
    )


def _hit(hit: Hit) -> res.TitleHit:
    return res.TitleHit(
        title=hit.document.title,
        display_name=hit.document.display_name,
        release_year=hit.document.release_year,
        score=hit.score,
    )

"""`kino.catalog.v1.WatchlistService`: Protobuf to domain and back."""

from __future__ import annotations

from typing import Any

from kino.catalog.v1 import resources_pb2 as res
from kino.catalog.v1 import watchlist_pb2 as pb
from kino.catalog.v1 import watchlist_pb2_grpc
from services.catalog.model import Title
from services.catalog.watchlist import Entry, Watchlist
from services.catalog.wire import Caller, Callers, after_of, series_message, title_message
from services.runtime.auth import require_user
from services.runtime.paging import Pager, page_size


class WatchlistServicer(watchlist_pb2_grpc.WatchlistServiceServicer):
    """Serves the use cases of watchlists."""

    def __init__(self, watchlist: Watchlist, pager: Pager, callers: Callers) -> None:
        """`pager` makes the page tokens."""
        self._watchlist = watchlist
        self._pager = pager
        self._callers = callers

    async def CreateWatchlistEntry(
        self, request: pb.CreateWatchlistEntryRequest, context: Any
    ) -> pb.CreateWatchlistEntryResponse:
        """See the contract. The entry is named by its subject, so repeating the request makes none anew."""
        require_user(request.parent)
        caller = self._callers.of(context)
        entry = await self._watchlist.add(caller.viewer, request.parent, request.entry.subject)
        return pb.CreateWatchlistEntryResponse(entry=_message(entry, caller))

    async def ListWatchlist(self, request: pb.ListWatchlistRequest, context: Any) -> pb.ListWatchlistResponse:
        """See the contract."""
        require_user(request.parent)
        caller, limit = self._callers.of(context), page_size(request.page_size)
        query = f"ListWatchlist {request.parent}"
        after = after_of(self._pager.cursor(query, request.page_token))
        found = await self._watchlist.entries(caller.viewer, request.parent, after, limit + 1)
        response = pb.ListWatchlistResponse(
            entries=[_message(entry, caller) for entry in found[:limit] if entry.details is not None]
        )
        if len(found) > limit:
            last = found[limit - 1]
            response.next_page_token = self._pager.token(query, [last.add_time.isoformat(), last.subject])
        return response

    async def DeleteWatchlistEntry(
        self, request: pb.DeleteWatchlistEntryRequest, context: Any
    ) -> pb.DeleteWatchlistEntryResponse:
        """See the contract."""
        require_user(request.name)
        profile, _, entry = request.name.partition("/watchlist/")
        await self._watchlist.remove(profile, entry)
        return pb.DeleteWatchlistEntryResponse()

    async def ClearWatchlist(
        self, request: pb.ClearWatchlistRequest, context: Any
    ) -> pb.ClearWatchlistResponse:
        """See the contract."""
        require_user(request.parent)
        await self._watchlist.clear(request.parent)
        return pb.ClearWatchlistResponse()


def _message(entry: Entry, caller: Caller) -> res.WatchlistEntry:
    message = res.WatchlistEntry(
        name=f"{entry.profile}/watchlist/{entry.subject.partition('/')[2]}", subject=entry.subject
    )
    message.create_time.FromDatetime(entry.add_time)
    if isinstance(entry.details, Title):
        message.title.CopyFrom(title_message(entry.details, caller))
    elif entry.details is not None:
        message.series.CopyFrom(series_message(entry.details))
    return message

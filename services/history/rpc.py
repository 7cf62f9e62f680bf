"""`kino.history.v1.HistoryService`: Protobuf to domain and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from kino.history.v1 import history_pb2 as pb
from kino.history.v1 import history_pb2_grpc
from kino.history.v1 import resources_pb2 as res
from kino.playback.v1.resources_pb2 import LeaseClaims
from services.history.model import Key, Order, Report, View
from services.history.usecases import History
from services.media.time import NS_PER_SECOND
from services.runtime.auth import require_user
from services.runtime.clock import Clock
from services.runtime.names import parse
from services.runtime.paging import Pager, page_size
from services.runtime.sealed import Sealer
from services.runtime.wire import duration

#: A device that was offline may report so long after its lease token expired.
LATE = timedelta(days=1)
_CONTINUE_DEFAULT = 20
_CONTINUE_MAX = 50


class HistoryServicer(history_pb2_grpc.HistoryServiceServicer):
    """Serves the use cases of history."""

    def __init__(self, history: History, sealer: Sealer, pager: Pager, clock: Clock) -> None:
        """`sealer` opens lease tokens; `clock` says when a report was heard."""
        self._history = history
        self._sealer = sealer
        self._pager = pager
        self._clock = clock

    async def RecordProgress(
        self, request: pb.RecordProgressRequest, context: Any
    ) -> pb.RecordProgressResponse:
        """See the contract."""
        claims = LeaseClaims.FromString(self._sealer.open("lease", request.lease_token, LATE))
        report = _report(request, claims, self._clock.now())
        view = await self._history.record(report)
        return pb.RecordProgressResponse(view=_empty(report.key) if view is None else _message(view))

    async def GetView(self, request: pb.GetViewRequest, context: Any) -> pb.GetViewResponse:
        """See the contract."""
        return pb.GetViewResponse(view=_message(await self._history.get(_own_view(request.name))))

    async def ListViews(self, request: pb.ListViewsRequest, context: Any) -> pb.ListViewsResponse:
        """See the contract."""
        require_user(request.parent)
        asked = f"ListViews {request.parent}"
        after = _after(self._pager.cursor(asked, request.page_token))
        page = await self._history.views(request.parent, after, page_size(request.page_size))
        response = pb.ListViewsResponse(views=[_message(view) for view in page.views])
        if page.more:
            last = page.views[-1]
            response.next_page_token = self._pager.token(
                asked, [last.last_watch_time.isoformat(), last.key.title]
            )
        return response

    async def ListContinueWatching(
        self, request: pb.ListContinueWatchingRequest, context: Any
    ) -> pb.ListContinueWatchingResponse:
        """See the contract."""
        require_user(request.parent)
        limit = page_size(request.page_size, default=_CONTINUE_DEFAULT, maximum=_CONTINUE_MAX)
        views = await self._history.continue_watching(request.parent, limit)
        return pb.ListContinueWatchingResponse(views=[_message(view) for view in views])

    async def DeleteView(self, request: pb.DeleteViewRequest, context: Any) -> pb.DeleteViewResponse:
        """See the contract."""
        await self._history.delete(_own_view(request.name))
        return pb.DeleteViewResponse()

    async def ClearHistory(self, request: pb.ClearHistoryRequest, context: Any) -> pb.ClearHistoryResponse:
        """See the contract."""
        require_user(request.parent)
        await self._history.clear(request.parent)
        return pb.ClearHistoryResponse()


def _own_view(name: str) -> Key:
    """The view a name stands for, which must be the caller's. Raises `NotYours`."""
    parts = parse("users/{user}/profiles/{profile}/views/{title}", name)
    require_user(name)
    return Key(
        profile=f"users/{parts['user']}/profiles/{parts['profile']}",
        title=f"titles/{parts['title']}",
    )


def _after(cursor: list[str | int | float | None] | None) -> tuple[datetime, str] | None:
    return None if cursor is None else (datetime.fromisoformat(str(cursor[0])), str(cursor[1]))


def _report(request: pb.RecordProgressRequest, claims: LeaseClaims, now: datetime) -> Report:
    return Report(
        key=Key(profile=claims.profile, title=claims.title),
        order=Order(
            start_time=claims.start_time.ToDatetime(UTC), lease=claims.lease, sequence=request.sequence
        ),
        position_ns=_ns(request.position),
        intervals=tuple((_ns(i.start_offset), _ns(i.end_offset)) for i in request.intervals),
        duration_ns=_ns(claims.title_duration),
        device=claims.device,
        receive_time=now,
    )


def _ns(duration: Duration) -> int:
    return duration.seconds * NS_PER_SECOND + duration.nanos


def _empty(key: Key) -> res.View:
    return res.View(name=key.name, title=key.title)


def _message(view: View) -> res.View:
    message = res.View(
        name=view.key.name,
        title=view.key.title,
        position=duration(view.position_ns),
        intervals=[
            res.Interval(start_offset=duration(start), end_offset=duration(end))
            for start, end in view.intervals
        ],
        completion=view.completion,
        device=view.device,
    )
    if view.duration_ns:
        message.title_duration.CopyFrom(duration(view.duration_ns))
    message.first_watch_time.FromDatetime(view.first_watch_time)
    message.last_watch_time.FromDatetime(view.last_watch_time)
    return message

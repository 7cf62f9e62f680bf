"""What catalog told, kept in an edge's folder: a restarted node serves what it keeps without catalog."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import ParamSpec, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message

from kino.catalog.v1 import catalog_pb2 as pb
from kino.catalog.v1.catalog_pb2_grpc import CatalogServiceStub
from services.playback.folder import Folder
from services.runtime.clock import Clock
from services.runtime.logs import logger

M = TypeVar("M", bound=Message)
P = ParamSpec("P")
R = TypeVar("R")

#: Catalog's own words; after any other failure what it told before may serve.
_ANSWERS = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
#: An answer that says the same as before is not written again sooner.
_SAME = timedelta(seconds=30)
_log = logger("playback.edge")


class RememberedCatalog:
    """The calls of catalog's stub that playback makes, answered from the folder while catalog is away.

    What is kept beyond the time that old answers may serve is removed; segments never change and stay as long
    as their title. None of it counts to the edge's budget: it takes a thousandth of the media.
    """

    def __init__(self, catalog: CatalogServiceStub, folder: Folder, stale: timedelta, clock: Clock) -> None:
        """`stale` is how long after catalog confirmed it an answer may serve."""
        self._catalog = catalog
        self._folder = folder
        self._stale = stale
        self._clock = clock
        self._written: dict[str, tuple[bytes, datetime]] = {}
        #: Availability is never remembered: nothing starts without catalog.
        self.CheckAvailability = catalog.CheckAvailability

    async def GetMedia(self, request: pb.GetMediaRequest) -> pb.GetMediaResponse:
        """See the contract."""
        name = _name("media", request.title, request.job)
        try:
            answer = await self._catalog.GetMedia(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                await self._in_thread(self._folder.forget, name)
                self._written.pop(name, None)
            old = await self._recalled(name, pb.GetMediaResponse, error)
            if old is None:
                raise
            return old
        await self._remember(name, answer)
        if not request.job:
            # A lease is bound to the job that played when it was taken.
            await self._remember(_name("media", request.title, answer.media.job), answer)
        return answer

    async def ListSegments(self, request: pb.ListSegmentsRequest) -> pb.ListSegmentsResponse:
        """See the contract."""
        name = _name("segments", request.title, request.job, request.rendition_id)
        try:
            answer = await self._catalog.ListSegments(request)
        except grpc.aio.AioRpcError as error:
            old = await self._recalled(name, pb.ListSegmentsResponse, error, timed=False)
            if old is None:
                raise
            wanted = [one for one in old.segments if one.number >= request.first_segment]
            return pb.ListSegmentsResponse(segments=wanted[: request.page_size or None])
        await self._in_thread(self._merge, name, answer)
        return answer

    def purge(self) -> None:
        """Forget titles that may not serve any more. Blocks."""
        before = self._clock.now() - self._stale
        live = set()
        for name, time in self._folder.states("edge-media@"):
            if time < before:
                self._folder.forget(name)
            else:
                live.add(name.removeprefix("edge-media@"))
        for name, _ in self._folder.states("edge-segments@"):
            if name.removeprefix("edge-segments@").rpartition("@")[0] not in live:
                self._folder.forget(name)

    async def _remember(self, name: str, answer: Message) -> None:
        data, now = answer.SerializeToString(), self._clock.now()
        last = self._written.get(name)
        if last is None or last[0] != data or now - last[1] >= _SAME:
            self._written[name] = data, now
            await self._in_thread(self._folder.remember, name, data, now)

    def _merge(self, name: str, answer: pb.ListSegmentsResponse) -> None:
        known = pb.ListSegmentsResponse.FromString(self._folder.remembered(name) or b"")
        segments = {one.number: one for one in (*known.segments, *answer.segments)}
        if len(segments) > len(known.segments):
            merged = pb.ListSegmentsResponse(segments=[segments[number] for number in sorted(segments)])
            self._folder.remember(name, merged.SerializeToString(), self._clock.now())

    async def _recalled(
        self, name: str, kind: type[M], error: grpc.aio.AioRpcError, *, timed: bool = True
    ) -> M | None:
        if error.code() in _ANSWERS:
            return None
        after = self._clock.now() - self._stale if timed else None
        data = await self._in_thread(self._folder.remembered, name, after)
        if data is None:
            return None
        _log.warning(
            "catalog does not answer, what it told before serves", state=name, code=error.code().name
        )
        return kind.FromString(data)

    @staticmethod
    async def _in_thread(call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return await asyncio.to_thread(call, *args, **kwargs)
        except OSError as error:
            _log.error("the edge's disk refuses what it should remember", problem=str(error))
            return None


def _name(kind: str, *parts: str) -> str:
    """`edge-media@{title}@{job}`, `edge-segments@{title}@{job}@{rendition}`."""
    return "@".join((f"edge-{kind}", *(part.rpartition("/")[2] for part in parts)))

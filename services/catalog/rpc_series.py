"""`kino.catalog.v1.SeriesService`: Protobuf to domain and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kino.catalog.v1 import resources_pb2 as res
from kino.catalog.v1 import series_pb2 as pb
from kino.catalog.v1 import series_pb2_grpc
from services.catalog.model import Title
from services.catalog.series import Season
from services.catalog.series_usecases import Shelf
from services.catalog.text import check_plain
from services.catalog.wire import (
    Caller,
    Callers,
    after_of,
    episode_name,
    masked,
    series_message,
    text_message,
    text_of,
    title_message,
    viewer,
)
from services.runtime.errors import InvalidArgument
from services.runtime.names import parse
from services.runtime.paging import Pager, page_size

_SERIES = "series/{series}"
_SEASON = "series/{series}/seasons/{season}"
_EPISODE = "series/{series}/seasons/{season}/episodes/{episode}"
#: The season that stands for all of a series.
_ALL = "-"


class SeriesServicer(series_pb2_grpc.SeriesServiceServicer):
    """Serves the use cases of series."""

    def __init__(self, shelf: Shelf, pager: Pager, callers: Callers) -> None:
        """`pager` makes the page tokens."""
        self._shelf = shelf
        self._pager = pager
        self._callers = callers

    async def CreateSeries(self, request: pb.CreateSeriesRequest, context: Any) -> pb.CreateSeriesResponse:
        """See the contract."""
        text = text_of(request.series)
        fingerprint = text_message(text).SerializeToString(deterministic=True)
        series = await self._shelf.create(viewer().subject, text, request.request_id, fingerprint)
        return pb.CreateSeriesResponse(series=series_message(series))

    async def GetSeries(self, request: pb.GetSeriesRequest, context: Any) -> pb.GetSeriesResponse:
        """See the contract."""
        series = await self._shelf.get(viewer(), _series_id(request.name))
        return pb.GetSeriesResponse(series=series_message(series))

    async def ListSeries(self, request: pb.ListSeriesRequest, context: Any) -> pb.ListSeriesResponse:
        """See the contract."""
        query = f"ListSeries {viewer().subject}"
        after = after_of(self._pager.cursor(query, request.page_token))
        page = await self._shelf.newest(viewer(), after, page_size(request.page_size))
        response = pb.ListSeriesResponse(series=map(series_message, page.items))
        if page.more:
            last = page.items[-1]
            response.next_page_token = self._pager.token(
                query, [last.create_time.isoformat(), last.series_id]
            )
        return response

    async def UpdateSeries(self, request: pb.UpdateSeriesRequest, context: Any) -> pb.UpdateSeriesResponse:
        """See the contract."""
        series_id = parse(_SERIES, request.series.name, "series.name")["series"]
        fields = masked(request.update_mask, ("display_name", "description", "release_year", "genres"))
        wanted = text_of(request.series)
        changes = {field: getattr(wanted, field) for field in fields}
        series = await self._shelf.update(
            viewer(), series_id, lambda text: replace(text, **changes), request.series.etag
        )
        return pb.UpdateSeriesResponse(series=series_message(series))

    async def DeleteSeries(self, request: pb.DeleteSeriesRequest, context: Any) -> pb.DeleteSeriesResponse:
        """See the contract."""
        await self._shelf.delete(viewer(), _series_id(request.name))
        return pb.DeleteSeriesResponse()

    async def CreateSeason(self, request: pb.CreateSeasonRequest, context: Any) -> pb.CreateSeasonResponse:
        """See the contract."""
        check_plain("season.display_name", request.season.display_name)
        season = await self._shelf.add_season(
            viewer(),
            _series_id(request.parent, "parent"),
            request.season.number,
            request.season.display_name,
            request.request_id,
        )
        return pb.CreateSeasonResponse(season=_season_message(season))

    async def ListSeasons(self, request: pb.ListSeasonsRequest, context: Any) -> pb.ListSeasonsResponse:
        """See the contract."""
        seasons = await self._shelf.seasons(viewer(), _series_id(request.parent, "parent"))
        return pb.ListSeasonsResponse(seasons=map(_season_message, seasons))

    async def UpdateSeason(self, request: pb.UpdateSeasonRequest, context: Any) -> pb.UpdateSeasonResponse:
        """See the contract."""
        name = parse(_SEASON, request.season.name, "season.name")
        check_plain("season.display_name", request.season.display_name)
        fields = masked(request.update_mask, ("number", "display_name"))
        changes: dict[str, Any] = {field: getattr(request.season, field) for field in fields}
        season = await self._shelf.update_season(
            viewer(), name["series"], name["season"], lambda old: replace(old, **changes)
        )
        return pb.UpdateSeasonResponse(season=_season_message(season))

    async def DeleteSeason(self, request: pb.DeleteSeasonRequest, context: Any) -> pb.DeleteSeasonResponse:
        """See the contract."""
        name = parse(_SEASON, request.name)
        await self._shelf.delete_season(viewer(), name["series"], name["season"])
        return pb.DeleteSeasonResponse()

    async def CreateEpisode(self, request: pb.CreateEpisodeRequest, context: Any) -> pb.CreateEpisodeResponse:
        """See the contract."""
        caller, name = self._callers.of(context), parse(_SEASON, request.parent, "parent")
        title_id = parse("titles/{title}", request.episode.title, "episode.title")["title"]
        title = await self._shelf.add_episode(
            caller.viewer,
            name["series"],
            name["season"],
            title_id,
            request.episode.number,
            request.request_id,
        )
        return pb.CreateEpisodeResponse(episode=_episode_message(title, caller))

    async def ListEpisodes(self, request: pb.ListEpisodesRequest, context: Any) -> pb.ListEpisodesResponse:
        """See the contract."""
        caller, limit = self._callers.of(context), page_size(request.page_size)
        series_id, season_id = _season_or_all(request.parent)
        query = f"ListEpisodes {caller.viewer.subject} {request.parent}"
        cursor = self._pager.cursor(query, request.page_token)
        after = (int(cursor[0] or 0), int(cursor[1] or 0)) if cursor else (-1, -1)
        page = await self._shelf.episodes(caller.viewer, series_id, season_id, after, limit)
        response = pb.ListEpisodesResponse(episodes=[_episode_message(one, caller) for one in page.items])
        last = page.items[-1].place if page.items else None
        if page.more and last is not None:
            response.next_page_token = self._pager.token(query, last.order)
        return response

    async def ReorderEpisodes(
        self, request: pb.ReorderEpisodesRequest, context: Any
    ) -> pb.ReorderEpisodesResponse:
        """See the contract."""
        name = parse(_SEASON, request.parent, "parent")
        order = []
        for index, episode in enumerate(request.episodes):
            field = f"episodes[{index}]"
            parts = parse(_EPISODE, episode, field)
            if not episode.startswith(f"{request.parent}/"):
                raise InvalidArgument(field, "must lie below `parent`")
            order.append(parts["episode"])
        await self._shelf.reorder(viewer(), name["series"], name["season"], order)
        return pb.ReorderEpisodesResponse()

    async def DeleteEpisode(self, request: pb.DeleteEpisodeRequest, context: Any) -> pb.DeleteEpisodeResponse:
        """See the contract."""
        name = parse(_EPISODE, request.name)
        await self._shelf.remove_episode(viewer(), name["series"], name["season"], name["episode"])
        return pb.DeleteEpisodeResponse()

    async def GetNextEpisode(
        self, request: pb.GetNextEpisodeRequest, context: Any
    ) -> pb.GetNextEpisodeResponse:
        """See the contract."""
        caller = self._callers.of(context)
        title_id = parse("titles/{title}", request.title, "title")["title"]
        title = await self._shelf.next_episode(caller.viewer, title_id)
        return pb.GetNextEpisodeResponse(episode=_episode_message(title, caller) if title else None)


def _series_id(name: str, field: str = "name") -> str:
    return parse(_SERIES, name, field)["series"]


def _season_or_all(name: str) -> tuple[str, str]:
    """Series and season; an empty season for all of them."""
    if name.endswith(f"/seasons/{_ALL}"):
        return _series_id(name.removesuffix(f"/seasons/{_ALL}"), "parent"), ""
    parts = parse(_SEASON, name, "parent")
    return parts["series"], parts["season"]


def _season_message(season: Season) -> res.Season:
    message = res.Season(
        name=f"series/{season.series_id}/seasons/{season.season_id}",
        number=season.number,
        display_name=season.display_name,
    )
    message.create_time.FromDatetime(season.create_time)
    return message


def _episode_message(title: Title, caller: Caller) -> res.Episode:
    assert title.place is not None
    return res.Episode(
        name=episode_name(title.title_id, title.place),
        title=f"titles/{title.title_id}",
        number=title.place.number,
        details=title_message(title, caller),
    )

"""`kino series` and `kino watchlist`."""

from __future__ import annotations

import uuid
from typing import Annotated

import typer

from cli.client import Kino, connect
from cli.commands.library import ProfileName, TitleName
from cli.main import State, run
from cli.output import clock
from kino.catalog.v1 import resources_pb2 as catalog
from kino.catalog.v1 import series_pb2, series_pb2_grpc, watchlist_pb2_grpc
from kino.catalog.v1 import watchlist_pb2 as lists

SeriesName = Annotated[str, typer.Argument(help="`series/…`")]
SeasonName = Annotated[str, typer.Argument(help="`series/…/seasons/…`")]
Subject = Annotated[str, typer.Argument(help="`titles/…` or `series/…`")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    series = typer.Typer(no_args_is_help=True, help="Series, their seasons and episodes.")
    series.command("list")(list_series)
    series.command("create")(create_series)
    series.command("show")(show_series)
    series.command("add-season")(add_season)
    series.command("add-episode")(add_episode)
    series.command("reorder")(reorder)
    series.command("remove-episode")(remove_episode)
    series.command("delete")(delete_series)
    app.add_typer(series, name="series")
    watchlist = typer.Typer(no_args_is_help=True, help="What a profile wants to watch.")
    watchlist.command("list")(list_watchlist)
    watchlist.command("add")(add_to_watchlist)
    watchlist.command("remove")(remove_from_watchlist)
    app.add_typer(watchlist, name="watchlist")


def list_series(context: typer.Context) -> None:
    """List series, newest first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            page = await _series(kino).ListSeries(series_pb2.ListSeriesRequest(page_size=200))
            rows = [(one.name, one.display_name, one.release_year or "") for one in page.series]
            state.output.messages(page.series, ("series", "name", "year"), rows)

    run(work)


def create_series(
    context: typer.Context,
    name: Annotated[str, typer.Option(help="Name to show.")],
    description: Annotated[str, typer.Option(help="Words about it.")] = "",
    year: Annotated[int, typer.Option(help="Year of first showing.")] = 0,
    genre: Annotated[list[str] | None, typer.Option(help="A genre; may be repeated.")] = None,
) -> None:
    """Make a series.

    \b
    kino series create --name "Nights at Sea" --genre drama
    """
    state: State = context.obj
    new = catalog.Series(display_name=name, description=description, release_year=year, genres=genre or [])

    async def work() -> None:
        async with connect(state.url) as kino:
            request = series_pb2.CreateSeriesRequest(series=new, request_id=str(uuid.uuid4()))
            made = (await _series(kino).CreateSeries(request)).series
            state.output.facts({"series": made.name})

    run(work)


def show_series(context: typer.Context, series: SeriesName) -> None:
    """Show a series' episodes in order."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = series_pb2.ListEpisodesRequest(parent=f"{series}/seasons/-", page_size=200)
            seasons = await _series(kino).ListSeasons(series_pb2.ListSeasonsRequest(parent=series))
            page = await _series(kino).ListEpisodes(request)
            if not state.output.as_json:
                rows = [(one.name, one.number, one.display_name) for one in seasons.seasons]
                state.output.table(("season", "number", "name"), rows)
            episodes = [
                (
                    one.details.place.season_number,
                    one.number,
                    one.title,
                    one.details.display_name,
                    clock(one.details.duration),
                )
                for one in page.episodes
            ]
            state.output.messages(page.episodes, ("season", "episode", "title", "name", "length"), episodes)

    run(work)


def add_season(
    context: typer.Context,
    series: SeriesName,
    number: Annotated[int, typer.Option(help="Its number; 0 is for specials.")],
    name: Annotated[str, typer.Option(help="Name to show, where it has one.")] = "",
) -> None:
    """Add a season."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = series_pb2.CreateSeasonRequest(
                parent=series,
                season=catalog.Season(number=number, display_name=name),
                request_id=str(uuid.uuid4()),
            )
            made = (await _series(kino).CreateSeason(request)).season
            state.output.facts({"season": made.name})

    run(work)


def add_episode(
    context: typer.Context,
    season: SeasonName,
    title: TitleName,
    number: Annotated[int, typer.Option(help="Its number; 0: after the last.")] = 0,
) -> None:
    """Make a title an episode of a season."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = series_pb2.CreateEpisodeRequest(
                parent=season,
                episode=catalog.Episode(title=title, number=number),
                request_id=str(uuid.uuid4()),
            )
            made = (await _series(kino).CreateEpisode(request)).episode
            state.output.facts({"episode": made.name, "number": made.number})

    run(work)


def reorder(
    context: typer.Context,
    season: SeasonName,
    titles: Annotated[list[str], typer.Argument(help="All titles of the season, in their new order.")],
) -> None:
    """Number a season's episodes anew, from 1."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            episodes = [f"{season}/episodes/{title.removeprefix('titles/')}" for title in titles]
            request = series_pb2.ReorderEpisodesRequest(parent=season, episodes=episodes)
            await _series(kino).ReorderEpisodes(request)
            state.output.say(f"{season} has a new order.")

    run(work)


def remove_episode(context: typer.Context, season: SeasonName, title: TitleName) -> None:
    """Take a title out of its season; the title stays."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            name = f"{season}/episodes/{title.removeprefix('titles/')}"
            await _series(kino).DeleteEpisode(series_pb2.DeleteEpisodeRequest(name=name))
            state.output.say(f"{title} is a film of its own again.")

    run(work)


def delete_series(context: typer.Context, series: SeriesName) -> None:
    """Delete a series and its seasons; the titles stay."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            await _series(kino).DeleteSeries(series_pb2.DeleteSeriesRequest(name=series))
            state.output.say(f"Deleted {series}.")

    run(work)


def list_watchlist(context: typer.Context, profile: ProfileName = None) -> None:
    """List what a profile wants to watch, last added first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = lists.ListWatchlistRequest(parent=await kino.profile(profile), page_size=200)
            page = await _watchlist(kino).ListWatchlist(request)
            rows = [(one.subject, one.title.display_name or one.series.display_name) for one in page.entries]
            state.output.messages(page.entries, ("subject", "name"), rows)

    run(work)


def add_to_watchlist(context: typer.Context, subject: Subject, profile: ProfileName = None) -> None:
    """Put a title or a series on the list."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = lists.CreateWatchlistEntryRequest(
                parent=await kino.profile(profile),
                entry=catalog.WatchlistEntry(subject=subject),
                request_id=str(uuid.uuid4()),
            )
            entry = (await _watchlist(kino).CreateWatchlistEntry(request)).entry
            state.output.facts({"entry": entry.name})

    run(work)


def remove_from_watchlist(context: typer.Context, subject: Subject, profile: ProfileName = None) -> None:
    """Take a title or a series off the list."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            name = f"{await kino.profile(profile)}/watchlist/{subject.partition('/')[2]}"
            await _watchlist(kino).DeleteWatchlistEntry(lists.DeleteWatchlistEntryRequest(name=name))
            state.output.say(f"{subject} is off the list.")

    run(work)


def _series(kino: Kino) -> series_pb2_grpc.SeriesServiceStub:
    return kino.stub(series_pb2_grpc.SeriesServiceStub)


def _watchlist(kino: Kino) -> watchlist_pb2_grpc.WatchlistServiceStub:
    return kino.stub(watchlist_pb2_grpc.WatchlistServiceStub)

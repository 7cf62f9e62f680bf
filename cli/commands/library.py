"""`kino titles`, `kino search`, `kino history`: what there is, and what was watched."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.duration_pb2 import Duration

from cli.client import Kino, connect
from cli.commands import publishing
from cli.main import State, run
from cli.output import as_dict, clock
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog
from kino.history.v1 import history_pb2, history_pb2_grpc
from kino.search.v1 import search_pb2, search_pb2_grpc

TitleName = Annotated[str, typer.Argument(help="`titles/…`")]
ProfileName = Annotated[str | None, typer.Option(help="Whose history; default: your first profile.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(search)
    titles = typer.Typer(no_args_is_help=True, help="The titles you may see.")
    titles.command("list")(list_titles)
    titles.command("show")(show_title)
    titles.command("delete")(delete_title)
    publishing.register(titles)
    app.add_typer(titles, name="titles")
    history = typer.Typer(no_args_is_help=True, help="What a profile watched and where it stopped.")
    history.command("list")(list_views)
    history.command("continue")(continue_watching)
    history.command("delete")(delete_view)
    history.command("clear")(clear_history)
    app.add_typer(history, name="history")


def search(
    context: typer.Context, query: Annotated[str, typer.Argument(help="What you remember of the name.")]
) -> None:
    """Find titles by name; typos are forgiven.

    \b
    kino search "big buk buny"
    """
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(search_pb2_grpc.SearchServiceStub)
            answer = await stub.SearchTitles(search_pb2.SearchTitlesRequest(query=query))
            rows = [
                (hit.title, hit.display_name, hit.release_year or "", f"{hit.score:.2f}")
                for hit in answer.hits
            ]
            state.output.messages(answer.hits, ("title", "name", "year", "score"), rows)

    run(work)


def list_titles(context: typer.Context) -> None:
    """List titles, newest first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            page = await _catalog(kino).ListTitles(catalog_pb2.ListTitlesRequest(page_size=200))
            rows = [
                (title.name, title.display_name, clock(title.duration), _state(title))
                for title in page.titles
            ]
            state.output.messages(page.titles, ("title", "name", "length", "state"), rows)
            if page.next_page_token:
                state.output.say("There are more; find them with `kino search`.")

    run(work)


def show_title(context: typer.Context, title: TitleName) -> None:
    """Show one title."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            found = (await _catalog(kino).GetTitle(catalog_pb2.GetTitleRequest(name=title))).title
            state.output.facts(as_dict(found))

    run(work)


def delete_title(context: typer.Context, title: TitleName) -> None:
    """Delete a title and everything that was encoded of it."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            await _catalog(kino).DeleteTitle(catalog_pb2.DeleteTitleRequest(name=title))
            state.output.say(f"Deleted {title}.")

    run(work)


def list_views(context: typer.Context, profile: ProfileName = None) -> None:
    """List what was watched, newest first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            parent = await kino.profile(profile)
            page = await _history(kino).ListViews(history_pb2.ListViewsRequest(parent=parent, page_size=200))
            rows = [
                (view.title, clock(view.position), f"{view.completion:.0%}", view.device)
                for view in page.views
            ]
            state.output.messages(page.views, ("title", "stopped at", "seen", "device"), rows)

    run(work)


def continue_watching(context: typer.Context, profile: ProfileName = None) -> None:
    """List what was begun and not finished."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = history_pb2.ListContinueWatchingRequest(parent=await kino.profile(profile))
            page = await _history(kino).ListContinueWatching(request)
            # A film that was replaced since it was watched may have another length.
            lengths = await _lengths(kino, [view.title for view in page.views])
            rows = [
                (view.title, clock(view.position), clock(lengths.get(view.title, view.title_duration)))
                for view in page.views
            ]
            state.output.messages(page.views, ("title", "stopped at", "length"), rows)

    run(work)


async def _lengths(kino: Kino, names: list[str]) -> dict[str, Duration]:
    """How long these titles are now; those that are gone are missing."""
    if not names:
        return {}
    stub = kino.stub(catalog_pb2_grpc.CatalogServiceStub)
    answer = await stub.BatchGetTitles(catalog_pb2.BatchGetTitlesRequest(names=names))
    return {title.name: title.duration for title in answer.titles if title.HasField("duration")}


def delete_view(context: typer.Context, title: TitleName, profile: ProfileName = None) -> None:
    """Forget that a title was watched."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            name = f"{await kino.profile(profile)}/views/{title.removeprefix('titles/')}"
            await _history(kino).DeleteView(history_pb2.DeleteViewRequest(name=name))
            state.output.say(f"Forgot {title}.")

    run(work)


def clear_history(context: typer.Context, profile: ProfileName = None) -> None:
    """Forget everything that was watched."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = history_pb2.ClearHistoryRequest(parent=await kino.profile(profile))
            await _history(kino).ClearHistory(request)
            state.output.say("Forgot everything.")

    run(work)


def _catalog(kino: Kino) -> catalog_pb2_grpc.CatalogServiceStub:
    return kino.stub(catalog_pb2_grpc.CatalogServiceStub)


def _history(kino: Kino) -> history_pb2_grpc.HistoryServiceStub:
    return kino.stub(history_pb2_grpc.HistoryServiceStub)


def _state(title: catalog.Title) -> str:
    state = catalog.Title.State.Name(title.state).removeprefix("STATE_").lower()
    return f"{state}, unpublished" if title.unpublished else state

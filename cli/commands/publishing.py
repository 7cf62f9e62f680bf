"""What a publisher does with a title beside its words: publication, rights, pictures."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from google.protobuf.field_mask_pb2 import FieldMask

from cli.client import Kino, connect
from cli.main import State, run
from cli.output import as_dict, parse_offset
from kino.catalog.v1 import catalog_pb2, catalog_pb2_grpc
from kino.catalog.v1 import resources_pb2 as catalog
from services.runtime.errors import InvalidArgument

TitleName = Annotated[str, typer.Argument(help="`titles/…`")]
Moment = Annotated[
    datetime | None,
    typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"], help="In UTC."),
]
PictureFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="A JPEG, PNG or WebP, at most 6 MiB.")
]
#: A picture of the greatest size takes seconds to decode.
_TIMEOUT_S = 60.0


def register(titles: typer.Typer) -> None:
    """Add the commands below `kino titles`."""
    titles.command("publish")(publish)
    titles.command("unpublish")(unpublish)
    titles.command("rights")(rights)
    titles.command("artwork")(artwork)


def publish(context: typer.Context, title: TitleName) -> None:
    """Show a title to viewers, as far as it can be played."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            await _catalog(kino).PublishTitle(catalog_pb2.PublishTitleRequest(name=title))
            state.output.say(f"{title} is published.")

    run(work)


def unpublish(context: typer.Context, title: TitleName) -> None:
    """Take a title away from viewers; you keep it."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            await _catalog(kino).UnpublishTitle(catalog_pb2.UnpublishTitleRequest(name=title))
            state.output.say(f"{title} is not published any more.")

    run(work)


def rights(
    context: typer.Context,
    title: TitleName,
    region: Annotated[list[str] | None, typer.Option(help="Country (ISO 3166-1 alpha-2); repeat it.")] = None,
    start: Moment = None,
    end: Moment = None,
    add: Annotated[bool, typer.Option(help="Beside the windows there are, not instead of them.")] = False,
    clear: Annotated[bool, typer.Option(help="Everywhere and always.")] = False,
) -> None:
    """Say where and when a title may be watched; without options: show it.

    \b
    kino titles rights titles/… --region DE --region AT --start 2026-05-01 --end 2027-05-01
    """
    state: State = context.obj
    window = catalog.RightsWindow(region_codes=[code.upper() for code in region or []])
    if start is not None:
        window.start_time.FromDatetime(start.replace(tzinfo=UTC))
    if end is not None:
        window.end_time.FromDatetime(end.replace(tzinfo=UTC))
    limited = bool(window.region_codes) or start is not None or end is not None

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = _catalog(kino)
            found = (await stub.GetTitle(catalog_pb2.GetTitleRequest(name=title))).title
            if limited or clear:
                kept = list(found.rights) if add else []
                wanted = catalog.Title(name=title, etag=found.etag, rights=[*kept, window] if limited else [])
                mask = FieldMask(paths=["rights"])
                request = catalog_pb2.UpdateTitleRequest(title=wanted, update_mask=mask)
                found = (await stub.UpdateTitle(request)).title
            windows = [as_dict(one) for one in found.rights]
            state.output.facts({"title": title, "rights": windows or "everywhere, always"})

    run(work)


def artwork(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="`titles/…` or `series/…`")],
    file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A JPEG, PNG or WebP, at most 6 MiB.")
    ] = None,
    at: Annotated[str, typer.Option(help="A frame at this moment, `1:15`.")] = "",
    of: Annotated[str, typer.Option(help="Whose frame: `titles/…`, for a series one of its episodes.")] = "",
    clear: Annotated[bool, typer.Option(help="Take the picture away.")] = False,
) -> None:
    """Set the picture of a title or series: a file, or a frame.

    \b
    kino titles artwork titles/… --at 1:15
    """
    state: State = context.obj
    if sum(map(bool, (file, at, clear))) != 1:
        raise InvalidArgument("artwork", "needs one of --file, --at and --clear.")
    request = catalog_pb2.SetArtworkRequest(name=name)
    if file is not None:
        request.picture = file.read_bytes()
    elif at:
        request.frame.title = of or name
        request.frame.offset.CopyFrom(parse_offset(at))

    async def work() -> None:
        async with connect(state.url) as kino:
            if clear:
                await _catalog(kino).ClearArtwork(catalog_pb2.ClearArtworkRequest(name=name))
                state.output.say(f"{name} has no picture any more.")
                return
            made = (await _catalog(kino).SetArtwork(request, timeout=_TIMEOUT_S)).artwork
            state.output.facts(
                {"large": f"{kino.url}{made.large_path}", "small": f"{kino.url}{made.small_path}"}
            )

    run(work)


def _catalog(kino: Kino) -> catalog_pb2_grpc.CatalogServiceStub:
    return kino.stub(catalog_pb2_grpc.CatalogServiceStub)

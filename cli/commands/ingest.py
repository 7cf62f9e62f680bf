"""`kino ingest`: upload a film and watch it become playable."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from cli.client import Kino, connect
from cli.commands.jobs import ensure_succeeded, watch_job
from cli.main import State, run
from cli.output import Output, parse_offset
from cli.uploading import upload
from kino.catalog.v1 import resources_pb2 as catalog
from kino.ingest.v1 import resources_pb2 as ingest_resources
from kino.media.v1 import media_pb2
from services.runtime.errors import InvalidArgument


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ingest)


def ingest(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="The film.")],
    title: Annotated[str, typer.Option(help="Name to show; default: the file's name.")] = "",
    description: Annotated[str, typer.Option(help="Words about the film.")] = "",
    year: Annotated[int, typer.Option(help="Year of first showing.")] = 0,
    genre: Annotated[list[str] | None, typer.Option(help="A genre; may be repeated.")] = None,
    highlight: Annotated[list[str] | None, typer.Option(help="Passage to process first, START-END.")] = None,
    replace: Annotated[str, typer.Option(help="A title, `titles/…`, whose film this one replaces.")] = "",
    watch: Annotated[bool, typer.Option(help="Wait until everything is encoded.")] = True,
) -> None:
    """Upload a film, encode and publish it. Run again after a break, it goes on where it stopped.

    \b
    kino ingest film.mp4 --title "My film" --highlight 1:10-1:25
    kino ingest better.mp4 --replace titles/…
    """
    state: State = context.obj
    if replace and (title or description or year or genre):
        raise InvalidArgument("replace", "the title keeps its words; change them with the page.")
    new = catalog.Title(
        name=replace,
        display_name=title or file.stem,
        description=description,
        release_year=year,
        genres=genre or [],
    )
    highlights = [_highlight(text) for text in highlight or []]

    async def work() -> None:
        async with connect(state.url) as kino:
            started = time.monotonic()
            done = await upload_with_progress(kino, file, new, highlights, state.output)
            facts: dict[str, object] = {"title": done.title, "upload": done.name, "job": done.job}
            if watch:
                job = await watch_job(kino, done.job, state.output)
                ensure_succeeded(job)
                facts["uploaded_to_complete_s"] = round(time.monotonic() - started, 1)
                playable = job.playable_time.ToMilliseconds() - job.create_time.ToMilliseconds()
                facts["time_to_playable_s"] = round(playable / 1000, 1)
            state.output.facts(facts)

    run(work)


async def upload_with_progress(
    kino: Kino, file: Path, title: catalog.Title, highlights: list[media_pb2.Highlight], output: Output
) -> ingest_resources.Upload:
    columns = (TextColumn("upload"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=output.err, disable=output.as_json or not output.err.is_terminal) as bar:
        task: TaskID = bar.add_task("upload", total=None)

        def progress(sent_bytes: int, size_bytes: int) -> None:
            bar.update(task, completed=sent_bytes, total=size_bytes)

        return await upload(kino, file, title=title, highlights=highlights, progress=progress)


def _highlight(text: str) -> media_pb2.Highlight:
    start, dash, end = text.partition("-")
    if not dash:
        raise typer.BadParameter(f"{text} is no passage; write START-END, for example 1:10-1:25.")
    return media_pb2.Highlight(start_offset=parse_offset(start), end_offset=parse_offset(end))

"""`kino doctor`: is everything there that Kino needs, and is what runs in good health."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.main import State, run
from cli.output import size
from services.runtime.errors import FailedPrecondition
from services.runtime.settings import Settings, load_settings


class Unhealthy(FailedPrecondition):
    """{problem}"""

    reason = "UNHEALTHY"


def register(app: typer.Typer) -> None:
    """Add the command."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(doctor)
    group.command()(disk)
    app.add_typer(group, name="doctor")
    app.command()(settings)


DataDir = Annotated[Path | None, typer.Option(help="Folder for all state.")]
Config = Annotated[Path | None, typer.Option(help="Settings file.")]


def doctor(context: typer.Context, data_dir: DataDir = None, config: Config = None) -> None:
    """Check this machine, and the Kino that runs on it; a sentence each, saying what to do.

    \b
    kino doctor
    kino --json doctor --data-dir /srv/kino
    """
    if context.invoked_subcommand:
        return
    from cli.doctor import examine

    state: State = context.obj
    chosen = _chosen(context, data_dir, config)

    async def work() -> None:
        findings = await examine(chosen)
        if state.output.as_json:
            state.output.json([asdict(finding) for finding in findings])
        else:
            rows = [(finding.state, finding.check, finding.sentence) for finding in findings]
            state.output.table(("", "", ""), rows)
        wrong = [finding.check for finding in findings if finding.state == "wrong"]
        if wrong and state.output.as_json:
            raise typer.Exit(1)
        if wrong:
            raise Unhealthy(f"Something is wrong: {', '.join(wrong)}.")

    run(work)


def _chosen(context: typer.Context, data_dir: Path | None, config: Path | None) -> Settings:
    """The settings, also where they were said before the subcommand."""
    before = context.parent.params if context.parent else {}
    data_dir, config = data_dir or before.get("data_dir"), config or before.get("config")
    return load_settings(config, **({"data_dir": data_dir} if data_dir else {}))


def disk(context: typer.Context, data_dir: DataDir = None, config: Config = None) -> None:
    """Tell who owns every byte: what is in use, what is an orphan, and who removes it. Changes nothing.

    \b
    kino doctor disk
    kino --json doctor disk --data-dir /srv/kino
    """
    from cli.disk import examine_disk

    state: State = context.obj
    chosen = _chosen(context, data_dir, config)

    async def work() -> None:
        found = await examine_disk(chosen)
        if state.output.as_json:
            state.output.json(asdict(found))
            return
        rows = [
            (one.kind, one.owner, size(one.size_bytes), one.file_count or "", one.state, one.note)
            for one in found.holdings
        ]
        state.output.table(("what", "whose", "size", "files", "state", "who removes it"), rows)
        for room in found.disks:
            state.output.say(f"{room.path}: {size(room.free_bytes)} free of {size(room.total_bytes)}")
        lost = sum(one.size_bytes for one in found.holdings if one.state == "orphan")
        state.output.say(f"Of orphans: {size(lost)}")
        for problem in found.problems:
            state.output.say(problem)

    run(work)


def settings(context: typer.Context) -> None:
    """List everything that can be set, by the environment or in `kino.toml`.

    \b
    kino settings
    KINO_CONFIG=/etc/kino/kino.toml kino doctor
    """
    state: State = context.obj
    rows = Settings.describe()
    if state.output.as_json:
        names = ("variable", "type", "default", "meaning")
        state.output.json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        state.output.table(("variable", "type", "default", "meaning"), rows)

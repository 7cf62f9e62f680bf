"""`kino doctor`: is everything there that Kino needs, and is what runs in good health."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.main import State, run
from services.runtime.errors import FailedPrecondition
from services.runtime.settings import Settings, load_settings


class Unhealthy(FailedPrecondition):
    """{problem}"""

    reason = "UNHEALTHY"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)
    app.command()(settings)


def doctor(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for all state.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Check this machine, and the Kino that runs on it; a sentence each, saying what to do.

    \b
    kino doctor
    kino --json doctor --data-dir /srv/kino
    """
    from cli.doctor import examine

    state: State = context.obj
    chosen = load_settings(config, **({"data_dir": data_dir} if data_dir else {}))

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

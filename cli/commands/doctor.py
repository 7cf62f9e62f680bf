"""`kino doctor`: is everything there that Kino needs, and is what runs in good health."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cli.main import State, run
from services.runtime.errors import FailedPrecondition
from services.runtime.settings import load_settings


class Unhealthy(FailedPrecondition):
    """{problem}"""

    reason = "UNHEALTHY"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(doctor)


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
    settings = load_settings(config, **({"data_dir": data_dir} if data_dir else {}))

    async def work() -> None:
        findings = await examine(settings)
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

"""The commands, one module for each group."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add every command."""
    # Imported here, so that importing a command module alone stays possible: they need `cli.main`.
    from cli.commands import (
        account,
        bench,
        billing,
        demo,
        doctor,
        edge,
        ingest,
        jobs,
        library,
        plan,
        play,
        series,
        suite,
    )

    for module in (
        suite,
        account,
        ingest,
        play,
        library,
        series,
        billing,
        jobs,
        edge,
        demo,
        doctor,
        plan,
        bench,
    ):
        module.register(app)

"""`kino demo`: the whole path without a person, checked, ending by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc.aio
import typer

from cli.main import State, run
from cli.output import Output
from cli.suite_process import running_suite
from services.runtime.claims import temporary
from services.runtime.errors import FailedPrecondition, KinoError
from services.runtime.status import error_of

if TYPE_CHECKING:
    from cli.demo import Step


class DemoFailed(FailedPrecondition):
    """The demo failed at “{step}”: {problem}"""

    reason = "DEMO_FAILED"
    fields = ("step", "problem")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(context: typer.Context) -> None:
    """Take a made film through every part of Kino, and check what comes out.

    Uses a folder and a port of its own and leaves nothing behind. Ends with 0 when everything held.

    \b
    kino demo
    kino --json demo
    """
    from cli.demo import Demo, Step

    state: State = context.obj
    started = time.monotonic()
    with temporary("demo") as folder:
        # What is remembered of unfinished uploads is no concern of the user's own folders.
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        state.output.say("Starting Kino in a folder of its own …")
        with running_suite(folder / "data") as suite:
            ready = Step(name="start", result=f"every service behind {suite.url}")
            ready.seconds = time.monotonic() - started
            work = Demo(
                url=suite.url,
                claim_token=suite.claim_token or "",
                folder=folder,
                output=state.output,
                steps=[ready],
            )
            try:
                run(work.run)
            except (KinoError, grpc.aio.AioRpcError) as error:
                cause = error if isinstance(error, KinoError) else error_of(error)
                raise DemoFailed(work.steps[-1].name, cause.message) from error
    summarise(state.output, work.steps, time.monotonic() - started)


def summarise(output: Output, steps: Sequence[Step], seconds: float) -> None:
    """Print what was seen in each step."""
    if output.as_json:
        done = [
            {"step": step.name, "result": step.result, "seconds": round(step.seconds, 1)} for step in steps
        ]
        output.json({"ok": True, "seconds": round(seconds, 1), "steps": done})
        return
    rows = [(step.name, step.result, f"{step.seconds:.1f} s") for step in steps]
    output.table(("step", "what was seen", "time"), [*rows, ("all", "everything held", f"{seconds:.1f} s")])

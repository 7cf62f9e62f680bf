"""Entry of the `kino` command: options that hold for all, errors as one sentence, exit codes.

Exit codes: 0 done; 1 it could not be done, and stderr says why and what to do; 2 the command line was wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated

import grpc
import grpc.aio
import typer

from cli.output import Output
from services.runtime.errors import KinoError, RemoteError
from services.runtime.logs import configure_logs
from services.runtime.loop import ServingLoop
from services.runtime.status import error_of


@dataclass(kw_only=True)
class State:
    """What the options before the command say."""

    url: str = ""
    output: Output = field(default_factory=Output)


app = typer.Typer(
    name="kino",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Self-hosted video on demand.

\b
kino up                                    the whole suite on this machine
kino claim TOKEN --email me@example.org    become its operator
kino ingest film.mp4 --title "My film"     upload, encode, publish
kino search "my flim"                      find it
kino play titles/… --offset 1:15 --out - | mpv -
""",
)


@app.callback()
def options(
    context: typer.Context,
    url: Annotated[
        str, typer.Option(envvar="KINO_URL", help="Address of the gateway.")
    ] = f"http://127.0.0.1:{os.environ.get('KINO_GATEWAY_PORT', '8080')}",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Options for every command."""
    context.obj = State(url=url.rstrip("/"), output=Output(as_json=as_json))


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a command's coroutine."""

    async def body() -> None:
        await work()

    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(body())


def main() -> None:
    """Run the command line; every failure is one sentence on stderr."""
    from cli.commands import register

    register(app)
    configure_logs(level=os.environ.get("KINO_LOG_LEVEL", "info"))
    as_json = "--json" in sys.argv
    try:
        app()
    except KinoError as error:
        _fail(error, as_json=as_json)
    except grpc.aio.AioRpcError as error:
        _fail(error_of(error), as_json=as_json)
    except BrokenPipeError:
        # The reader of our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(error: KinoError, *, as_json: bool) -> None:
    message = error.message or error.reason
    if isinstance(error, RemoteError) and error.reason == "UNAVAILABLE":
        message = f"Kino can't be reached: {message} Is `kino up` running? Another address is set by --url."
    if as_json:
        sys.stdout.write(
            json.dumps({"error": {"reason": error.reason, "message": message, **error.metadata}}) + "\n"
        )
    else:
        sys.stderr.write(f"kino: {message}\n")
    sys.exit(1)


if __name__ == "__main__":
    main()

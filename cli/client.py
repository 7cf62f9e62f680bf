"""A Kino seen from outside: one channel through its gateway, a fresh session, credentials on disk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import grpc
import grpc.aio

from kino.identity.v1 import identity_pb2, identity_pb2_grpc, resources_pb2
from services.runtime.channels import CHANNEL_OPTIONS, CallerChannel
from services.runtime.errors import FailedPrecondition, InvalidArgument

Stub = TypeVar("Stub")

#: The window a server may fill before we have read; small windows cost a server several times the CPU.
_STREAM_WINDOW_BYTES = 4 << 20
_REFRESH_BEFORE = timedelta(minutes=2)
#: Tries in a row that bring nothing new; their pauses add up to half a minute.
_TRIES = 20
_LONGEST_PAUSE_S = 2.0


class NotSignedIn(FailedPrecondition):
    """You are not signed in at {url}: run `kino login` (or `kino claim` on a new Kino)."""

    reason = "NOT_SIGNED_IN"
    fields = ("url",)


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """What signing in gave us."""

    user: str
    access_token: str
    refresh_token: str
    #: When the access token ends, ISO 8601.
    expires: str

    @classmethod
    def of(cls, session: resources_pb2.Session) -> Credentials:
        """The credentials of a session."""
        expires = session.access_token_expire_time.ToDatetime(tzinfo=UTC)
        return cls(
            user=session.user,
            access_token=session.access_token,
            refresh_token=session.refresh_token,
            expires=expires.isoformat(),
        )

    @property
    def stale(self) -> bool:
        """Whether the access token is to be refreshed now."""
        return datetime.fromisoformat(self.expires) - datetime.now(UTC) < _REFRESH_BEFORE


class CredentialFile:
    """Credentials by gateway, readable by their owner alone. `KINO_CREDENTIALS` names another file."""

    def __init__(self, path: Path | None = None) -> None:
        """Default: `kino/credentials.json` in the user's configuration folder."""
        folder = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        self.path = path or Path(os.environ.get("KINO_CREDENTIALS") or folder / "kino" / "credentials.json")

    def load(self, url: str) -> Credentials | None:
        """The credentials for a gateway, if there are any."""
        entry = self._read().get(url)
        return Credentials(**entry) if entry else None

    def save(self, url: str, credentials: Credentials | None) -> None:
        """Keep, or with None forget, the credentials for a gateway."""
        entries = self._read()
        entries.pop(url, None)
        if credentials:
            entries[url] = asdict(credentials)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(entries, file, indent=1)
        new.replace(self.path)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            entries: dict[str, dict[str, str]] = json.loads(self.path.read_text())
        except FileNotFoundError:
            return {}
        return entries


class Kino:
    """A connection to one Kino; `stub` gives typed clients whose calls carry the access token."""

    def __init__(self, url: str, channel: grpc.aio.Channel, file: CredentialFile) -> None:
        """Use `connect`."""
        self.url = url
        self._inner = channel
        self._file = file
        self._credentials = file.load(url)
        self._channel = CallerChannel(channel, self._metadata)
        self._lock = asyncio.Lock()

    def stub(self, stub_class: Callable[[grpc.aio.Channel], Stub]) -> Stub:
        """A stub whose calls carry the access token, if we have one."""
        return stub_class(self._channel)

    @property
    def user(self) -> str:
        """Who is signed in, `users/{user}`. Raises `NotSignedIn`."""
        if self._credentials is None:
            raise NotSignedIn(self.url)
        return self._credentials.user

    def keep(self, session: resources_pb2.Session | None) -> None:
        """Use a new session from now on, or none."""
        self._credentials = Credentials.of(session) if session else None
        self._file.save(self.url, self._credentials)

    @property
    def refresh_token(self) -> str:
        """The refresh token in force. Raises `NotSignedIn`."""
        if self._credentials is None:
            raise NotSignedIn(self.url)
        return self._credentials.refresh_token

    async def profile(self, wanted: str | None = None) -> str:
        """The profile called `wanted` (display name or resource name), or the user's first one."""
        stub = self.stub(identity_pb2_grpc.IdentityServiceStub)
        answer = await stub.ListProfiles(identity_pb2.ListProfilesRequest(parent=self.user))
        for profile in answer.profiles:
            if wanted is None or wanted in (profile.name, profile.display_name):
                return profile.name
        names = ", ".join(profile.display_name for profile in answer.profiles)
        raise InvalidArgument("profile", f"there is no profile {wanted}; there are: {names}.")

    async def refresh(self) -> None:
        """Get a new access token if the one in hand is about to end."""
        async with self._lock:
            if self._credentials is None or not self._credentials.stale:
                return
            # Without our access token: the gateway refuses one that has expired, whatever is called.
            stub = identity_pb2_grpc.IdentityServiceStub(self._inner)
            request = identity_pb2.RefreshSessionRequest(refresh_token=self._credentials.refresh_token)
            try:
                answer = await stub.RefreshSession(request, timeout=30)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAUTHENTICATED:
                    raise
                self.keep(None)
                return
            self.keep(answer.session)

    async def stay_fresh(self) -> None:
        """Refresh for as long as it runs; beside uploads and streams that outlive a token."""
        while True:
            await asyncio.sleep(30)
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.refresh()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if self._credentials is None:
            return ()
        return (("authorization", f"Bearer {self._credentials.access_token}"),)


class Patience:
    """Asking again after a loss, until nothing new has come for half a minute."""

    def __init__(self) -> None:
        self._tries = 0

    def news(self) -> None:
        """Something new came."""
        self._tries = 0

    async def after(self, error: grpc.aio.AioRpcError | None) -> None:
        """Wait before the next try; the first one after news is made at once.

        Raises `error` when it is no loss, or patience is at its end.
        """
        self._tries += 1
        if error is not None and (self._tries > _TRIES or not _is_loss(error)):
            raise error
        if self._tries > 1:
            await asyncio.sleep(min(0.05 * 2**self._tries, _LONGEST_PAUSE_S))


def _is_loss(error: grpc.aio.AioRpcError) -> bool:
    """A gateway whose node dies in the midst can only reset the stream, which gRPC calls INTERNAL."""
    reset = error.code() is grpc.StatusCode.INTERNAL and "RST_STREAM" in (error.details() or "")
    return reset or error.code() is grpc.StatusCode.UNAVAILABLE


def channel_to(url: str, *options: tuple[str, object]) -> grpc.aio.Channel:
    """A channel to a gateway or an edge (`http://host:port` or `https://…`), without credentials.

    `options` of gRPC are added. Raises `InvalidArgument` when that is no such address.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidArgument("url", f"{url} is no address of a Kino; it looks like http://127.0.0.1:8080.")
    window = ("grpc.http2.lookahead_bytes", _STREAM_WINDOW_BYTES)
    merged = tuple(dict([*CHANNEL_OPTIONS, window, *options]).items())
    target = f"{parts.hostname}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
    if parts.scheme == "https":
        return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(), options=merged)
    return grpc.aio.insecure_channel(target, options=merged)


@asynccontextmanager
async def connect(url: str, file: CredentialFile | None = None) -> AsyncIterator[Kino]:
    """A connection to the gateway at `url` (`http://host:port` or `https://…`)."""
    async with channel_to(url) as channel:
        kino = Kino(url, channel, file or CredentialFile())
        await kino.refresh()
        freshener = asyncio.create_task(kino.stay_fresh())
        try:
            yield kino
        finally:
            freshener.cancel()

"""Native clients reach the playback service over TLS, without the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from bench.servers import Certificate
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.playback.bootstrap import build as build_playback
from services.runtime.app import Running
from services.runtime.server import CertificateUnusable
from services.runtime.testing import bearer, serving, settings_in, user_token
from tests.support.published import Film, Publisher
from tests.support.streams import play
from tests.support.watching import VIEWER, Plans, accounts, start


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.made(tmp_path)


@pytest.fixture
async def process(tmp_path: Path, certificate: Certificate) -> AsyncIterator[Running]:
    settings = settings_in(tmp_path, tls_certificate=certificate.certificate, tls_key=certificate.key)
    plans = Plans(limits={VIEWER: 2})
    async with serving(
        tmp_path,
        settings=settings,
        billing=plans.build,
        identity=accounts,
        catalog=build_catalog,
        playback=build_playback,
    ) as running:
        yield running


async def test_the_same_stream_comes_over_tls(process: Running, certificate: Certificate, film: Film) -> None:
    title = await Publisher(process, film).publish_all()
    trusted = grpc.ssl_channel_credentials(certificate.certificate.read_bytes())
    address = f"127.0.0.1:{process.server.tls_port}"
    async with (
        grpc.aio.insecure_channel(process.address) as plain,
        grpc.aio.secure_channel(address, trusted) as secure,
    ):
        metadata = bearer(user_token(process, VIEWER, "viewer"))
        token = (await start(PlaybackServiceStub(secure), title, metadata=metadata)).lease.token
        streams = [await play(PlaybackServiceStub(channel), token, 0) for channel in (plain, secure)]
    assert streams[0].stream() == streams[1].stream()


async def test_a_certificate_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    nothing = tmp_path / "nothing.pem"
    settings = settings_in(tmp_path, tls_certificate=nothing, tls_key=nothing)
    with pytest.raises(CertificateUnusable, match=r"nothing\.pem"):
        async with serving(tmp_path, settings=settings, identity=accounts):
            pass

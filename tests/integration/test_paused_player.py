"""A player that knows nothing of leases, paused for longer than its own lives: hls.js in Chromium."""

from __future__ import annotations

import asyncio
import http
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urljoin

import grpc.aio
import pytest
from playwright.sync_api import Page

from cli.gateway import Gateway
from cli.up import _free_port
from kino.playback.v1 import playback_pb2 as pb
from kino.playback.v1.playback_pb2_grpc import PlaybackServiceStub
from services.catalog.bootstrap import build as build_catalog
from services.playback.bootstrap import build as build_playback
from services.runtime.clock import ManualClock
from services.runtime.keys import open_keys
from services.runtime.testing import bearer, serving, settings_in, user_token
from tests.acceptance.browsing import SLOW_MS, chromium
from tests.support.published import Film, Publisher
from tests.support.stack import ROOT
from tests.support.watching import VIEWER, Plans, accounts, start

pytestmark = pytest.mark.browser

HLS_JS = ROOT / "node_modules" / "hls.js" / "dist" / "hls.min.js"
PAUSE_S = 600.0
#: Reads little ahead, so that it must ask again after the pause.
PLAY = """url => {
  window.errors = [];
  const video = document.querySelector('video');
  const hls = new Hls({maxBufferLength: 1, maxMaxBufferLength: 1});
  hls.on(Hls.Events.ERROR, (_, error) => error.fatal && errors.push(`${error.type}: ${error.details}`));
  hls.on(Hls.Events.MANIFEST_PARSED, () => { video.muted = true; video.play(); });
  hls.loadSource(url);
  hls.attachMedia(video);
}"""
PLAYS = "() => document.querySelector('video').currentTime > 0.1 || errors.length"
OVER = "() => document.querySelector('video').ended || errors.length"


def found(url: str) -> None:
    """Wait until the gateway has its endpoints."""
    for _ in range(200):
        try:
            urllib.request.urlopen(url).close()
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE:
                raise
        else:
            return
        time.sleep(0.05)
    raise AssertionError("the gateway did not find its endpoints")


def watch(url: str, while_paused: Callable[[], None]) -> tuple[float, float, list[str]]:
    """Play, pause, go on to the end: how far it had read in the pause, where it came to, what failed."""

    def video(page: Page, script: str) -> float:
        return float(page.evaluate(f"(v => {script})(document.querySelector('video'))"))

    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(SLOW_MS)
        # The gateway's word for nothing: a page of the same origin.
        page.goto(urljoin(url, "/"))
        page.evaluate("document.body.innerHTML = '<video></video>'")
        page.add_script_tag(path=HLS_JS)
        page.evaluate(PLAY, url)
        page.wait_for_function(PLAYS)
        assert page.evaluate("errors") == []
        page.evaluate("document.querySelector('video').pause()")
        page.wait_for_load_state("networkidle")
        read_s = video(page, "v.buffered.end(v.buffered.length - 1)")
        while_paused()
        page.evaluate("void document.querySelector('video').play()")
        page.wait_for_function(OVER)
        return read_s, video(page, "v.currentTime"), page.evaluate("errors")


async def test_a_player_goes_on_after_a_pause_in_which_its_lease_expired(tmp_path: Path, film: Film) -> None:
    settings, clock, loop = settings_in(tmp_path), ManualClock(), asyncio.get_running_loop()
    gateway = Gateway(
        tmp_path / "gateway",
        bind="127.0.0.1",
        port=_free_port("127.0.0.1", 0),
        jwks=open_keys(settings.keys_folder).jwks_path,
        log_path=tmp_path / "gateway.log",
    )
    services = {"catalog": build_catalog, "playback": build_playback}
    plans = Plans(limits={VIEWER: 1})
    async with serving(
        tmp_path, settings=settings, clock=clock, billing=plans.build, identity=accounts, **services
    ) as process:
        await gateway.child.start()
        try:
            gateway.set_endpoints({name: [process.address] for name in services})
            title = await Publisher(process, film).publish_all()
            metadata = bearer(user_token(process, VIEWER, "viewer"))
            async with grpc.aio.insecure_channel(process.address) as channel:
                stub = PlaybackServiceStub(channel)

                async def devices() -> int:
                    listed = await stub.ListLeases(pb.ListLeasesRequest(parent=VIEWER), metadata=metadata)
                    return len(listed.leases)

                async def a_pause() -> int:
                    clock.advance(PAUSE_S)
                    return await devices()

                started = await start(stub, title, metadata=metadata)
                counts: list[int] = []

                def pass_time() -> None:
                    counts.append(asyncio.run_coroutine_threadsafe(a_pause(), loop).result())

                url = gateway.url + started.hls_path
                await asyncio.to_thread(found, url)
                read_s, at_s, errors = await asyncio.to_thread(watch, url, pass_time)
                counts.append(await devices())
        finally:
            await gateway.child.stop()
    assert read_s < 11  # else it had nothing left to ask for
    assert errors == []
    assert at_s == pytest.approx(12, abs=0.1)
    assert counts == [0, 1]

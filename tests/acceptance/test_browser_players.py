"""The players that people build pages with, at the gateway's HLS and DASH, from a page of another origin."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import numpy as np
import pytest
from playwright.sync_api import Browser, JSHandle, Page

from cli.playing import end_playback, start_playback
from kino.playback.v1 import playback_pb2
from services.media.testfilm import read_frame_number
from services.media.time import NS_PER_SECOND
from tests.acceptance.browsing import GRAY_FRAME, SLOW_MS, chromium
from tests.support.stack import ROOT, Stack
from tests.support.worded import KEYS, PITCHES_HZ, SUBTITLES, WORDED

pytestmark = pytest.mark.browser

HERE = Path(__file__).parent / "players"
#: Inside segments and on both sides of a cut, back and forth.
MOMENTS_S = (12.3, 5.06, 5.12, 17.77, 0.5)
SHOWN = """moment => {
  const v = document.querySelector('video');
  return Math.abs(v.currentTime - moment) < 0.001 && v.readyState >= 2 && !v.seeking;
}"""
GO = "moment => { const v = document.querySelector('video'); v.pause(); v.currentTime = moment; }"


class _Files(SimpleHTTPRequestHandler):
    """The page, and the players out of `node_modules`."""

    def translate_path(self, path: str) -> str:
        root = ROOT if path.startswith("/node_modules/") else HERE
        return str(root / path.lstrip("/"))

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def started(stack: Stack, worded: str) -> Iterator[playback_pb2.StartPlaybackResponse]:
    async def start() -> playback_pb2.StartPlaybackResponse:
        async with stack.connect("viewer") as viewer:
            return await start_playback(viewer, worded, "players")

    async def end(token: str) -> None:
        async with stack.connect("viewer") as viewer:
            await end_playback(viewer, token)

    # Away from this thread, whose event loop is the browser's.
    with ThreadPoolExecutor(1) as aside:
        answer = aside.submit(asyncio.run, start()).result()
        yield answer
        aside.submit(asyncio.run, end(answer.lease.token)).result()


@pytest.fixture(scope="module")
def origin() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=str(HERE)))
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


@pytest.fixture(scope="module")
def browser(worded: str, origin: str) -> Iterator[Browser]:
    # After the title: an event loop runs in this thread as long as the browser does.
    with chromium() as running:
        yield running


@pytest.fixture
def page(browser: Browser, origin: str) -> Iterator[Page]:
    wrongs: list[str] = []
    page = browser.new_page()
    page.set_default_timeout(SLOW_MS)
    page.on("console", lambda said: wrongs.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrongs.append(str(error)))
    page.on("requestfailed", lambda request: wrongs.append(f"{request.failure}: {request.url}"))
    page.goto(f"{origin}/page.html")
    yield page
    wrongs += page.evaluate("errors")
    page.close()
    # A player that changes its mind about what to read next drops a request: that is no failure.
    assert [wrong for wrong in wrongs if "ERR_ABORTED" not in wrong] == []


def number_on(page: Page, picture: JSHandle) -> int | None:
    """The number of the frame that an element shows."""
    gray = base64.b64decode(page.evaluate(GRAY_FRAME, picture))
    return read_frame_number(np.frombuffer(gray, dtype=np.uint8).reshape(180, 320))


def frame_at(page: Page, moment_s: float) -> int | None:
    """The number of the frame that is on the screen when the player stands at a moment."""
    page.evaluate(GO, moment_s)
    page.wait_for_function(SHOWN, arg=moment_s)
    return number_on(page, page.evaluate_handle("document.querySelector('video')"))


@pytest.mark.parametrize(
    ("player", "kind"), [("hls.js", "hls"), ("shaka", "hls"), ("shaka", "dash"), ("dash.js", "dash")]
)
def test_a_player_of_the_field_plays_seeks_switches_and_shows_sounds_and_subtitles(
    stack: Stack, page: Page, started: playback_pb2.StartPlaybackResponse, player: str, kind: str
) -> None:
    url = urljoin(stack.gateway, started.hls_path if kind == "hls" else started.dash_path)
    found = page.evaluate("([player, url]) => load(player, url)", [player, url])
    # At once: Shaka shows the words of an HLS title only with pictures that come after their choice.
    page.evaluate("player.showText('de'); player.chooseSound('de')")
    page.wait_for_function("line => lines().includes(line)", arg=SUBTITLES["deu"])
    page.wait_for_function("pitch => Math.abs(heard() - pitch) < 30", arg=PITCHES_HZ["deu"])
    seen = [frame_at(page, moment) for moment in MOMENTS_S]
    heights, switched = [240, 360, 240], []
    for height in heights:
        page.evaluate(
            "height => { player.chooseHeight(height); document.querySelector('video').play(); }", height
        )
        page.wait_for_function("height => document.querySelector('video').videoHeight === height", arg=height)
        switched += [frame_at(page, moment) for moment in MOMENTS_S]

    expected = [WORDED.timeline.frame_at(round(moment * NS_PER_SECOND)) for moment in MOMENTS_S]
    assert (seen, switched) == (expected, expected * len(heights))
    assert [sorted(set(found[kind])) for kind in ("sounds", "texts")] == [["de", "en"], ["de", "en"]]
    assert sorted(set(found["heights"])) == [240, 360]
    # hls.js knows no storyboards.
    assert bool(found["pictures"]) == (player != "hls.js")
    if found["pictures"]:
        tile = number_on(page, page.evaluate_handle("tile(12.5)"))
        # The tile of the second that the moment lies in is made of the key frame before it.
        assert tile == WORDED.timeline.frame_at(12 * NS_PER_SECOND) // KEYS * KEYS

"""From the click on Play to the first frame on the screen: the page's player against hls.js on static files.

Both run in the same Chromium, in turns, each time in a fresh profile whose page is loaded and at rest. Ours
starts a playback at the click (rights, entitlement, lease); hls.js reads what nginx has as files: the same
playlists and segments, from a page that does nothing else.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import urllib.request
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median, quantiles
from urllib.parse import urljoin

from playwright.sync_api import Browser, BrowserContext

from bench.report import Row
from bench.servers import Certificate, Nginx
from cli.playing import end_playback, start_playback
from cli.suite_process import running_suite
from kino.playback.v1 import playback_pb2
from services.media.testfilm import FilmSpec
from tests.acceptance.browsing import Visitor, chromium
from tests.support.stack import ROOT, People, Stack, film_file

#: Clicks on each in a round.
_CLICKS = 5
_FILM = FilmSpec(seconds=Fraction(30), cuts=(5.4, 11.2, 16.7, 22.3), loud=None)
_PAGES = Path(__file__).parent / "pages"
_HLS_JS = ROOT / "node_modules" / "hls.js" / "dist" / "hls.min.js"
#: The button of a film not begun, and of one that was; both play it from its first frame.
_PLAY = re.compile("^(Play|From the beginning)$")
_LEAVE = "Stop and go back to the film"
_LEASE_ENDED = re.compile("/v1/leases:end$")
_URI = re.compile(r'^(?!#)(\S+)$|URI="([^"]+)"', re.MULTILINE)
#: Remembers how long after the click the first frame of the first video was handed to the screen.
_WATCH = """(() => {
  addEventListener('click', event => { window.clickedMs = event.timeStamp; }, {capture: true});
  new MutationObserver(() => {
    const video = document.querySelector('video');
    if (!video || window.watched) return;
    window.watched = true;
    video.requestVideoFrameCallback((nowMs, frame) => {
      window.shown = [nowMs - window.clickedMs, frame.height];
    });
  }).observe(document, {childList: true, subtree: true});
})()"""


@dataclass(frozen=True, kw_only=True)
class _Way:
    """A page with a player."""

    url: str
    #: The state of a browser in which somebody is signed in.
    visitor: Path | None = None
    waits_ms: list[float] = field(default_factory=list)
    #: Of the first picture.
    heights: set[int] = field(default_factory=set)

    def click(self, browser: Browser) -> None:
        """Load the page, wait until it rests, click, and wait for the first frame."""
        context = browser.new_context(viewport={"width": 1280, "height": 800}, storage_state=self.visitor)
        try:
            self._watch(context)
        finally:
            context.close()

    def _watch(self, context: BrowserContext) -> None:
        page = context.new_page()
        page.add_init_script(_WATCH)
        page.goto(self.url, wait_until="networkidle")
        page.get_by_role("button", name=_PLAY).click()
        page.wait_for_function("() => window.shown")
        wait_ms, height = page.evaluate("window.shown")
        self.waits_ms.append(wait_ms)
        self.heights.add(height)
        if self.visitor:
            # Gives the lease back: the account has so many and no more.
            with page.expect_response(_LEASE_ENDED):
                page.get_by_role("button", name=_LEAVE).click()


def click(folder: Path, rounds: int) -> list[Row]:
    """Both ways in turns; the first click on each is not counted."""
    folder.mkdir()
    with running_suite(folder / "data") as suite:
        people = People(suite=suite, folder=folder)
        people.populate()
        title = people.ingest(film_file(folder / "film.mp4", _FILM), "Clicked")
        stack = Stack(suite=suite, folder=folder, film=_FILM, title=title, services="")
        files = asyncio.run(_copied(stack, folder / "www"))
        nginx = asyncio.run(Nginx.run(folder, files, Certificate.made(folder)))
        try:
            with chromium() as browser:
                ours = _Way(url=f"{suite.url}/#/{title}", visitor=_signed_in(browser, stack))
                theirs = _Way(url=f"http://{nginx.h1}/hls.html")
                for way in [ours, theirs] * (1 + rounds * _CLICKS):
                    way.click(browser)
        finally:
            nginx.server.stop()
    return _rows(ours, theirs)


def _rows(ours: _Way, theirs: _Way) -> list[Row]:
    if ours.heights != theirs.heights:
        raise RuntimeError(f"the first pictures differ: {ours.heights}, hls.js {theirs.heights}")
    first, other = ours.waits_ms[1:], theirs.waits_ms[1:]
    found = [
        ("p50", median(first), median(other), "<=1.2"),
        ("p90", quantiles(first, n=10)[-1], quantiles(other, n=10)[-1], None),
    ]
    return [
        Row(
            name=f"click to first frame: {part}",
            value=ms,
            unit="ms",
            peer=f"hls.js on static files {peer_ms:.0f}",
            ratio=ms / peer_ms,
            goal=goal,
        )
        for part, ms, peer_ms, goal in found
    ]


def _signed_in(browser: Browser, stack: Stack) -> Path:
    """A browser in which the viewer is signed in, as a file."""
    context = browser.new_context()
    Visitor.arrive(stack, context).sign_in(stack.email)
    state = stack.folder / "visitor.json"
    context.storage_state(path=state)
    context.close()
    return state


async def _copied(stack: Stack, root: Path) -> Path:
    """All that the playlists of the title name as files, and a page with hls.js."""
    async with stack.connect("viewer") as viewer:
        started = await start_playback(viewer, stack.title, "bench")
        await asyncio.to_thread(_copy, stack.gateway, started, root)
        await end_playback(viewer, started.lease.token)
    shutil.copy(_PAGES / "hls.html", root)
    shutil.copy(_HLS_JS, root)
    return root


def _copy(gateway: str, started: playback_pb2.StartPlaybackResponse, root: Path) -> None:
    master = urljoin(gateway, started.hls_path)
    base = urljoin(master, "..")
    wanted, done = [master], set[str]()
    while wanted:
        url = wanted.pop()
        path = root / url.removeprefix(base)
        path.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(url) as answer:
            data: bytes = answer.read()
        path.write_bytes(data)
        done.add(url)
        if url.endswith(".m3u8"):
            named = (urljoin(url, plain or quoted) for plain, quoted in _URI.findall(data.decode()))
            wanted += [other for other in dict.fromkeys(named) if other not in {*done, *wanted}]

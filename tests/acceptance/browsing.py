"""A person at the page: Debian's Chromium, watched for everything that must not happen."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from services.media.testfilm import read_frame_number
from tests.support.stack import Stack

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
#: The encoder shares the machine with the browser.
SLOW_MS = 120_000
_ARGUMENTS = (
    "--no-sandbox",  # tests may run as root, where Chromium's own sandbox can't
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
)
#: What the page's own keyboard and mouse user can reach.
_CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex='0']"
GRAY_FRAME = """video => {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [320, 180];
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0, 320, 180);
  const rgba = context.getImageData(0, 0, 320, 180).data;
  return btoa(String.fromCharCode(...Uint8Array.from({length: 320 * 180}, (_, i) => rgba[4 * i + 1])));
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield browser
        browser.close()


@dataclass(kw_only=True)
class Visitor:
    """A page of a fresh browser profile, at a running suite."""

    stack: Stack
    page: Page
    #: Console errors, uncaught exceptions and requests to anywhere else.
    wrongs: list[str] = field(default_factory=list)

    @classmethod
    def arrive(cls, stack: Stack, context: BrowserContext) -> Visitor:
        """Open the start page and begin to watch."""
        visitor = cls(stack=stack, page=context.new_page())
        visitor.page.set_default_timeout(30_000)
        visitor.page.on("console", visitor._heard)
        visitor.page.on("pageerror", lambda error: visitor.wrongs.append(f"uncaught: {error}"))
        visitor.page.on("request", visitor._requested)
        visitor.go("/")
        return visitor

    def _heard(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.wrongs.append(f"console: {message.text}")

    def _requested(self, request: Request) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https", "ws", "wss") and url.hostname != "127.0.0.1":
            self.wrongs.append(f"left the machine: {request.url}")

    def go(self, place: str) -> None:
        """Open a place of the page."""
        self.page.goto(f"{self.stack.gateway}/#{place}")

    def sign_in(self, email: str) -> None:
        """Sign in by the form and wait for the start page."""
        self.page.get_by_label("E-mail address").fill(email)
        self.page.get_by_label("Password").fill(self.stack.password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.get_by_role("heading", name="All films").wait_for()

    def play(self, title: str) -> None:
        """Open a title and play from where it stopped; waits for frames on the screen."""
        self.go(f"/{title}")
        self.page.get_by_role("button", name=re.compile("^(Play|Resume)")).click()
        self.wait_for_frames(2)

    def wait_for_frames(self, more: int) -> None:
        """Wait until so many more frames were decoded and the clock moved."""
        before = self.video("v => [v.getVideoPlaybackQuality().totalVideoFrames, v.currentTime]")
        self.page.wait_for_function(
            """([frames, time, more]) => {
              const v = document.querySelector('video');
              return v.getVideoPlaybackQuality().totalVideoFrames >= frames + more && v.currentTime > time;
            }""",
            arg=[*before, more],
            timeout=SLOW_MS,
        )

    def video(self, script: str) -> Any:
        """The result of a function of the video element."""
        return self.page.locator("video").evaluate(script)

    def pause_at(self, time_s: float) -> None:
        """Pause, go to a moment and wait until its frame is shown."""
        self.video(
            f"""v => new Promise(done => {{
              v.pause();
              v.requestVideoFrameCallback(() => done());
              v.currentTime = {time_s};
            }})"""
        )

    def shown_frame(self) -> int | None:
        """The number that the frame on the screen carries."""
        gray = base64.b64decode(self.video(GRAY_FRAME))
        return read_frame_number(np.frombuffer(gray, dtype=np.uint8).reshape(180, 320))

    def ask(self, path: str, body: Mapping[str, str] | None = None) -> Any:
        """What the JSON side of the gateway answers to the person who is signed in."""
        return self.page.evaluate(
            """async ([path, body]) => {
              const {accessToken} = JSON.parse(localStorage.getItem('kino.session'));
              const post = body ? {method: 'POST', body: JSON.stringify(body)} : {};
              const headers = {authorization: `Bearer ${accessToken}`, 'content-type': 'application/json'};
              const answer = await fetch(path, {headers, ...post});
              return await answer.json();
            }""",
            [path, body],
        )

    def nameless_controls(self) -> list[str]:
        """Controls that a screen reader would have no name for."""
        found: list[str] = self.page.locator(_CONTROLS).evaluate_all(
            """nodes => nodes.filter(node => {
              if (!node.checkVisibility()) return false;
              const labels = node.labels ? [...node.labels].map(label => label.innerText) : [];
              const ids = (node.getAttribute('aria-labelledby') ?? '').split(' ').filter(Boolean);
              const words = [node.getAttribute('aria-label'), node.innerText, node.title, ...labels,
                ...ids.map(id => document.getElementById(id)?.innerText)];
              return !words.some(word => word?.trim());
            }).map(node => node.outerHTML.slice(0, 200))"""
        )
        return found

    def structure(self) -> dict[str, object]:
        """What a screen reader goes by: landmarks, headings, the page's language."""
        got: dict[str, object] = self.page.evaluate(
            """() => ({
              language: document.documentElement.lang,
              titled: document.title.endsWith('Kino') && document.title.length > 4,
              mains: document.querySelectorAll('main').length,
              firsts: document.querySelectorAll('h1').length,
              doubleIds: [...document.querySelectorAll('[id]')].map(node => node.id)
                .filter((id, at, all) => all.indexOf(id) !== at),
              skip: document.querySelector('a.skip')?.textContent.trim(),
            })"""
        )
        return got

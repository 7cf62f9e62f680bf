"""The page's player with a film of two languages: subtitles, sound, small pictures over the seek bar."""

from __future__ import annotations

import io
from collections.abc import Iterator

import av
import numpy as np
import pytest

from services.media.testfilm import read_frame_number
from services.media.time import NS_PER_SECOND
from tests.acceptance.browsing import SLOW_MS, Visitor, chromium
from tests.support.stack import VIEWER, Stack
from tests.support.worded import KEYS, PITCHES_HZ, SUBTITLES, WORDED

pytestmark = pytest.mark.browser

#: The lines of text on the screen.
LINES = """() => [...document.querySelector('video').textTracks].filter(track => track.mode === 'showing')
  .flatMap(track => [...(track.activeCues ?? [])].map(cue => cue.text))"""
LISTEN = """() => {
  const context = new AudioContext();
  const analyser = new AnalyserNode(context, {fftSize: 4096});
  context.createMediaElementSource(document.querySelector('video')).connect(analyser).connect(context.destination);
  window.heard = () => {
    const levels = new Uint8Array(analyser.frequencyBinCount);
    analyser.getByteFrequencyData(levels);
    return levels.indexOf(Math.max(...levels)) * context.sampleRate / analyser.fftSize;
  };
}"""
HEARS = "pitch => Math.abs(heard() - pitch) < 30"


@pytest.fixture
def visitor(stack: Stack, worded: str) -> Iterator[Visitor]:
    with chromium() as browser:
        visitor = Visitor.arrive(stack, browser.new_context(viewport={"width": 1280, "height": 800}))
        visitor.sign_in(VIEWER)
        yield visitor
        assert visitor.wrongs == []


def choose(visitor: Visitor, group: str, option: str) -> None:
    """Pick an option in the player's panel, and close it."""
    visitor.page.locator("summary[aria-label='Picture and speed']").click()
    visitor.page.get_by_role("group", name=group).get_by_label(option).check()
    visitor.page.keyboard.press("Escape")


def test_the_viewer_chooses_subtitles_and_sound_and_sees_where_a_seek_would_go(
    visitor: Visitor, worded: str
) -> None:
    page = visitor.page
    visitor.play(worded)
    page.evaluate(LISTEN)
    page.wait_for_function(HEARS, arg=PITCHES_HZ["eng"], timeout=SLOW_MS)
    choose(visitor, "Sound", "German")
    page.wait_for_function(HEARS, arg=PITCHES_HZ["deu"], timeout=SLOW_MS)

    visitor.pause_at(7.4)
    choose(visitor, "Subtitles", "German")
    page.wait_for_function(f"line => ({LINES})().includes(line)", arg=SUBTITLES["deu"], timeout=SLOW_MS)
    choose(visitor, "Subtitles", "Off")
    page.wait_for_function(f"({LINES})().length === 0", timeout=SLOW_MS)

    bar = page.get_by_role("slider", name="Position in the film")
    box = bar.bounding_box()
    assert box
    with page.expect_response("**/extras/storyboard-0.jpg"):
        bar.hover(position={"x": box["width"] * 12.5 / float(WORDED.seconds), "y": box["height"] / 2})
    picture = page.locator(".scrubber-tile").screenshot()
    with av.open(io.BytesIO(picture), "r") as shot:
        tile = next(shot.decode(video=0)).to_ndarray(format="gray").astype(np.uint8)
    assert read_frame_number(tile) == WORDED.timeline.frame_at(12 * NS_PER_SECOND) // KEYS * KEYS

"""A series from the publisher's first season to the viewer's next episode, in the browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.acceptance.browsing import SLOW_MS, Visitor
from tests.acceptance.test_page import Arrive, arrive, browser
from tests.support.stack import OPERATOR, VIEWER, Stack

__all__ = ["arrive", "browser"]
pytestmark = pytest.mark.browser

SERIES = "Nights at Sea"
EPISODES = ("The first night", "Storm")


@pytest.fixture(scope="module")
def films(stack: Stack, short_film: Path, browser: object) -> list[str]:
    return [stack.ingest(short_film, name) for name in EPISODES]


def make_series(visitor: Visitor) -> None:
    page = visitor.page
    page.get_by_role("button", name="New series").click()
    page.get_by_label("Title", exact=True).fill(SERIES)
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", name=SERIES)).to_be_visible()
    page.get_by_role("button", name="Add season").click()
    page.get_by_role("dialog").get_by_role("button", name="Add season").click()
    for name in reversed(EPISODES):
        page.get_by_role("button", name="Add episode").click()
        page.get_by_label("Film", exact=True).select_option(label=name)
        page.get_by_role("button", name="Add as the last episode").click()
        expect(page.get_by_role("heading", name=re.compile(name))).to_be_visible()


def test_a_publisher_makes_a_series_and_a_viewer_watches_one_episode_after_the_other(
    arrive: Arrive, films: list[str]
) -> None:
    publisher = arrive(OPERATOR)
    page = publisher.page
    make_series(publisher)
    page.get_by_label(f"Move {EPISODES[0]} up").click()
    expect(page.locator(".episode h3").first).to_have_text(f"1. {EPISODES[0]}")
    page.get_by_role("button", name="Picture").click()
    page.get_by_role("button", name="Take this frame").click()
    expect(page.locator(".stage img")).to_be_visible()

    viewer = arrive(VIEWER)
    page = viewer.page
    expect(page.get_by_role("link", name=EPISODES[0])).to_have_count(0)
    picture = page.get_by_role("link", name=SERIES).locator("img")
    page.wait_for_function("image => image.naturalWidth > 0", arg=picture.element_handle())
    page.get_by_role("link", name=SERIES).click()
    page.get_by_role("button", name="My list").click()
    expect(page.get_by_role("button", name="My list", pressed=True)).to_be_visible()
    page.get_by_role("link", name="Play episode 1").click()
    viewer.wait_for_frames(2)
    viewer.video("v => { v.currentTime = v.duration - 0.2; v.play(); }")
    following = page.get_by_role("region", name="Next episode")
    expect(following).to_contain_text(f"2. {EPISODES[1]}", timeout=SLOW_MS)
    following.get_by_role("button", name="Play now").click()
    expect(page.get_by_role("heading", name=EPISODES[1])).to_be_visible()
    viewer.wait_for_frames(2)

    viewer.go("/")
    mine = page.get_by_role("region", name="My list")
    expect(mine.get_by_role("link", name=SERIES)).to_be_visible()


def test_what_is_unpublished_or_not_yet_licensed_is_not_to_be_watched(
    arrive: Arrive, films: list[str]
) -> None:
    publisher, viewer = arrive(OPERATOR), arrive(VIEWER)
    page = publisher.page
    publisher.go(f"/{films[1]}")
    page.get_by_role("button", name="Where and when").click()
    page.get_by_role("button", name="Limit it").click()
    page.get_by_label("From").fill("2999-01-01T20:15")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    viewer.go(f"/{films[1]}")
    expect(viewer.page.get_by_text("From Jan 1, 2999")).to_be_visible()
    expect(viewer.page.get_by_role("button", name="Play")).to_have_count(0)

    page.get_by_role("button", name="Unpublish").click()
    expect(page.get_by_role("button", name="Publish", exact=True)).to_be_visible()
    viewer.page.reload()
    expect(viewer.page.get_by_role("alert").filter(has_text="This film doesn't exist")).to_be_visible()
    viewer.wrongs.clear()

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from services.media.testfilm import FilmSpec
from services.media.time import NS_PER_SECOND
from tests.acceptance.browsing import SLOW_MS, Visitor, chromium
from tests.support.stack import OPERATOR, VIEWER, Stack, film_file

pytestmark = pytest.mark.browser

REFRESHED = re.compile("IdentityService/RefreshSession$")
REPORTED = re.compile("HistoryService/RecordProgress$")
SEGMENTS = re.compile("PlaybackService/ReadSegments$")
LEASE_ENDED = re.compile("/v1/leases:end$")
PART = re.compile("IngestService/UploadPart$")
#: The frame of the moment is on the screen.
SETTLED = "() => (v => v?.readyState >= 2 && !v.seeking)(document.querySelector('video'))"
#: The player has read as far ahead as it goes.
BUFFERED = """() => {
  const v = document.querySelector('video');
  const end = v.buffered.length && v.buffered.end(v.buffered.length - 1);
  return end >= Math.min(v.currentTime + 30, v.duration - 0.5);
}"""
#: Where the page keeps a report that it could not send.
UNSENT = "Object.keys(localStorage).find(key => key.startsWith('kino.unsent.'))"

Arrive = Callable[..., Visitor]


@pytest.fixture(scope="module")
def browser(stack: Stack, short_film: Path) -> Iterator[Browser]:
    # Both are made before: an event loop runs in this thread as long as the browser does.
    with chromium() as running:
        yield running


@pytest.fixture
def arrive(stack: Stack, browser: Browser) -> Iterator[Arrive]:
    visitors: list[Visitor] = []

    def enter(email: str | None = None, **options: Any) -> Visitor:
        context = browser.new_context(viewport={"width": 1280, "height": 800}, **options)
        visitor = Visitor.arrive(stack, context)
        visitors.append(visitor)
        if email:
            visitor.sign_in(email)
        return visitor

    yield enter
    for visitor in visitors:
        visitor.page.context.close()
    assert [wrong for visitor in visitors for wrong in visitor.wrongs] == []


def test_a_wrong_password_is_told_in_a_sentence_and_a_right_one_opens_the_films(arrive: Arrive) -> None:
    visitor = arrive()
    page = visitor.page
    page.get_by_label("E-mail address").fill(VIEWER)
    page.get_by_label("Password").fill("not the password")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The address or the password is wrong.")

    visitor.sign_in(VIEWER)

    expect(page.get_by_role("link", name="The Clockmaker's Minute").first).to_be_visible()
    expect(page.get_by_role("link", name="Upload")).to_have_count(0)


def test_a_session_outlives_a_reload_and_ends_with_signing_out(arrive: Arrive) -> None:
    page = arrive(VIEWER).page
    page.reload()
    expect(page.get_by_role("heading", name="All films")).to_be_visible()

    page.get_by_label("Account of Viewer").click()
    page.get_by_role("button", name="Sign out").click()

    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("localStorage.getItem('kino.session')") is None


def test_a_token_near_its_end_is_replaced_without_a_word(arrive: Arrive) -> None:
    page = arrive(VIEWER).page
    before = page.evaluate(
        """() => {
          const session = JSON.parse(localStorage.getItem('kino.session'));
          localStorage.setItem('kino.session', JSON.stringify({...session, refreshAfterMs: 0}));
          return session.refreshToken;
        }"""
    )
    with page.expect_response(REFRESHED) as refreshed:
        page.reload()

    expect(page.get_by_role("heading", name="All films")).to_be_visible()
    assert refreshed.value.ok
    assert page.evaluate("JSON.parse(localStorage.getItem('kino.session')).refreshToken") != before


def test_search_as_you_type_forgives_a_typo(arrive: Arrive) -> None:
    page = arrive(VIEWER).page

    page.get_by_role("searchbox", name="Search films").press_sequentially("clokmakers minite", delay=20)

    expect(page.get_by_role("link", name="The Clockmaker's Minute")).to_be_visible()
    page.get_by_role("searchbox").press("Escape")
    expect(page.get_by_role("heading", name="All films")).to_be_visible()


def test_a_film_plays_and_shows_the_frame_of_the_moment(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(VIEWER)
    visitor.play(stack.title)
    visitor.wait_for_frames(30)
    moment_s = 13.37

    visitor.pause_at(moment_s)

    assert visitor.shown_frame() == stack.film.timeline.frame_at(round(moment_s * NS_PER_SECOND))


def test_another_codec_goes_on_at_the_same_frame(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(VIEWER)
    visitor.play(stack.title)
    visitor.pause_at(9.5)
    before = visitor.shown_frame()
    page = visitor.page

    page.get_by_label("Picture and speed").click()
    page.get_by_label(re.compile("AV1")).first.check()
    page.wait_for_function("() => document.querySelector('video').videoHeight === 480", timeout=SLOW_MS)
    page.wait_for_function(SETTLED)

    assert visitor.video("v => v.currentTime") == pytest.approx(9.5, abs=0.001)
    assert visitor.shown_frame() == before


def test_the_keyboard_runs_the_player_and_help_says_how(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(VIEWER)
    visitor.play(stack.title)
    page = visitor.page

    page.keyboard.press("k")
    page.wait_for_function("() => document.querySelector('video').paused")
    page.keyboard.press("Home")
    page.keyboard.press("l")
    page.wait_for_function("() => Math.abs(document.querySelector('video').currentTime - 10) < 0.01")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => document.querySelector('video').currentTime === 0")
    page.keyboard.press(">")
    page.wait_for_function("() => document.querySelector('video').playbackRate === 1.25")
    page.keyboard.press("m")
    assert visitor.video("v => v.muted") is True
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_another_device_resumes_at_the_same_frame_and_the_film_waits_on_the_start_page(
    arrive: Arrive, stack: Stack
) -> None:
    first = arrive(VIEWER)
    first.play(stack.title)
    with first.page.expect_response(REPORTED):
        first.pause_at(11.25)
    shown = first.shown_frame()
    with first.page.expect_response(LEASE_ENDED):
        first.page.get_by_label("Stop and go back to the film").click()
    expect(first.page.get_by_role("button", name="Resume at 0:11")).to_be_visible()

    second = arrive(VIEWER)
    begun = second.page.get_by_role("region", name="Continue watching").get_by_role(
        "link", name="The Clockmaker's Minute"
    )
    expect(begun).to_be_visible()
    with second.page.expect_response(SEGMENTS):
        begun.click()
    second.page.wait_for_function(SETTLED, timeout=SLOW_MS)

    assert second.video("v => { v.pause(); return v.currentTime; }") >= 11.25
    second.pause_at(11.25)
    assert second.shown_frame() == shown


def test_only_what_was_played_counts_as_watched(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(OPERATOR)
    page = visitor.page
    visitor.play(stack.title)
    visitor.pause_at(2)
    page.keyboard.press("k")
    page.wait_for_function("() => document.querySelector('video').currentTime > 3")
    visitor.pause_at(15)
    with page.expect_response(LEASE_ENDED):
        page.get_by_label("Stop and go back to the film").click()

    profile = visitor.ask("/v1/users/me/profiles")["profiles"][0]["name"]
    view = visitor.ask(f"/v1/{profile}/views/{stack.title.removeprefix('titles/')}")["view"]

    watched = [(seconds_of(one["startOffset"]), seconds_of(one["endOffset"])) for one in view["intervals"]]
    assert seconds_of(view["position"]) == pytest.approx(15, abs=0.001)
    assert [(start, end) for start, end in watched if start < 2.5 < end]
    assert not [(start, end) for start, end in watched if start < 10 < end]


def test_a_lost_stream_is_told_and_taken_over_again(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(VIEWER)
    page = visitor.page
    # What can't be reported is kept, with the credential of its stream.
    page.route(REPORTED, lambda route: route.abort())
    visitor.play(stack.title)
    visitor.pause_at(5)
    page.wait_for_function(f"() => {UNSENT}")
    # So that it is the change of picture that reads again, and nothing before.
    page.wait_for_function(BUFFERED, timeout=SLOW_MS)
    token = page.evaluate(f"JSON.parse(localStorage.getItem({UNSENT})).leaseToken")
    page.unroute(REPORTED)
    assert page.request.post(f"{stack.gateway}/v1/leases:end", data={"leaseToken": token}).ok
    page.get_by_label("Picture and speed").click()
    page.get_by_label("H.264, 240p").check()

    expect(page.get_by_role("alert").filter(has_text="This playback was ended.")).to_be_visible()
    page.get_by_role("button", name="Continue here").click()
    page.wait_for_function(SETTLED, timeout=SLOW_MS)

    assert visitor.video("v => v.currentTime") >= 5
    assert all("ERR_FAILED" in wrong for wrong in visitor.wrongs)
    visitor.wrongs.clear()


def test_without_a_plan_the_player_leads_to_the_plans(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive()
    page = visitor.page
    page.get_by_role("link", name="Create an account").click()
    page.get_by_label("Name").fill("Newcomer")
    page.get_by_label("E-mail address").fill(f"{uuid.uuid4()}@example.org")
    page.get_by_label("Password").fill(stack.password)
    page.get_by_role("button", name="Create account").click()
    page.get_by_role("heading", name="All films").wait_for()

    visitor.go(f"/{stack.title}")
    page.get_by_role("button", name="Play").click()

    expect(page.get_by_role("alert").filter(has_text="subscription")).to_be_visible()
    page.get_by_role("link", name="See the plans").click()
    page.get_by_role("button", name="Subscribe to Standard").click()
    expect(page.get_by_text("Waits for the first payment")).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("To be paid"))).to_be_visible()


def test_a_film_that_is_uploaded_is_seen_to_be_encoded_and_a_worker_in_quarantine_readmitted(
    arrive: Arrive, short_film: Path
) -> None:
    visitor = arrive(OPERATOR)
    page = visitor.page
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Choose a file").set_input_files(short_film)
    page.get_by_label("Title", exact=True).fill("Sent through the page")
    page.get_by_role("button", name="Upload", exact=True).click()

    expect(page.get_by_role("progressbar", name="Whole film")).to_be_visible(timeout=SLOW_MS)
    expect(page.get_by_role("progressbar", name=re.compile("H.264")).first).to_be_visible(timeout=SLOW_MS)
    expect(page.locator(".job .badge", has_text="Complete")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("link", name="Watch").click()
    visitor.wait_for_frames(1)

    worker = visitor.ask("/v1/workers")["workers"][0]["name"]
    visitor.ask(f"/v1/{worker}:quarantine", {"reason": "It makes other bytes."})
    visitor.go("/operator/workers")
    quarantined = page.get_by_text("Gets no tasks until it is readmitted: It makes other bytes.")
    expect(quarantined).to_be_visible()
    page.get_by_role("button", name="Readmit").click()
    expect(quarantined).to_be_hidden()
    assert {one["quarantineReason"] for one in visitor.ask("/v1/workers")["workers"]} == {""}


def test_a_publisher_replaces_a_film_and_sees_the_newer_one(
    arrive: Arrive, short_film: Path, tmp_path: Path
) -> None:
    visitor = arrive(OPERATOR)
    page = visitor.page
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Choose a file").set_input_files(short_film)
    page.get_by_label("Title", exact=True).fill("Sent twice")
    page.get_by_role("button", name="Upload", exact=True).click()
    watch = page.get_by_role("link", name="Watch")
    watch.wait_for(timeout=SLOW_MS)
    place = re.sub(r"[?].*", "", (watch.get_attribute("href") or "").removeprefix("#"))
    visitor.go(place)
    expect(page.get_by_text("6 s", exact=True)).to_be_visible()

    noise = tmp_path / "noise.mp4"
    noise.write_bytes(bytes(range(256)) * 64)
    page.get_by_role("button", name="Replace the film").click()
    page.get_by_label("Choose a file").set_input_files(noise)
    expect(page.get_by_role("alert").filter(has_text="not a film")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Choose another file").click()
    shorter = FilmSpec(seconds=Fraction(4), width=320, height=180, cuts=(2.1,), loud=None)
    with ThreadPoolExecutor() as pool:  # this thread's event loop is the browser's
        made = pool.submit(film_file, tmp_path / "shorter.mp4", shorter).result()
    page.get_by_label("Choose a file").set_input_files(made)
    expect(page.locator(".job .badge", has_text="Complete")).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_text("4 s", exact=True)).to_be_visible(timeout=SLOW_MS)
    page.get_by_role("button", name="Play").click()
    visitor.wait_for_frames(1)
    assert 3.9 < visitor.video("v => v.duration") < 4.1


def test_an_upload_goes_on_after_the_page_was_reloaded(arrive: Arrive, stack: Stack, tmp_path: Path) -> None:
    # Noise: refused at the end as no film, after every byte has arrived.
    file = tmp_path / "noise.mp4"
    file.write_bytes(bytes(range(256)) * (48 << 10))
    visitor = arrive(OPERATOR)
    page = visitor.page
    page.get_by_role("link", name="Upload").click()
    page.get_by_label("Choose a file").set_input_files(file)
    numbers = count(1)
    page.route(PART, lambda route: route.continue_() if next(numbers) == 1 else route.abort())
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_function("() => [...Object.keys(localStorage)].some(key => key.startsWith('kino.upload.'))")
    expect(page.get_by_text(re.compile("^4.2 MB of"))).to_be_visible()
    page.on("dialog", lambda dialog: dialog.accept())
    page.reload()
    # Not before: the old page would send the rest while it goes.
    page.unroute(PART)

    page.get_by_label("Choose a file").set_input_files(file)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Resume upload").click()

    expect(page.get_by_role("alert").filter(has_text="not a film")).to_be_visible(timeout=SLOW_MS)
    assert len([url for url in asked if PART.search(url)]) == 2
    # The browser itself writes the requests that were made to fail to its console.
    assert all("ERR_FAILED" in wrong for wrong in visitor.wrongs)
    visitor.wrongs.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_place_is_named_for_screen_readers_and_reachable_by_keyboard(
    arrive: Arrive, stack: Stack, scheme: str
) -> None:
    visitor = arrive(OPERATOR, color_scheme=scheme)
    faults: dict[str, object] = {}
    places = ["/", "/upload", "/jobs", "/account", "/profiles", "/search?q=clock", f"/{stack.title}"]
    places += ["/operator", "/operator/users", "/operator/jobs", "/operator/workers"]
    places += ["/operator/edges", "/nowhere"]
    for place in places:
        visitor.go(place)
        visitor.page.wait_for_load_state("networkidle")
        visitor.page.locator("h1").wait_for(state="attached")
        found = {**visitor.structure(), "nameless": visitor.nameless_controls()}
        expected = {"language": "en", "titled": True, "mains": 1, "firsts": 1, "doubleIds": []}
        if found != {**expected, "skip": "Skip to content", "nameless": []}:
            faults[place] = found
    assert faults == {}

    visitor.page.reload()
    visitor.page.locator("h1").wait_for(state="attached")
    visitor.page.keyboard.press("Tab")
    expect(visitor.page.get_by_role("link", name="Skip to content")).to_be_focused()
    visitor.page.keyboard.press("Enter")
    expect(visitor.page.locator("main")).to_be_focused()


def test_the_page_fits_a_phone(arrive: Arrive, stack: Stack) -> None:
    visitor = arrive(VIEWER)
    visitor.page.set_viewport_size({"width": 390, "height": 844})
    wide: list[str] = []
    for place in ["/", "/account", "/profiles", "/search?q=clock", f"/{stack.title}"]:
        visitor.go(place)
        visitor.page.wait_for_load_state("networkidle")
        if visitor.page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(place)
    assert wide == []


def test_the_look_follows_the_system_until_somebody_chooses(arrive: Arrive) -> None:
    page = arrive(VIEWER, color_scheme="dark").page
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)

    page.get_by_role("button", name="Use light colours").click()
    light = page.evaluate(background)
    page.reload()
    page.get_by_role("button", name="Use dark colours").wait_for()

    assert page.evaluate(background) == light != dark


def seconds_of(duration: str) -> float:
    return float(duration.removesuffix("s"))

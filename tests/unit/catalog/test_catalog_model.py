from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.catalog.errors import GridChanged, MediaExists, MediaFailed, NotTheJob, SegmentAfterLast
from services.catalog.media_usecases import LAST_PLAY_AFTER, LAST_SWEEP_AFTER
from services.catalog.model import (
    InitSegment,
    Kind,
    Media,
    Rendition,
    Segment,
    State,
    Sweep,
    Title,
    Viewer,
    in_order,
)
from services.catalog.text import TitleText
from services.playback.usecases import TOKEN_TTL
from services.runtime.errors import InvalidArgument

NOW = datetime(2025, 3, 1, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
INIT = InitSegment(object_key="media/t/j/r/init.mp4", sha256=b"i" * 32, codecs="avc1", timescale=1000)


def title(**fields: object) -> Title:
    made = Title(
        title_id="t",
        owner="users/ann",
        text=TitleText(display_name="Solaris"),
        create_time=NOW,
        update_time=NOW,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def video(height: int, ready: int = 0, **fields: object) -> Rendition:
    made = Rendition(
        rendition_id=f"h264-{height}",
        kind=Kind.VIDEO,
        h264=True,
        height=height,
        encoded=b"",
        ready_count=ready,
    )
    return replace(made, **fields)  # type: ignore[arg-type]


def sound(ready: int = 0, name: str = "aac-128-und-0", **fields: object) -> Rendition:
    made = Rendition(rendition_id=name, kind=Kind.SOUND, encoded=b"", ready_count=ready)
    return replace(made, **fields)  # type: ignore[arg-type]


def media(*renditions: Rendition, starts: tuple[int, ...] = (0, 5, 10, 15), planned: bool = True) -> Media:
    empty = Media(title_id="t", job="jobs/j", timescale=1, duration_ticks=20, renditions=renditions)
    return empty.with_grid((), starts, planned=planned)


def test_the_state_follows_from_what_was_recorded() -> None:
    job = {"job": "jobs/j"}
    states = [
        title(),
        title(**job),
        title(**job, playable_time=NOW),
        title(**job, playable_time=NOW, complete_time=NOW),
        title(**job, error=b""),
        title(**job, playable_time=NOW, error=b""),
    ]
    assert [one.state for one in states] == [
        State.CREATED,
        State.PROCESSING,
        State.PLAYABLE,
        State.COMPLETE,
        State.FAILED,
        State.FAILED,
    ]


@pytest.mark.parametrize(
    ("fields", "by_viewer", "by_owner", "by_all"),
    [
        ({}, False, True, True),
        ({"playable_time": NOW}, True, True, True),
        ({"playable_time": NOW, "error": b"e"}, True, True, True),
        ({"error": b"e"}, False, True, True),
        ({"playable_time": NOW, "delete_time": NOW}, False, False, False),
    ],
)
def test_who_sees_a_title(fields: dict[str, object], by_viewer: bool, by_owner: bool, by_all: bool) -> None:
    one = title(**fields)
    viewers = [
        Viewer(subject="users/bob"),
        Viewer(subject="users/ann"),
        Viewer(subject="users/x", sees_all=True),
    ]
    assert [one.seen_by(viewer) for viewer in viewers] == [by_viewer, by_owner, by_all]


@pytest.mark.parametrize(
    ("renditions", "playable"),
    [
        ([], False),
        ([sound(2)], False),
        ([video(480, 2)], True),
        ([video(480, 1)], False),
        ([video(720, 4), video(480, 1)], False),  # only the lowest counts
        ([video(720, 0), video(480, 2), sound(2)], True),
        ([video(480, 4), sound(1)], False),
        ([video(480, 4), sound(1), sound(2, "opus-96-und-0")], True),  # one sound is enough
        ([video(480, 4), sound(1, last_number=0)], True),  # the sound is over before the opening is
        ([video(240, 0, h264=False), video(480, 2)], True),  # other codecs wait
        ([video(240, 2, h264=False)], True),  # unless there is no H.264
    ],
)
def test_a_title_is_playable_when_its_opening_is_there(renditions: list[Rendition], playable: bool) -> None:
    assert media(*renditions).progress()[0] is playable


@pytest.mark.parametrize(
    ("starts", "planned", "opening"),
    [
        ((), False, None),
        ((0,), False, None),
        ((0, 5), False, None),  # the second may last beyond ten seconds, or not
        ((0, 5, 10), False, 2),
        ((0, 5, 9), False, None),
        ((0, 5, 9, 14), False, 3),
        ((0, 5), True, 2),
        ((0,), True, 1),
    ],
)
def test_the_opening_is_what_covers_ten_seconds(
    starts: tuple[int, ...], planned: bool, opening: int | None
) -> None:
    assert media(starts=starts, planned=planned).opening_count == opening


@pytest.mark.parametrize(
    ("renditions", "planned", "complete"),
    [
        ([video(480, 4), sound(4)], True, True),
        ([video(480, 4), sound(4)], False, False),
        ([video(480, 4), sound(3)], True, False),
        ([video(480, 4), sound(3, last_number=2)], True, True),
        ([video(480, 3, last_number=2), sound(4)], True, False),  # pictures end with the grid
        ([video(480, 4), video(720, 3)], True, False),
        ([], True, False),
    ],
)
def test_a_title_is_complete_when_every_rendition_is(
    renditions: list[Rendition], planned: bool, complete: bool
) -> None:
    assert media(*renditions, planned=planned).progress()[1] is complete


def test_the_moments_are_recorded_once() -> None:
    begun = title(job="jobs/j")
    playable = begun.published(NOW, media(video(480, 2)))
    complete = playable.published(LATER, media(video(480, 4)))
    assert (playable.playable_time, playable.complete_time, playable.version) == (NOW, None, 2)
    assert (complete.playable_time, complete.complete_time, complete.version) == (NOW, LATER, 3)
    assert complete.published(LATER, media(video(480, 4))) is complete
    assert begun.published(NOW, media(video(480, 1))) is begun


def test_a_new_job_begins_anew_after_a_failure_only() -> None:
    failed = title(job="jobs/j", playable_time=NOW, duration_ns=5, error=b"e")
    failed.check_free("jobs/k", replaces=False)
    fresh = failed.begun(LATER, "jobs/k", None)
    assert fresh == title(job="jobs/k", version=2, update_time=LATER)
    with pytest.raises(MediaExists):
        fresh.check_free("jobs/j", replaces=False)


@pytest.mark.parametrize(
    ("old", "starts", "planned"), [((0, 5), (0, 6), False), ((0, 5), (0,), False), ((0, 5), (), True)]
)
def test_known_starts_must_be_repeated(old: tuple[int, ...], starts: tuple[int, ...], planned: bool) -> None:
    with pytest.raises(GridChanged):
        media(starts=old, planned=False).with_grid(old, starts, planned=planned)


@pytest.mark.parametrize(("starts", "planned"), [((0, 5, 10, 15), False), ((0, 5, 10, 15, 18), True)])
def test_a_planned_grid_is_final(starts: tuple[int, ...], planned: bool) -> None:
    with pytest.raises(GridChanged):
        media().with_grid((0, 5, 10, 15), starts, planned=planned)


@pytest.mark.parametrize("starts", [(1, 5), (0, 5, 5), (0, 5, 4), (0, 20)])
def test_starts_that_are_no_grid_are_refused(starts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument):
        media(starts=starts, planned=False)


def test_a_last_number_is_final_and_not_before_what_is_published() -> None:
    ended = sound(published_count=3).with_last(2)
    assert ended.with_last(2) == ended
    for number in (1, 3):
        with pytest.raises(SegmentAfterLast):
            ended.with_last(number)
    with pytest.raises(SegmentAfterLast):
        sound(published_count=3).with_last(1)


segments = st.lists(
    st.builds(
        lambda size, duration: Segment(
            number=0, duration_ticks=duration, object_key="k", size_bytes=size, sha256=b"", encoded=b""
        ),
        st.integers(1, 10**9),
        st.integers(1, 10**6),
    ),
    min_size=1,
    max_size=20,
)


@given(segments, st.integers(0, 20))
def test_counters_kept_step_by_step_equal_those_of_all_at_once(new: list[Segment], cut: int) -> None:
    fresh = video(480, init=INIT)
    stepwise = fresh.counted(new[:cut], 0).counted(new[cut:], len(new))
    assert stepwise == fresh.counted(new, len(new))
    mean = stepwise.mean_bits_per_second
    assert 0 <= mean <= stepwise.peak_bits_per_second
    total = sum(one.size_bytes for one in new) * 8 * INIT.timescale
    assert mean == total // sum(one.duration_ticks for one in new)


def test_renditions_come_best_pictures_first_then_sound_as_given() -> None:
    given_order = [sound(name="b"), video(480), sound(name="a"), video(720)]
    assert [one.rendition_id for one in in_order(given_order)] == ["h264-720", "h264-480", "b", "a"]
    with pytest.raises(InvalidArgument):
        in_order([video(480), video(480)])


@pytest.mark.parametrize(
    "text",
    [
        TitleText(display_name=""),
        TitleText(display_name=" \u3000 "),
        TitleText(display_name="x" * 501),
        TitleText(display_name="a\x07"),
        TitleText(display_name="a", description="a\x00"),
        TitleText(display_name="a", genres=("a\nb",)),
    ],
)
def test_text_that_cannot_be_shown_is_refused(text: TitleText) -> None:
    with pytest.raises(InvalidArgument):
        text.check()


def test_descriptions_may_have_lines() -> None:
    text = TitleText(display_name="🎬", description="one\r\n\ttwo")
    assert text.check() is text


def test_a_sweep_covers_its_title_its_job_or_its_picture_and_no_neighbour() -> None:
    whole = Sweep(title_id="t", job="", due_time=NOW, rounds=2)
    assert whole.prefixes == ("media/t/", "sources/t/", "artwork/t/")
    assert replace(whole, job="jobs/j1").prefixes == ("media/t/j1/",)
    assert replace(whole, job="artwork/a1").prefixes == ("artwork/t/a1/",)
    keys = [replace(whole, job=job).source_key for job in ("", "jobs/j1", "artwork/a1")]
    assert keys == ["", "sources/t/j1", ""]


def test_a_failed_job_that_begins_again_goes_on_with_what_it_published() -> None:
    failed = title(job="jobs/j1", error=b"e", playable_time=NOW)
    again = failed.begun(LATER, "jobs/j1", 1)
    assert (again.error, again.playable_time, again.duration_ns) == (None, NOW, 1)
    anew = failed.begun(LATER, "jobs/j2", None)
    assert (anew.error, anew.playable_time) == (None, None)


def made(job: str, ready: int) -> Media:
    return replace(media(video(480, ready)), job=job)


def test_a_source_replaces_unfailed_media_only_where_that_is_asked_for() -> None:
    playing = title(job="jobs/j1", playable_time=NOW)
    with pytest.raises(MediaExists):
        playing.check_free("jobs/j2", replaces=False)
    playing.check_free("jobs/j2", replaces=True)
    waiting = playing.begun(LATER, "jobs/j2", None, replaces=True)
    waiting.check_free("jobs/j2", replaces=False)
    with pytest.raises(MediaExists):
        waiting.check_free("jobs/j3", replaces=False)


def test_what_plays_stays_until_its_replacement_is_playable_and_then_gives_way_at_once() -> None:
    complete = title(job="jobs/j1", playable_time=NOW, complete_time=NOW, duration_ns=7)
    waiting = complete.begun(LATER, "jobs/j2", None, replaces=True)
    assert (waiting.job, waiting.next_job, waiting.state) == ("jobs/j1", "jobs/j2", State.COMPLETE)
    assert waiting.begun(LATER, "jobs/j2", 20, replaces=True) is waiting
    assert waiting.published(LATER, made("jobs/j2", 1)) is waiting
    taken = waiting.published(LATER, made("jobs/j2", 2))
    assert (taken.job, taken.next_job, taken.state) == ("jobs/j2", "", State.PLAYABLE)
    assert (taken.playable_time, taken.duration_ns) == (LATER, 20 * 10**9)
    assert waiting.published(LATER, made("jobs/j2", 4)).state is State.COMPLETE
    with pytest.raises(NotTheJob):
        taken.check_job("jobs/j1")


def test_what_was_never_playable_gives_way_when_its_replacement_begins() -> None:
    for running in (title(job="jobs/j1"), title(job="jobs/j1", error=b"e")):
        taken = running.begun(LATER, "jobs/j2", None, replaces=True)
        assert (taken.job, taken.next_job, taken.state) == ("jobs/j2", "", State.PROCESSING)


def test_a_failed_replacement_leaves_what_plays_and_goes_on_when_it_is_tried_again() -> None:
    complete = title(job="jobs/j1", playable_time=NOW, complete_time=NOW)
    waiting = complete.begun(LATER, "jobs/j2", None, replaces=True)
    failed = waiting.failed(LATER, "jobs/j2", b"why")
    assert (failed.job, failed.state, failed.next_error) == ("jobs/j1", State.COMPLETE, b"why")
    assert failed.failed(LATER, "jobs/j2", b"other") is failed
    with pytest.raises(MediaFailed):
        failed.check_job("jobs/j2")
    failed.check_job("jobs/j1")
    again = failed.begun(LATER, "jobs/j2", None)
    assert (again.next_job, again.next_error) == ("jobs/j2", None)


def test_a_newer_replacement_takes_the_place_of_one_on_its_way() -> None:
    waiting = title(job="jobs/j1", playable_time=NOW).begun(LATER, "jobs/j2", None, replaces=True)
    newer = waiting.begun(LATER, "jobs/j3", None, replaces=True)
    assert (newer.job, newer.next_job) == ("jobs/j1", "jobs/j3")
    with pytest.raises(NotTheJob):
        newer.check_job("jobs/j2")


def test_how_far_each_media_of_a_title_is() -> None:
    one = title(job="jobs/j2", next_job="jobs/j3", playable_time=NOW)
    states = [one.state_of(made(job, 4)) for job in ("jobs/j1", "jobs/j2", "jobs/j3")]
    assert states == [State.COMPLETE, State.PLAYABLE, State.COMPLETE]
    assert one.state_of(made("jobs/j3", 1)) is State.PROCESSING
    assert replace(one, next_error=b"e").state_of(made("jobs/j3", 1)) is State.FAILED


def test_replaced_media_is_kept_for_longer_than_a_playback_can_read_it() -> None:
    assert LAST_PLAY_AFTER >= TOKEN_TTL + LAST_SWEEP_AFTER

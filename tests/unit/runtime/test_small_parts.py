from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime import ids
from services.runtime.clock import ManualClock, SystemClock
from services.runtime.errors import InvalidArgument
from services.runtime.names import ResourceName, format_name, parse

PROFILE = "users/{user}/profiles/{profile}"
SEGMENTS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,127}", fullmatch=True)


def test_ids_are_unique_and_sorted_in_the_order_they_were_made() -> None:
    made = [ids.new_id() for _ in range(20_000)]
    assert made == sorted(set(made))


def test_ids_of_many_threads_are_unique() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([ids.new_id() for _ in range(500)])) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 4_000


def test_ids_stay_in_order_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr("services.runtime.ids.time.time_ns", lambda: 0)
    assert ids.new_id() > first


def test_an_id_is_a_version_7_uuid_and_tells_its_time() -> None:
    before = datetime.now(UTC)
    made = ids.new_id()
    value = int("".join(f"{'0123456789abcdefghjkmnpqrstvwxyz'.index(c):05b}" for c in made), 2)
    assert (value >> 76 & 15, value >> 62 & 3) == (7, 2)
    assert before - timedelta(milliseconds=2) <= ids.time_of(made) <= datetime.now(UTC) + timedelta(seconds=5)


@pytest.mark.parametrize("text", ["", "x", "8" * 26, "0" * 25, "i" * 26, "0" * 25 + "L"])
def test_other_text_is_no_id(text: str) -> None:
    with pytest.raises(ValueError, match="not an identifier"):
        ids.time_of(text)


@given(SEGMENTS, SEGMENTS)
def test_a_name_that_was_made_reads_back(user: str, profile: str) -> None:
    name = format_name(PROFILE, user=user, profile=profile)
    assert parse(PROFILE, name) == {"user": user, "profile": profile}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "users/a",
        "users//profiles/p",
        "users/a/profiles/",
        "users/a/profiles/p/",
        "/users/a/profiles/p",
        "users/../profiles/p",
        "users/a b/profiles/p",
        "users/a/profiles/p\n",
        "users/é/profiles/p",
        "users/-/profiles/p",
        f"users/{'a' * 129}/profiles/p",
        "titles/a/profiles/p",
    ],
)
def test_other_names_are_bad_arguments_of_the_field(name: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(PROFILE, name, "parent")
    assert [violation.field for violation in caught.value.violations] == ["parent"]
    assert not ResourceName(PROFILE).matches(name)


@pytest.mark.parametrize(
    "bad", [{"user": "a"}, {"user": "a", "profile": "b/c"}, {"user": "", "profile": "b"}]
)
def test_a_bad_identifier_makes_no_name(bad: dict[str, str]) -> None:
    with pytest.raises((ValueError, KeyError)):
        format_name(PROFILE, **bad)


def test_a_pattern_may_hold_characters_special_to_expressions() -> None:
    assert parse("media/{title}.mp4", "media/a.mp4") == {"title": "a"}
    assert not ResourceName("a.b/{x}").matches("aXb/1")


def test_a_manual_clock_goes_forward_only() -> None:
    clock = ManualClock(datetime(2025, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))))
    assert clock.now() == datetime(2025, 3, 1, 10, tzinfo=UTC)
    clock.advance(1.5)
    clock.advance(timedelta(seconds=1))
    assert (clock.now(), clock.monotonic()) == (datetime(2025, 3, 1, 10, 0, 2, 500_000, tzinfo=UTC), 2.5)
    with pytest.raises(ValueError, match="only goes forward"):
        clock.advance(-1)
    with pytest.raises(ValueError, match="time zone"):
        clock.set(datetime(2030, 1, 1))  # noqa: DTZ001


def test_the_system_clock_is_aware_and_steady() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert clock.monotonic() <= clock.monotonic()

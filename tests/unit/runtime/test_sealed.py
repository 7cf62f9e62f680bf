from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.runtime.clock import ManualClock
from services.runtime.errors import InvalidArgument
from services.runtime.paging import Pager, page_size
from services.runtime.sealed import SealBroken, Sealer, SealExpired

KEY = bytes(range(32))
_URL_SAFE = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


@given(st.binary(max_size=2_000), st.text(max_size=20))
def test_a_token_opens_to_what_was_sealed(message: bytes, kind: str) -> None:
    sealer = Sealer(KEY)
    token = sealer.seal(kind, message, None)
    assert set(token) <= _URL_SAFE
    assert sealer.open(kind, token) == message


def test_two_processes_with_the_same_key_read_each_others_tokens() -> None:
    assert Sealer(KEY).open("lease", Sealer(KEY).seal("lease", b"x", None)) == b"x"


def test_another_deployments_token_is_refused() -> None:
    with pytest.raises(SealBroken):
        Sealer(bytes(32)).open("lease", Sealer(KEY).seal("lease", b"x", None))


def test_a_token_of_one_kind_is_no_token_of_another() -> None:
    sealer = Sealer(KEY)
    with pytest.raises(SealBroken):
        sealer.open("page", sealer.seal("lease", b"x", None))


def test_the_message_cannot_be_read_from_the_token() -> None:
    sealer = Sealer(KEY)
    assert sealer.seal("lease", b"secret", None) != sealer.seal("lease", b"secret", None)


@given(st.data())
def test_no_character_can_be_changed(data: st.DataObject) -> None:
    sealer = Sealer(KEY)
    token = sealer.seal("lease", b"users/ann", None)
    place = data.draw(st.integers(0, len(token) - 1))
    other = data.draw(st.sampled_from(sorted(_URL_SAFE - {token[place]})))
    with pytest.raises(SealBroken):
        sealer.open("lease", token[:place] + other + token[place + 1 :])


@given(st.text(max_size=200))
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(SealBroken):
        Sealer(KEY).open("lease", text)


@pytest.mark.parametrize("extra", ["=", "A", "\n", " "])
def test_a_token_with_something_added_is_refused(extra: str) -> None:
    sealer = Sealer(KEY)
    with pytest.raises(SealBroken):
        sealer.open("lease", sealer.seal("lease", b"x", None) + extra)


def test_a_token_ends_at_its_expiry_and_not_before() -> None:
    clock = ManualClock()
    sealer = Sealer(KEY, clock)
    token = sealer.seal("lease", b"x", clock.now() + timedelta(seconds=10))
    clock.advance(timedelta(seconds=9, milliseconds=999))
    assert sealer.open("lease", token) == b"x"
    clock.advance(timedelta(milliseconds=1))
    with pytest.raises(SealExpired):
        sealer.open("lease", token)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def pager(clock: ManualClock) -> Pager:
    return Pager(Sealer(KEY, clock), clock)


def test_a_page_token_gives_back_the_cursor_of_its_query(pager: Pager) -> None:
    token = pager.token("titles?language=en", ["2025-01-01", 7, None])
    assert pager.cursor("titles?language=en", token) == ["2025-01-01", 7, None]
    assert pager.cursor("titles?language=en", "") is None


def test_a_page_token_of_another_query_is_refused(pager: Pager) -> None:
    with pytest.raises(InvalidArgument, match="another query") as caught:
        pager.cursor("titles?language=de", pager.token("titles?language=en", [1]))
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


def test_forged_and_old_page_tokens_are_bad_arguments(pager: Pager, clock: ManualClock) -> None:
    token = pager.token("q", [1])
    clock.advance(timedelta(days=3))
    for bad in (token, "made-up", Sealer(KEY, clock).seal("lease", b"[]", None)):
        with pytest.raises(InvalidArgument):
            pager.cursor("q", bad)


def test_page_sizes_have_a_default_and_a_maximum() -> None:
    assert [page_size(n) for n in (0, 1, 200, 201)] == [50, 1, 200, 200]
    assert page_size(0, default=5, maximum=3) == 3
    with pytest.raises(InvalidArgument):
        page_size(-1)

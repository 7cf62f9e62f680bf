from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.identity.model import (
    FAILURE_WINDOW,
    LOST_REPLY,
    MAX_FAILURES,
    REFRESH_TTL,
    SESSION_TTL,
    RefreshToken,
    SessionEnded,
    TooManyAttempts,
    check_attempts,
    email_key,
    new_claim,
    new_session,
    password_text,
)

NOW = datetime(2025, 3, 1, tzinfo=UTC)
SECRET = b"0123456789abcdef"
SESSION = new_session("s1", "u1", SECRET, NOW)


def token(generation: int, secret: bytes = SECRET) -> RefreshToken:
    return RefreshToken(session_id="s1", generation=generation, secret=secret)


class TestRotation:
    def test_the_newest_token_moves_the_session_on(self) -> None:
        later = NOW + timedelta(days=3)
        assert SESSION.rotated(token(0), "client", later) == replace(
            SESSION, generation=1, rotate_time=later, rotate_client="client", expire_time=later + REFRESH_TTL
        )

    def test_the_replaced_token_gives_the_same_generation_to_the_same_client_for_ten_seconds(self) -> None:
        rotated = SESSION.rotated(token(0), "client", NOW)
        assert rotated is not None
        assert rotated.rotated(token(0), "client", NOW + LOST_REPLY) == rotated

    @pytest.mark.parametrize(
        ("client", "after"),
        [("thief", timedelta(0)), ("client", LOST_REPLY + timedelta(microseconds=1))],
        ids=["another client", "too late"],
    )
    def test_otherwise_the_replaced_token_means_theft(self, client: str, after: timedelta) -> None:
        rotated = SESSION.rotated(token(0), "client", NOW)
        assert rotated is not None
        assert rotated.rotated(token(0), client, NOW + after) is None

    def test_a_token_two_generations_old_means_theft_at_once(self) -> None:
        rotated = replace(SESSION, generation=2, rotate_client="client")
        assert rotated.rotated(token(0), "client", NOW) is None

    def test_a_token_of_the_future_means_theft(self) -> None:
        assert SESSION.rotated(token(1), "client", NOW) is None

    def test_a_wrong_secret_does_not_touch_the_session(self) -> None:
        with pytest.raises(SessionEnded):
            SESSION.rotated(token(0, b"wrong"), "client", NOW)

    def test_an_expired_session_is_over(self) -> None:
        with pytest.raises(SessionEnded):
            SESSION.rotated(token(0), "client", SESSION.expire_time)

    def test_no_session_outlives_its_year_however_often_it_is_refreshed(self) -> None:
        session, now = SESSION, NOW
        for generation in range(400):
            now += timedelta(days=1)
            if now >= session.expire_time:
                break
            rotated = session.rotated(token(generation), "client", now)
            assert rotated is not None
            session = rotated
        assert session.expire_time == now == NOW + SESSION_TTL


class TestAttempts:
    def test_one_failure_less_than_the_limit_passes(self) -> None:
        check_attempts([NOW] * (MAX_FAILURES - 1), NOW)

    def test_the_limit_is_answered_with_the_wait_until_the_oldest_is_forgotten(self) -> None:
        failures = [NOW + timedelta(minutes=n) for n in range(MAX_FAILURES)]
        with pytest.raises(TooManyAttempts) as caught:
            check_attempts(failures, NOW + timedelta(minutes=10))
        assert caught.value.retry_after_ms == 5 * 60 * 1000

    @given(st.lists(st.integers(0, 1000), min_size=MAX_FAILURES), st.integers(0, 2000))
    def test_after_the_told_wait_the_next_attempt_passes(self, seconds: list[int], at: int) -> None:
        failures = sorted(NOW + timedelta(seconds=second) for second in seconds)
        now = max(NOW + timedelta(seconds=at), failures[-1])
        try:
            check_attempts(failures, now)
        except TooManyAttempts as error:
            then = now + timedelta(milliseconds=error.retry_after_ms or 0)
            check_attempts(failures, then)
            assert then > now
        else:
            assert sum(failure + FAILURE_WINDOW > now for failure in failures) < MAX_FAILURES


class TestText:
    @pytest.mark.parametrize("spelling", ["JOSÉ@x.org", "josé@x.org", "JOSE\N{COMBINING ACUTE ACCENT}@X.ORG"])
    def test_an_address_has_one_key_in_every_case_and_spelling(self, spelling: str) -> None:
        assert email_key(spelling) == "josé@x.org"

    @given(st.text())
    def test_the_key_of_a_key_is_itself(self, text: str) -> None:
        assert email_key(email_key(text)) == email_key(text)

    def test_passwords_keep_case_and_space_but_not_the_spelling_of_accents(self) -> None:
        assert password_text(" Cafe\N{COMBINING ACUTE ACCENT} ") == " Café "


class TestClaim:
    def test_it_opens_with_its_token_until_used(self) -> None:
        claim = new_claim("token", NOW)
        assert claim.opens_with("token")
        assert not claim.opens_with("other")
        assert not replace(claim, claim_time=NOW).opens_with("token")

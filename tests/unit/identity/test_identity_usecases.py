from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from services.identity.model import (
    FAILURE_WINDOW,
    MAX_FAILURES,
    MAX_PROFILES,
    MAX_SESSIONS,
    REFRESH_TTL,
    ClaimInvalid,
    EmailTaken,
    Grant,
    LastOperator,
    LastProfile,
    ProfileLimit,
    RefreshTokenReused,
    Role,
    SessionEnded,
    TooManyAttempts,
    WrongCredentials,
)
from services.identity.store_sql import SqlStore
from services.identity.tokens import Tokens
from services.identity.usecases import Application, Identity, Joined
from services.runtime.auth import TokenSigner
from services.runtime.clock import ManualClock
from services.runtime.errors import AlreadyExists, InvalidArgument, NotFound
from services.runtime.keys import open_keys
from services.runtime.sealed import SealBroken, Sealer
from tests.support.databases import sqlite_database

ANN = Application(email="ann@example.org", password="correct horse", display_name="Ann")


@dataclass
class PlainPasswords:
    """Hashes nothing, so that the rules around it are quick to test."""

    version: str = "v1"
    verified: list[str | None] = field(default_factory=list)

    async def hash(self, password: str) -> str:
        return f"{self.version}:{password}"

    async def verify(self, password_hash: str | None, password: str) -> bool:
        self.verified.append(password_hash)
        return password_hash is not None and password_hash.partition(":")[2] == password

    def outdated(self, password_hash: str) -> bool:
        return not password_hash.startswith(self.version)


@dataclass
class World:
    identity: Identity
    store: SqlStore
    clock: ManualClock
    passwords: PlainPasswords
    claimed: list[bool]

    async def join(self, form: Application = ANN, request_id: str = "r1") -> Joined:
        return await self.identity.sign_up(form, request_id)

    async def operator(self, email: str = "op@example.org") -> Joined:
        token = await self.identity.offer_claim(None)
        assert token
        return await self.identity.claim_operator(token, replace(ANN, email=email))

    async def alive(self, grant: Grant) -> bool:
        try:
            await self.identity.refresh_session(grant.refresh_token, "probe")
        except (SessionEnded, RefreshTokenReused):
            return False
        return True


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    clock, passwords, claimed = ManualClock(), PlainPasswords(), []
    keys = open_keys(tmp_path / "keys")
    async with sqlite_database(tmp_path) as database:
        await database.migrate("services.identity")
        store = SqlStore(database)
        identity = Identity(
            store=store,
            passwords=passwords,
            tokens=Tokens(TokenSigner(keys.signing_pem, clock), Sealer(keys.internal, clock)),
            clock=clock,
            claimed=lambda: claimed.append(True),
        )
        yield World(identity, store, clock, passwords, claimed)


class TestSignUp:
    async def test_makes_a_viewer_with_a_profile_of_the_same_name_and_a_session(self, world: World) -> None:
        joined = await world.join(replace(ANN, display_name="  Ann  "))
        assert (joined.user.role, joined.user.display_name, joined.profile.display_name) == (
            Role.VIEWER,
            "Ann",
            "Ann",
        )
        assert await world.identity.get_user(joined.user.id) == joined.user
        assert await world.identity.list_profiles(joined.user.id) == [joined.profile]
        assert await world.alive(joined.grant)

    async def test_a_repetition_has_one_effect_and_gets_a_session_of_its_own(self, world: World) -> None:
        first, again = await world.join(), await world.join()
        assert (again.user, again.profile) == (first.user, first.profile)
        assert again.grant.refresh_token != first.grant.refresh_token
        assert await world.alive(first.grant)
        assert await world.alive(again.grant)

    async def test_a_repetition_without_the_password_gets_nothing(self, world: World) -> None:
        await world.join()
        with pytest.raises(EmailTaken):
            await world.join(replace(ANN, password="guessed by a thief"))

    async def test_the_request_id_of_another_sign_up_is_refused(self, world: World) -> None:
        await world.join()
        with pytest.raises(AlreadyExists) as caught:
            await world.join(replace(ANN, email="bob@example.org"))
        assert caught.value.reason == "REQUEST_ID_REUSED"

    async def test_a_taken_address_is_refused_in_any_case(self, world: World) -> None:
        await world.join()
        with pytest.raises(EmailTaken):
            await world.join(replace(ANN, email="ANN@EXAMPLE.ORG"), "r2")

    async def test_of_fifty_at_once_for_one_address_one_succeeds(self, world: World) -> None:
        results = await asyncio.gather(
            *(world.join(request_id=f"r{n}") for n in range(50)), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["EmailTaken"] * 49 + ["Joined"]

    @pytest.mark.parametrize("name", [" ", "a\nb", "a\x00b", "a\N{LINE SEPARATOR}b"])
    async def test_a_name_that_cannot_be_shown_is_refused_before_anything_is_stored(
        self, world: World, name: str
    ) -> None:
        with pytest.raises(InvalidArgument):
            await world.join(replace(ANN, display_name=name))
        assert await world.identity.list_users(None, 10) == []


class TestSignIn:
    async def test_opens_a_session_for_the_address_in_any_case(self, world: World) -> None:
        joined = await world.join()
        user, grant = await world.identity.sign_in("Ann@Example.ORG", ANN.password)
        assert user == joined.user
        assert await world.alive(grant)

    async def test_a_wrong_password_and_an_unknown_address_fail_alike(self, world: World) -> None:
        await world.join()
        messages = []
        for email in (ANN.email, "nobody@example.org"):
            with pytest.raises(WrongCredentials) as caught:
                await world.identity.sign_in(email, "wrong")
            messages.append((caught.value.message, caught.value.metadata))
        assert messages[0] == messages[1]
        assert world.passwords.verified == ["v1:correct horse", None]

    @pytest.mark.parametrize("email", [ANN.email, "nobody@example.org"])
    async def test_after_ten_failures_no_password_is_looked_at_for_a_quarter_of_an_hour(
        self, world: World, email: str
    ) -> None:
        await world.join()
        for _ in range(MAX_FAILURES):
            with pytest.raises(WrongCredentials):
                await world.identity.sign_in(email, "wrong")
        looked_at = len(world.passwords.verified)
        with pytest.raises(TooManyAttempts) as caught:
            await world.identity.sign_in(email.upper(), ANN.password)
        assert (caught.value.retry_after_ms, len(world.passwords.verified)) == (900_000, looked_at)

        world.clock.advance(FAILURE_WINDOW)
        with pytest.raises(WrongCredentials):
            await world.identity.sign_in(email, "wrong")

    async def test_other_addresses_are_not_held_up(self, world: World) -> None:
        await world.join()
        for _ in range(MAX_FAILURES):
            with pytest.raises(WrongCredentials):
                await world.identity.sign_in("nobody@example.org", "wrong")
        assert (await world.identity.sign_in(ANN.email, ANN.password))[0].email == ANN.email

    async def test_guesses_made_at_once_do_not_outrun_the_limit(self, world: World) -> None:
        await world.join()
        results = await asyncio.gather(
            *(world.identity.sign_in(ANN.email, f"guess {n}") for n in range(40)), return_exceptions=True
        )
        kinds = sorted(type(result).__name__ for result in results)
        assert kinds == ["TooManyAttempts"] * 30 + ["WrongCredentials"] * MAX_FAILURES

    async def test_successes_do_not_count(self, world: World) -> None:
        await world.join()
        for _ in range(MAX_FAILURES + 1):
            await world.identity.sign_in(ANN.email, ANN.password)

    async def test_an_outdated_hash_is_made_anew(self, world: World) -> None:
        joined = await world.join()
        world.passwords.version = "v2"
        await world.identity.sign_in(ANN.email, ANN.password)
        account = await world.store.read(lambda tx: tx.account(joined.user.id))
        assert account is not None
        assert account.password_hash == "v2:correct horse"

    async def test_the_oldest_session_ends_when_there_are_too_many(self, world: World) -> None:
        first = (await world.join()).grant
        grants = [(await world.identity.sign_in(ANN.email, ANN.password))[1] for _ in range(MAX_SESSIONS)]
        assert not await world.alive(first)
        assert await world.alive(grants[0])

    async def test_expired_sessions_are_forgotten(self, world: World) -> None:
        joined = await world.join()
        world.clock.advance(REFRESH_TTL)
        await world.identity.sign_in(ANN.email, ANN.password)
        assert len(await world.store.read(lambda tx: tx.sessions(joined.user.id))) == 1


class TestRefresh:
    async def test_each_token_works_once_and_leads_to_the_next(self, world: World) -> None:
        grant = (await world.join()).grant
        for _ in range(3):
            world.clock.advance(timedelta(minutes=14))
            grant = await world.identity.refresh_session(grant.refresh_token, "client")
        assert await world.alive(grant)

    async def test_a_lost_answer_is_given_again_to_the_same_client(self, world: World) -> None:
        first = (await world.join()).grant
        lost = await world.identity.refresh_session(first.refresh_token, "client")
        world.clock.advance(timedelta(seconds=9))
        again = await world.identity.refresh_session(first.refresh_token, "client")
        world.clock.advance(timedelta(minutes=1))
        assert again.refresh_token != lost.refresh_token
        assert await world.alive(again)

    @pytest.mark.parametrize(("client", "seconds"), [("thief", 1), ("client", 11)])
    async def test_reuse_ends_the_session_for_everybody(
        self, world: World, client: str, seconds: float
    ) -> None:
        first = (await world.join()).grant
        second = await world.identity.refresh_session(first.refresh_token, "client")
        world.clock.advance(seconds)
        with pytest.raises(RefreshTokenReused):
            await world.identity.refresh_session(first.refresh_token, client)
        with pytest.raises(SessionEnded):
            await world.identity.refresh_session(second.refresh_token, "client")

    async def test_reuse_leaves_the_users_other_sessions_alone(self, world: World) -> None:
        stolen = (await world.join()).grant
        other = (await world.identity.sign_in(ANN.email, ANN.password))[1]
        await world.identity.refresh_session(stolen.refresh_token, "client")
        with pytest.raises(RefreshTokenReused):
            await world.identity.refresh_session(stolen.refresh_token, "thief")
        assert await world.alive(other)

    async def test_an_unused_session_ends_after_thirty_days(self, world: World) -> None:
        grant = (await world.join()).grant
        world.clock.advance(REFRESH_TTL)
        with pytest.raises(SessionEnded):
            await world.identity.refresh_session(grant.refresh_token, "client")

    async def test_a_made_up_token_is_refused(self, world: World) -> None:
        with pytest.raises(SealBroken):
            await world.identity.refresh_session("made-up", "client")

    async def test_a_new_role_holds_from_the_next_token(self, world: World) -> None:
        joined = await world.join()
        await world.identity.set_user_role(joined.user.id, Role.PUBLISHER)
        grant = await world.identity.refresh_session(joined.grant.refresh_token, "client")
        assert grant.user.role is Role.PUBLISHER

    async def test_the_database_holds_no_token(self, world: World, tmp_path: Path) -> None:
        joined = await world.join()
        session = (await world.store.read(lambda tx: tx.sessions(joined.user.id)))[0]
        files = await asyncio.to_thread(lambda: [path.read_bytes() for path in tmp_path.glob("*.db*")])
        stored = b"".join(files)
        assert session.id.encode() in stored
        assert joined.grant.refresh_token.encode() not in stored


class TestSignOut:
    async def test_ends_the_session_by_any_of_its_tokens_and_repeats_harmlessly(self, world: World) -> None:
        old = (await world.join()).grant
        new = await world.identity.refresh_session(old.refresh_token, "client")
        await world.identity.sign_out(old.refresh_token)
        await world.identity.sign_out(old.refresh_token)
        assert not await world.alive(new)

    async def test_of_an_expired_session_succeeds(self, world: World) -> None:
        grant = (await world.join()).grant
        world.clock.advance(REFRESH_TTL)
        await world.identity.sign_out(grant.refresh_token)


class TestClaim:
    async def test_makes_the_operator_once(self, world: World) -> None:
        token = await world.identity.offer_claim(None)
        assert token
        joined = await world.identity.claim_operator(token, ANN)
        assert (joined.user.role, world.claimed) == (Role.OPERATOR, [True])
        with pytest.raises(ClaimInvalid):
            await world.identity.claim_operator(token, replace(ANN, email="eve@example.org"))
        assert await world.identity.offer_claim(token) is None

    async def test_a_wrong_token_makes_nobody(self, world: World) -> None:
        await world.identity.offer_claim(None)
        with pytest.raises(ClaimInvalid):
            await world.identity.claim_operator("wrong", ANN)
        assert (await world.identity.list_users(None, 9), world.claimed) == ([], [])

    async def test_of_several_at_once_one_succeeds(self, world: World) -> None:
        token = await world.identity.offer_claim(None)
        assert token
        forms = [replace(ANN, email=f"op{n}@example.org") for n in range(10)]
        results = await asyncio.gather(
            *(world.identity.claim_operator(token, form) for form in forms), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == ["ClaimInvalid"] * 9 + ["Joined"]

    async def test_a_taken_address_does_not_use_the_token_up(self, world: World) -> None:
        await world.join()
        token = await world.identity.offer_claim(None)
        assert token
        with pytest.raises(EmailTaken):
            await world.identity.claim_operator(token, ANN)
        assert (
            await world.identity.claim_operator(token, replace(ANN, email="op@x.org"))
        ).user.email == "op@x.org"

    async def test_a_second_start_offers_the_same_token_and_a_lost_one_is_replaced(
        self, world: World
    ) -> None:
        token = await world.identity.offer_claim(None)
        assert await world.identity.offer_claim(token) == token
        replacement = await world.identity.offer_claim(None)
        assert replacement not in (None, token)
        with pytest.raises(ClaimInvalid):
            await world.identity.claim_operator(str(token), ANN)


class TestChangePassword:
    async def test_ends_all_other_sessions_and_the_old_password(self, world: World) -> None:
        joined = await world.join()
        grant = await world.identity.change_password(joined.user.id, ANN.password, "a better one")
        assert await world.alive(grant)
        assert not await world.alive(joined.grant)
        with pytest.raises(WrongCredentials):
            await world.identity.sign_in(ANN.email, ANN.password)
        await world.identity.sign_in(ANN.email, "a better one")

    async def test_guessing_the_old_password_runs_into_the_limit_of_sign_in(self, world: World) -> None:
        joined = await world.join()
        for _ in range(MAX_FAILURES):
            with pytest.raises(WrongCredentials):
                await world.identity.change_password(joined.user.id, "wrong", "a better one")
        with pytest.raises(TooManyAttempts):
            await world.identity.sign_in(ANN.email, ANN.password)


class TestRoles:
    async def test_the_last_operator_stays_one(self, world: World) -> None:
        operator = (await world.operator()).user
        with pytest.raises(LastOperator):
            await world.identity.set_user_role(operator.id, Role.VIEWER)
        assert (await world.identity.get_user(operator.id)).role is Role.OPERATOR

    async def test_one_of_two_operators_may_go_but_not_both_at_once(self, world: World) -> None:
        first, second = (await world.operator()).user, (await world.join()).user
        await world.identity.set_user_role(second.id, Role.OPERATOR)
        results = await asyncio.gather(
            *(world.identity.set_user_role(user.id, Role.VIEWER) for user in (first, second)),
            return_exceptions=True,
        )
        assert sorted(type(result).__name__ for result in results) == ["LastOperator", "User"]

    async def test_an_unknown_user_is_not_found(self, world: World) -> None:
        with pytest.raises(NotFound):
            await world.identity.set_user_role("nobody", Role.VIEWER)


class TestProfiles:
    async def make(self, world: World, user_id: str, name: str = "Kim", request_id: str = "p1") -> str:
        profile = await world.identity.create_profile(user_id, name, f"users/{user_id}", request_id)
        return profile.id

    async def test_a_repeated_request_makes_one_and_gets_the_same_answer(self, world: World) -> None:
        user = (await world.join()).user
        first = await world.identity.create_profile(user.id, "Kim", user.name, "p1")
        world.clock.advance(60)
        assert await world.identity.create_profile(user.id, "Kim", user.name, "p1") == first
        assert len(await world.identity.list_profiles(user.id)) == 2

    async def test_a_user_has_ten_at_most(self, world: World) -> None:
        user = (await world.join()).user
        for n in range(MAX_PROFILES - 1):
            await self.make(world, user.id, request_id=f"p{n}")
        with pytest.raises(ProfileLimit):
            await self.make(world, user.id, request_id="one more")
        assert len(await world.identity.list_profiles(user.id)) == MAX_PROFILES

    async def test_the_last_one_cannot_be_deleted(self, world: World) -> None:
        joined = await world.join()
        made = await self.make(world, joined.user.id)
        await world.identity.delete_profile(joined.user.id, joined.profile.id)
        with pytest.raises(LastProfile):
            await world.identity.delete_profile(joined.user.id, made)

    async def test_one_of_another_user_is_not_found(self, world: World) -> None:
        ann, bob = await world.join(), await world.join(replace(ANN, email="bob@x.org"), "r2")
        await self.make(world, bob.user.id)
        with pytest.raises(NotFound):
            await world.identity.delete_profile(ann.user.id, bob.profile.id)
        assert len(await world.identity.list_profiles(bob.user.id)) == 2

    async def test_an_unknown_user_has_none(self, world: World) -> None:
        with pytest.raises(NotFound):
            await self.make(world, "nobody")
        with pytest.raises(NotFound):
            await world.identity.list_profiles("nobody")

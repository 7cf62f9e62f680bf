from __future__ import annotations

import asyncio
import stat
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from kino.identity.v1 import identity_pb2 as pb
from kino.identity.v1 import identity_pb2_grpc, resources_pb2
from services.identity import bootstrap
from services.identity.bootstrap import build, claim_file
from services.identity.passwords import Argon2Passwords
from services.runtime.app import Running
from services.runtime.auth import TokenVerifier
from services.runtime.clock import ManualClock
from services.runtime.keys import open_keys
from services.runtime.status import error_of
from services.runtime.testing import bearer, channel_of, service_token, serving

PASSWORD = "correct horse"
Stub = identity_pb2_grpc.IdentityServiceStub


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    from argon2 import PasswordHasher

    cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(bootstrap, "Argon2Passwords", lambda: Argon2Passwords(cheap))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def process(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Running]:
    async with serving(tmp_path, clock=clock, identity=build) as running:
        yield running


@pytest.fixture
async def stub(process: Running) -> AsyncIterator[Any]:
    async with channel_of(process) as channel:
        yield Stub(channel)


async def sign_up(stub: Any, email: str = "ann@example.org") -> pb.SignUpResponse:
    response: pb.SignUpResponse = await stub.SignUp(
        pb.SignUpRequest(email=email, password=PASSWORD, display_name="Ann", request_id=str(uuid.uuid4()))
    )
    return response


async def claim(stub: Any, process: Running, email: str = "op@example.org") -> pb.ClaimOperatorResponse:
    token = claim_file(process.context.settings.data_dir).read_text().strip()
    response: pb.ClaimOperatorResponse = await stub.ClaimOperator(
        pb.ClaimOperatorRequest(claim_token=token, email=email, password=PASSWORD, display_name="Op")
    )
    return response


def of(session: resources_pb2.Session) -> Any:
    return bearer(session.access_token)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), error_of(caught.value).reason


DENIED = (grpc.StatusCode.PERMISSION_DENIED, "NOT_OWNER")
NO_ROLE = (grpc.StatusCode.PERMISSION_DENIED, "ROLE_MISSING")
NO_TOKEN = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


class TestSessions:
    async def test_sign_up_answers_with_the_user_its_profile_and_working_tokens(
        self, stub: Any, process: Running, clock: ManualClock
    ) -> None:
        joined = await sign_up(stub)
        user = await stub.GetUser(pb.GetUserRequest(name="users/me"), metadata=of(joined.session))
        assert user.user == joined.user
        assert joined.profile.name.startswith(joined.user.name + "/profiles/")
        assert (joined.session.user, joined.session.role) == (joined.user.name, resources_pb2.ROLE_VIEWER)
        expires = joined.session.access_token_expire_time.ToDatetime(tzinfo=clock.now().tzinfo)
        assert expires == clock.now() + timedelta(minutes=15)

    async def test_the_access_token_verifies_with_the_published_keys_alone(
        self, stub: Any, process: Running, clock: ManualClock
    ) -> None:
        joined = await sign_up(stub)
        keys = open_keys(process.context.settings.keys_folder)
        caller = TokenVerifier(b"\0" * 32, keys.jwks, clock).verify(joined.session.access_token)
        assert (caller.subject, caller.roles) == (joined.user.name, frozenset({"viewer"}))

    async def test_an_expired_access_token_is_refused_and_a_refreshed_one_works(
        self, stub: Any, clock: ManualClock
    ) -> None:
        joined = await sign_up(stub)
        clock.advance(timedelta(minutes=15))
        me = pb.GetUserRequest(name="users/me")
        assert await refused(stub.GetUser(me, metadata=of(joined.session))) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "TOKEN_EXPIRED",
        )
        fresh = await stub.RefreshSession(
            pb.RefreshSessionRequest(refresh_token=joined.session.refresh_token)
        )
        assert (await stub.GetUser(me, metadata=of(fresh.session))).user == joined.user

    async def test_devices_are_listed_and_one_is_signed_out_from_another(
        self, stub: Any, clock: ManualClock
    ) -> None:
        joined = await sign_up(stub)
        clock.advance(60)
        sign_in = pb.SignInRequest(email="ann@example.org", password=PASSWORD, device="Firefox on Linux")
        phone = (await stub.SignIn(sign_in)).session
        mine = pb.ListDevicesRequest(parent=joined.user.name)
        devices = (await stub.ListDevices(mine, metadata=of(joined.session))).devices
        assert [(one.display_name, one.current) for one in devices] == [
            ("Firefox on Linux", False),
            ("", True),
        ]
        other = await sign_up(stub, "bob@example.org")
        end = pb.DeleteDeviceRequest(name=devices[0].name)
        assert await refused(stub.ListDevices(mine, metadata=of(other.session))) == DENIED
        assert await refused(stub.DeleteDevice(end, metadata=of(other.session))) == DENIED
        for _ in range(2):
            await stub.DeleteDevice(end, metadata=of(joined.session))
        refresh = pb.RefreshSessionRequest(refresh_token=phone.refresh_token)
        assert await refused(stub.RefreshSession(refresh)) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "SESSION_ENDED",
        )
        devices = (await stub.ListDevices(mine, metadata=of(joined.session))).devices
        assert [one.current for one in devices] == [True]

    async def test_a_stolen_refresh_token_used_by_another_client_ends_the_session(
        self, stub: Any, clock: ManualClock
    ) -> None:
        joined = await sign_up(stub)
        request = pb.RefreshSessionRequest(refresh_token=joined.session.refresh_token)
        here, elsewhere = (("x-forwarded-for", "203.0.113.7, 10.0.0.1"),), (("x-forwarded-for", "10.0.0.2"),)
        second = await stub.RefreshSession(request, metadata=here)
        assert await stub.RefreshSession(request, metadata=here)
        assert (await refused(stub.RefreshSession(request, metadata=elsewhere)))[1] == "REFRESH_TOKEN_REUSED"
        assert (
            await refused(
                stub.RefreshSession(
                    pb.RefreshSessionRequest(refresh_token=second.session.refresh_token), metadata=here
                )
            )
        )[1] == "SESSION_ENDED"

    async def test_sign_out_ends_the_session_twice_over(self, stub: Any) -> None:
        joined = await sign_up(stub)
        request = pb.SignOutRequest(refresh_token=joined.session.refresh_token)
        await stub.SignOut(request)
        await stub.SignOut(request)
        refresh = pb.RefreshSessionRequest(refresh_token=joined.session.refresh_token)
        assert await refused(stub.RefreshSession(refresh)) == (
            grpc.StatusCode.UNAUTHENTICATED,
            "SESSION_ENDED",
        )

    async def test_the_eleventh_failure_is_told_when_to_come_back(self, stub: Any) -> None:
        await sign_up(stub)
        wrong = pb.SignInRequest(email="ann@example.org", password="wrong")
        for _ in range(10):
            assert await refused(stub.SignIn(wrong)) == (grpc.StatusCode.UNAUTHENTICATED, "WRONG_CREDENTIALS")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.SignIn(pb.SignInRequest(email="ann@example.org", password=PASSWORD))
        error = error_of(caught.value)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (error.reason, error.retry_after_ms) == ("TOO_MANY_ATTEMPTS", 900_000)

    async def test_change_password_is_for_the_user_alone_even_before_an_operator(
        self, stub: Any, process: Running
    ) -> None:
        joined, operator = await sign_up(stub), await claim(stub, process)
        request = pb.ChangePasswordRequest(
            name=joined.user.name, old_password=PASSWORD, new_password="a better one"
        )
        assert await refused(stub.ChangePassword(request, metadata=of(operator.session))) == DENIED
        changed = await stub.ChangePassword(request, metadata=of(joined.session))
        assert changed.session.user == joined.user.name


class TestClaim:
    async def test_the_first_start_writes_the_token_for_its_owner_alone_and_using_it_removes_it(
        self, stub: Any, process: Running
    ) -> None:
        path = claim_file(process.context.settings.data_dir)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        claimed = await claim(stub, process)
        assert claimed.user.role == resources_pb2.ROLE_OPERATOR
        assert not path.exists()

    async def test_a_restart_keeps_the_token_and_a_claimed_deployment_offers_none(
        self, tmp_path: Path
    ) -> None:
        async with serving(tmp_path, identity=build):
            token = claim_file(tmp_path).read_text()
        async with serving(tmp_path, identity=build) as process, channel_of(process) as channel:
            assert claim_file(tmp_path).read_text() == token
            await claim(Stub(channel), process)
        async with serving(tmp_path, identity=build):
            assert not claim_file(tmp_path).exists()

    async def test_a_wrong_token_is_refused(self, stub: Any) -> None:
        request = pb.ClaimOperatorRequest(
            claim_token="wrong", email="op@example.org", password=PASSWORD, display_name="Op"
        )
        assert await refused(stub.ClaimOperator(request)) == (
            grpc.StatusCode.PERMISSION_DENIED,
            "CLAIM_INVALID",
        )


class TestAccess:
    async def test_strangers_see_nothing_of_a_user_and_operators_and_services_do(
        self, stub: Any, process: Running
    ) -> None:
        ann, bob = await sign_up(stub), await sign_up(stub, "bob@example.org")
        operator = await claim(stub, process)
        profile = pb.DeleteProfileRequest(name=ann.profile.name)
        calls = [
            (stub.GetUser, pb.GetUserRequest(name=ann.user.name)),
            (stub.ListProfiles, pb.ListProfilesRequest(parent=ann.user.name)),
            (
                stub.CreateProfile,
                pb.CreateProfileRequest(
                    parent=ann.user.name,
                    profile=resources_pb2.Profile(display_name="Kim"),
                    request_id=str(uuid.uuid4()),
                ),
            ),
            (stub.DeleteProfile, profile),
        ]
        for method, request in calls:
            assert await refused(method(request)) == NO_TOKEN
            assert await refused(method(request, metadata=of(bob.session))) == DENIED
        for method, request in calls[:-1]:
            assert await method(request, metadata=of(operator.session))
            assert await method(request, metadata=bearer(service_token(process, "playback")))
        await stub.DeleteProfile(profile, metadata=of(ann.session))

    async def test_a_stranger_is_not_told_whether_a_user_exists(self, stub: Any) -> None:
        ann = await sign_up(stub)
        request = pb.GetUserRequest(name="users/nobody")
        assert await refused(stub.GetUser(request, metadata=of(ann.session))) == DENIED

    async def test_users_and_roles_are_the_operators(self, stub: Any, process: Running) -> None:
        ann, operator = await sign_up(stub), await claim(stub, process)
        role = pb.SetUserRoleRequest(name=ann.user.name, role=resources_pb2.ROLE_OPERATOR)
        for method, request in [(stub.ListUsers, pb.ListUsersRequest()), (stub.SetUserRole, role)]:
            assert await refused(method(request)) == NO_TOKEN
            assert await refused(method(request, metadata=of(ann.session))) == NO_ROLE
        changed = await stub.SetUserRole(role, metadata=of(operator.session))
        assert changed.user.role == resources_pb2.ROLE_OPERATOR

    async def test_a_token_keeps_its_role_until_it_is_refreshed(self, stub: Any, process: Running) -> None:
        ann, operator = await sign_up(stub), await claim(stub, process)
        role = pb.SetUserRoleRequest(name=ann.user.name, role=resources_pb2.ROLE_OPERATOR)
        await stub.SetUserRole(role, metadata=of(operator.session))
        assert await refused(stub.ListUsers(pb.ListUsersRequest(), metadata=of(ann.session))) == NO_ROLE
        fresh = await stub.RefreshSession(pb.RefreshSessionRequest(refresh_token=ann.session.refresh_token))
        assert len((await stub.ListUsers(pb.ListUsersRequest(), metadata=of(fresh.session))).users) == 2

    async def test_a_service_has_no_users_me(self, stub: Any, process: Running) -> None:
        token = bearer(service_token(process, "playback"))
        assert await refused(stub.GetUser(pb.GetUserRequest(name="users/me"), metadata=token)) == DENIED

    async def test_the_last_operator_cannot_be_demoted(self, stub: Any, process: Running) -> None:
        operator = await claim(stub, process)
        request = pb.SetUserRoleRequest(name="users/me", role=resources_pb2.ROLE_VIEWER)
        assert await refused(stub.SetUserRole(request, metadata=of(operator.session))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "LAST_OPERATOR",
        )


class TestRequests:
    @pytest.mark.parametrize(
        "change",
        [
            {"email": "no address"},
            {"email": "a@b.org\nBcc: x@y.org"},
            {"password": "too short"},
            {"password": "x" * 1025},
            {"display_name": ""},
            {"display_name": "x" * 101},
            {"display_name": "   "},
            {"request_id": "not a uuid"},
        ],
    )
    async def test_a_sign_up_against_the_rules_is_refused(self, stub: Any, change: dict[str, str]) -> None:
        fields = {
            "email": "ann@example.org",
            "password": PASSWORD,
            "display_name": "Ann",
            "request_id": str(uuid.uuid4()),
        }
        code, _ = await refused(stub.SignUp(pb.SignUpRequest(**{**fields, **change})))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    async def test_all_users_are_listed_page_by_page_oldest_first(
        self, stub: Any, process: Running, clock: ManualClock
    ) -> None:
        operator = await claim(stub, process)
        names = [operator.user.name]
        for n in range(6):
            clock.advance(n % 2)
            names.append((await sign_up(stub, f"u{n}@example.org")).user.name)
        seen, token = [], ""
        while True:
            page = await stub.ListUsers(
                pb.ListUsersRequest(page_size=3, page_token=token), metadata=of(operator.session)
            )
            seen += [user.name for user in page.users]
            token = page.next_page_token
            if not token:
                break
        assert seen == names

    async def test_a_made_up_page_token_is_refused(self, stub: Any, process: Running) -> None:
        operator = await claim(stub, process)
        request = pb.ListUsersRequest(page_token="made-up")
        code, _ = await refused(stub.ListUsers(request, metadata=of(operator.session)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT

    async def test_everything_is_there_after_a_restart(self, tmp_path: Path) -> None:
        async with serving(tmp_path, identity=build) as process, channel_of(process) as channel:
            joined = await sign_up(Stub(channel))
        async with serving(tmp_path, identity=build) as process, channel_of(process) as channel:
            stub: Any = Stub(channel)
            signed_in = await stub.SignIn(pb.SignInRequest(email="ANN@example.org", password=PASSWORD))
            refreshed = await stub.RefreshSession(
                pb.RefreshSessionRequest(refresh_token=joined.session.refresh_token)
            )
        assert (signed_in.user, refreshed.session.user) == (joined.user, joined.user.name)

    async def test_many_sign_ins_at_once_all_succeed(self, stub: Any) -> None:
        await sign_up(stub)
        request = pb.SignInRequest(email="ann@example.org", password=PASSWORD)
        answers = await asyncio.gather(*(stub.SignIn(request) for _ in range(8)))
        assert len({answer.session.refresh_token for answer in answers}) == 8

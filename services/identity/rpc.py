"""`kino.identity.v1.IdentityService`: Protobuf to use cases and back."""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Any

from kino.identity.v1 import identity_pb2 as pb
from kino.identity.v1 import identity_pb2_grpc, resources_pb2
from services.identity.model import Grant, Profile, Role, Session, User
from services.identity.usecases import Application, Identity
from services.runtime import names
from services.runtime.auth import NotYours, own_name, principal, require_user
from services.runtime.paging import Pager, page_size
from services.runtime.wire import timestamp

_ROLES = {
    Role.VIEWER: resources_pb2.ROLE_VIEWER,
    Role.PUBLISHER: resources_pb2.ROLE_PUBLISHER,
    Role.OPERATOR: resources_pb2.ROLE_OPERATOR,
}
_ROLES_BACK = {number: role for role, number in _ROLES.items()}
_USER = "users/{user}"
_PROFILE = "users/{user}/profiles/{profile}"


class IdentityServicer(identity_pb2_grpc.IdentityServiceServicer):
    """What each method does, and who may call it, is documented in the contract."""

    def __init__(self, identity: Identity, pager: Pager) -> None:
        """`pager` makes the page tokens."""
        self._identity, self._pager = identity, pager

    async def SignUp(self, request: pb.SignUpRequest, context: Any) -> pb.SignUpResponse:
        joined = await self._identity.sign_up(_application(request), request.request_id)
        return pb.SignUpResponse(
            user=_user(joined.user), profile=_profile(joined.profile), session=_session(joined.grant)
        )

    async def SignIn(self, request: pb.SignInRequest, context: Any) -> pb.SignInResponse:
        user, grant = await self._identity.sign_in(request.email, request.password, request.device)
        return pb.SignInResponse(user=_user(user), session=_session(grant))

    async def RefreshSession(
        self, request: pb.RefreshSessionRequest, context: Any
    ) -> pb.RefreshSessionResponse:
        grant = await self._identity.refresh_session(request.refresh_token, _client(context))
        return pb.RefreshSessionResponse(session=_session(grant))

    async def SignOut(self, request: pb.SignOutRequest, context: Any) -> pb.SignOutResponse:
        await self._identity.sign_out(request.refresh_token)
        return pb.SignOutResponse()

    async def ClaimOperator(self, request: pb.ClaimOperatorRequest, context: Any) -> pb.ClaimOperatorResponse:
        joined = await self._identity.claim_operator(request.claim_token, _application(request))
        return pb.ClaimOperatorResponse(
            user=_user(joined.user), profile=_profile(joined.profile), session=_session(joined.grant)
        )

    async def ChangePassword(
        self, request: pb.ChangePasswordRequest, context: Any
    ) -> pb.ChangePasswordResponse:
        name = own_name(request.name)
        if name != principal().subject:
            raise NotYours(name)
        grant = await self._identity.change_password(
            names.parse(_USER, name)["user"], request.old_password, request.new_password, principal().session
        )
        return pb.ChangePasswordResponse(session=_session(grant))

    async def ListDevices(self, request: pb.ListDevicesRequest, context: Any) -> pb.ListDevicesResponse:
        sessions = await self._identity.devices(_user_id(request.parent, "parent"))
        return pb.ListDevicesResponse(devices=map(_device, sessions))

    async def DeleteDevice(self, request: pb.DeleteDeviceRequest, context: Any) -> pb.DeleteDeviceResponse:
        name = names.parse("users/{user}/devices/{device}", own_name(request.name))
        require_user(f"users/{name['user']}")
        await self._identity.delete_device(name["user"], name["device"])
        return pb.DeleteDeviceResponse()

    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        return pb.GetUserResponse(user=_user(await self._identity.get_user(_user_id(request.name, "name"))))

    async def ListUsers(self, request: pb.ListUsersRequest, context: Any) -> pb.ListUsersResponse:
        size = page_size(request.page_size)
        cursor = self._pager.cursor("ListUsers", request.page_token)
        after = (datetime.fromisoformat(str(cursor[0])), str(cursor[1])) if cursor else None
        users = await self._identity.list_users(after, size + 1)
        page, last = users[:size], users[size - 1 : size]
        token = ""
        if len(users) > size:
            token = self._pager.token("ListUsers", [last[0].create_time.isoformat(), last[0].id])
        return pb.ListUsersResponse(users=[_user(user) for user in page], next_page_token=token)

    async def SetUserRole(self, request: pb.SetUserRoleRequest, context: Any) -> pb.SetUserRoleResponse:
        user_id = _user_id(request.name, "name")
        user = await self._identity.set_user_role(user_id, _ROLES_BACK[request.role])
        return pb.SetUserRoleResponse(user=_user(user))

    async def CreateProfile(self, request: pb.CreateProfileRequest, context: Any) -> pb.CreateProfileResponse:
        profile = await self._identity.create_profile(
            _user_id(request.parent, "parent"),
            request.profile.display_name,
            principal().subject,
            request.request_id,
        )
        return pb.CreateProfileResponse(profile=_profile(profile))

    async def ListProfiles(self, request: pb.ListProfilesRequest, context: Any) -> pb.ListProfilesResponse:
        profiles = await self._identity.list_profiles(_user_id(request.parent, "parent"))
        return pb.ListProfilesResponse(profiles=[_profile(profile) for profile in profiles])

    async def DeleteProfile(self, request: pb.DeleteProfileRequest, context: Any) -> pb.DeleteProfileResponse:
        name = own_name(request.name)
        require_user(name)
        ids = names.parse(_PROFILE, name)
        await self._identity.delete_profile(ids["user"], ids["profile"])
        return pb.DeleteProfileResponse()


def _user_id(name: str, field: str) -> str:
    """The id in `users/{user}` or `users/me`, which the caller must be allowed to use."""
    name = own_name(name)
    require_user(name)
    return names.parse(_USER, name, field)["user"]


def _device(session: Session) -> resources_pb2.Device:
    return resources_pb2.Device(
        name=f"users/{session.user_id}/devices/{session.id}",
        display_name=session.device,
        current=session.id == principal().session,
        create_time=timestamp(session.create_time),
        last_use_time=timestamp(session.rotate_time),
        expire_time=timestamp(session.expire_time),
    )


def _client(context: Any) -> str:
    """A hash of what tells one client from another: its program and, without the port, its address.

    The gateway appends the address it sees to `x-forwarded-for`; what stands before it proves nothing.
    """
    metadata = dict(context.invocation_metadata() or ())
    forwarded = str(metadata.get("x-forwarded-for", "")).rpartition(",")[2].strip()
    address = forwarded or str(context.peer()).rpartition(":")[0]
    program = str(metadata.get("x-user-agent") or metadata.get("user-agent", ""))
    return hashlib.sha256(f"{address}\n{program}".encode()).hexdigest()


def _application(request: pb.SignUpRequest | pb.ClaimOperatorRequest) -> Application:
    return Application(
        email=request.email,
        password=request.password,
        display_name=request.display_name,
        device=request.device,
    )


def _user(user: User) -> resources_pb2.User:
    return resources_pb2.User(
        name=user.name,
        email=user.email,
        display_name=user.display_name,
        role=_ROLES[user.role],
        create_time=timestamp(user.create_time),
    )


def _profile(profile: Profile) -> resources_pb2.Profile:
    return resources_pb2.Profile(
        name=profile.name, display_name=profile.display_name, create_time=timestamp(profile.create_time)
    )


def _session(grant: Grant) -> resources_pb2.Session:
    return resources_pb2.Session(
        user=grant.user.name,
        access_token=grant.access_token,
        access_token_expire_time=timestamp(grant.access_token_expire_time),
        refresh_token=grant.refresh_token,
        refresh_token_expire_time=timestamp(grant.refresh_token_expire_time),
        role=_ROLES[grant.user.role],
    )

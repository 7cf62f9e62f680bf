"""Accounts: claim, sign up, log in and out, roles."""

from __future__ import annotations

import platform
import uuid
from typing import Annotated

import typer

from cli.client import connect
from cli.main import State, run
from kino.identity.v1 import identity_pb2, identity_pb2_grpc, resources_pb2

Password = Annotated[
    str,
    typer.Option(
        envvar="KINO_PASSWORD", prompt=True, hide_input=True, help="Password; asked for when not given."
    ),
]
Email = Annotated[str, typer.Option(help="E-mail address of the account.")]
DisplayName = Annotated[str, typer.Option("--name", help="Name to show; default: the address.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (claim, signup, login, logout, whoami):
        app.command()(command)
    devices = typer.Typer(no_args_is_help=True, help="Where you are signed in.")
    devices.command("list")(list_devices)
    devices.command("sign-out")(sign_out_device)
    app.add_typer(devices, name="devices")
    users = typer.Typer(no_args_is_help=True, help="Users, for operators.")
    users.command("list")(list_users)
    users.command("role")(set_role)
    app.add_typer(users, name="users")


def claim(
    context: typer.Context,
    token: Annotated[str, typer.Argument(help="The one-time token that the first start printed.")],
    email: Email,
    password: Password,
    name: DisplayName = "",
) -> None:
    """Become the operator of a new Kino.

    \b
    kino claim 4f0c… --email me@example.org
    """
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = identity_pb2.ClaimOperatorRequest(
                claim_token=token,
                email=email,
                password=password,
                display_name=name or email,
                device=_device(),
            )
            answer = await kino.stub(identity_pb2_grpc.IdentityServiceStub).ClaimOperator(request)
            kino.keep(answer.session)
            _signed_in(state, answer.user)

    run(work)


def signup(context: typer.Context, email: Email, password: Password, name: DisplayName = "") -> None:
    """Make an account and sign in.

    \b
    kino signup --email you@example.org --name You
    """
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = identity_pb2.SignUpRequest(
                email=email,
                password=password,
                display_name=name or email,
                request_id=str(uuid.uuid4()),
                device=_device(),
            )
            answer = await kino.stub(identity_pb2_grpc.IdentityServiceStub).SignUp(request)
            kino.keep(answer.session)
            _signed_in(state, answer.user)

    run(work)


def login(context: typer.Context, email: Email, password: Password) -> None:
    """Sign in; the session is kept for the next commands."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = identity_pb2.SignInRequest(email=email, password=password, device=_device())
            answer = await kino.stub(identity_pb2_grpc.IdentityServiceStub).SignIn(request)
            kino.keep(answer.session)
            _signed_in(state, answer.user)

    run(work)


def logout(context: typer.Context) -> None:
    """End the session and forget it."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            request = identity_pb2.SignOutRequest(refresh_token=kino.refresh_token)
            await kino.stub(identity_pb2_grpc.IdentityServiceStub).SignOut(request)
            kino.keep(None)
            state.output.say("Signed out.")

    run(work)


def whoami(context: typer.Context) -> None:
    """Show who is signed in."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(identity_pb2_grpc.IdentityServiceStub)
            answer = await stub.GetUser(identity_pb2.GetUserRequest(name=kino.user))
            state.output.facts(_facts(answer.user))

    run(work)


def list_devices(context: typer.Context) -> None:
    """List where you are signed in, last used first."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(identity_pb2_grpc.IdentityServiceStub)
            answer = await stub.ListDevices(identity_pb2.ListDevicesRequest(parent=kino.user))
            rows = [
                (
                    one.name,
                    one.display_name,
                    one.last_use_time.ToJsonString(),
                    "this one" if one.current else "",
                )
                for one in answer.devices
            ]
            state.output.messages(answer.devices, ("device", "name", "last used", ""), rows)

    run(work)


def sign_out_device(
    context: typer.Context, device: Annotated[str, typer.Argument(help="`users/…/devices/…`")]
) -> None:
    """Sign another device out."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(identity_pb2_grpc.IdentityServiceStub)
            await stub.DeleteDevice(identity_pb2.DeleteDeviceRequest(name=device))
            state.output.say(f"{device} is signed out, within fifteen minutes.")

    run(work)


def _device() -> str:
    """What a person recognises this machine by."""
    return f"kino on {platform.node()}"[:100]


def list_users(context: typer.Context) -> None:
    """List all users."""
    state: State = context.obj

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(identity_pb2_grpc.IdentityServiceStub)
            users: list[resources_pb2.User] = []
            token = ""
            while True:
                page = await stub.ListUsers(identity_pb2.ListUsersRequest(page_size=200, page_token=token))
                users += page.users
                token = page.next_page_token
                if not token:
                    break
            rows = [(user.name, user.email, user.display_name, _role(user)) for user in users]
            state.output.messages(users, ("user", "e-mail", "name", "role"), rows)

    run(work)


def set_role(
    context: typer.Context,
    user: Annotated[str, typer.Argument(help="`users/…`")],
    role: Annotated[str, typer.Argument(help="viewer, publisher or operator")],
) -> None:
    """Set a user's role.

    \b
    kino users role users/0f3… publisher
    """
    state: State = context.obj
    roles = {name.removeprefix("ROLE_").lower(): value for name, value in resources_pb2.Role.items() if value}
    if role not in roles:
        raise typer.BadParameter(f"{role} is no role; there are: {', '.join(roles)}.")

    async def work() -> None:
        async with connect(state.url) as kino:
            stub = kino.stub(identity_pb2_grpc.IdentityServiceStub)
            answer = await stub.SetUserRole(identity_pb2.SetUserRoleRequest(name=user, role=roles[role]))
            state.output.facts(_facts(answer.user))

    run(work)


def _signed_in(state: State, user: resources_pb2.User) -> None:
    if state.output.as_json:
        state.output.json(_facts(user))
    else:
        state.output.say(f"Signed in as {user.email} ({_role(user)}).")


def _facts(user: resources_pb2.User) -> dict[str, object]:
    return {"user": user.name, "email": user.email, "name": user.display_name, "role": _role(user)}


def _role(user: resources_pb2.User) -> str:
    return resources_pb2.Role.Name(user.role).removeprefix("ROLE_").lower()

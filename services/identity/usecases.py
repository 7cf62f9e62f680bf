"""What identity does."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from services.identity.model import (
    FAILURE_WINDOW,
    MAX_PROFILES,
    MAX_SESSIONS,
    Account,
    Claim,
    ClaimInvalid,
    EmailTaken,
    Erasure,
    Grant,
    LastOperator,
    LastProfile,
    Profile,
    ProfileLimit,
    RefreshTokenReused,
    Role,
    Session,
    SessionEnded,
    User,
    WrongCredentials,
    check_attempts,
    email_key,
    new_claim,
    new_session,
)
from services.identity.store import Store, Transaction
from services.identity.tokens import Tokens
from services.runtime.clock import Clock
from services.runtime.errors import NotFound
from services.runtime.ids import new_id
from services.runtime.text import display_text

#: A stream that ran when its profile was deleted has ended by then, with its last report.
LAST_ERASURE_AFTER = timedelta(days=1)


class Passwords(Protocol):
    """Hashes passwords; see `Argon2Passwords`."""

    async def hash(self, password: str) -> str:
        """The hash to store."""

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right; as slow and always wrong for None."""

    def outdated(self, password_hash: str) -> bool:
        """Whether to hash anew."""


@dataclass(frozen=True, kw_only=True)
class Application:
    """What somebody gives to get an account."""

    email: str
    password: str = field(repr=False)
    display_name: str
    #: What the client calls itself; may be empty.
    device: str = ""

    def account(self, role: Role, password_hash: str, now: datetime) -> Account:
        """The account applied for. Raises `InvalidArgument` for a name that can't be shown."""
        name = display_text(self.display_name, "display_name")
        user = User(id=new_id(), email=self.email, display_name=name, role=role, create_time=now)
        return Account(user=user, password_hash=password_hash)


@dataclass(frozen=True, kw_only=True)
class Joined:
    """A new account, its first profile and its first session."""

    user: User
    profile: Profile
    grant: Grant


class Identity:
    """The use cases; one for each RPC, named like it."""

    def __init__(
        self,
        *,
        store: Store,
        passwords: Passwords,
        tokens: Tokens,
        clock: Clock,
        claimed: Callable[[], None] = lambda: None,
        deleted: Callable[[], None] = lambda: None,
    ) -> None:
        """`claimed` is called once the claim is used, `deleted` when there is something to erase."""
        self._store, self._passwords, self._tokens, self._clock = store, passwords, tokens, clock
        self._claimed, self._deleted = claimed, deleted

    async def sign_up(self, form: Application, request_id: str) -> Joined:
        """Raises `EmailTaken`. A repeated request proves itself by the password and gets a fresh session."""
        now = self._clock.now()
        account = form.account(Role.VIEWER, await self._passwords.hash(form.password), now)
        # Neither password nor token: the record of a request must give nothing away.
        request = json.dumps([email_key(form.email), account.user.display_name]).encode()

        def run(tx: Transaction) -> Joined | None:
            joined: list[Joined] = []

            def create() -> bytes:
                joined.append(self._join(tx, account, now, form.device))
                return account.user.id.encode()

            tx.once("SignUp", request_id, request, now, create)
            return joined[0] if joined else None

        return await self._store.write(run) or await self._rejoin(form)

    async def _rejoin(self, form: Application) -> Joined:
        try:
            user, grant = await self.sign_in(form.email, form.password, form.device)
        except WrongCredentials:
            raise EmailTaken() from None
        return Joined(user=user, profile=(await self.list_profiles(user.id))[0], grant=grant)

    async def sign_in(self, email: str, password: str, device: str = "") -> tuple[User, Grant]:
        """Raises `WrongCredentials` or `TooManyAttempts`."""
        account, attempt = await self._prove(email, password)
        better = account.password_hash
        if self._passwords.outdated(better):
            better = await self._passwords.hash(password)
        now = self._clock.now()

        def run(tx: Transaction) -> tuple[User, Grant]:
            user = self._still(tx, account)
            tx.delete_failure(attempt)
            if better != account.password_hash:
                tx.set_password(user.id, better)
            return user, self._open(tx, user, now, device)

        return await self._store.write(run)

    async def refresh_session(self, refresh_token: str, client: str) -> Grant:
        """`client` is whatever tells clients apart. Raises `SessionEnded` or `RefreshTokenReused`."""
        token = self._tokens.open(refresh_token)
        now = self._clock.now()

        def run(tx: Transaction) -> Grant | None:
            session = tx.session(token.session_id)
            account = tx.account(session.user_id) if session else None
            if session is None or account is None:
                raise SessionEnded()
            rotated = session.rotated(token, client, now)
            if rotated is None:
                tx.delete_session(session.id)
                return None
            tx.update_session(rotated)
            return self._tokens.grant(account.user, rotated, token.secret)

        grant = await self._store.write(run)
        if grant is None:
            raise RefreshTokenReused()
        return grant

    async def sign_out(self, refresh_token: str) -> None:
        """Any token of the session ends it; ending an ended one succeeds."""
        try:
            token = self._tokens.open(refresh_token)
        except SessionEnded:
            return
        await self._store.write(lambda tx: tx.delete_session(token.session_id))

    async def claim_operator(self, claim_token: str, form: Application) -> Joined:
        """Raises `ClaimInvalid` or `EmailTaken`."""
        self._check_claim(await self._store.read(lambda tx: tx.claim()), claim_token)
        now = self._clock.now()
        account = form.account(Role.OPERATOR, await self._passwords.hash(form.password), now)

        def run(tx: Transaction) -> Joined:
            claim = self._check_claim(tx.claim(), claim_token)
            tx.put_claim(replace(claim, claim_time=now))
            return self._join(tx, account, now, form.device)

        joined = await self._store.write(run)
        self._claimed()
        return joined

    async def offer_claim(self, current: str | None) -> str | None:
        """The token that makes an operator: `current` if it still does, else a new one; None once used."""
        # Digits and letters only: a token that begins with a dash would be an option of the command.
        token = secrets.token_hex(32)
        now = self._clock.now()

        def run(tx: Transaction) -> str | None:
            claim = tx.claim()
            if tx.operators() or (claim and claim.claim_time):
                return None
            if current and claim and claim.opens_with(current):
                return current
            tx.put_claim(new_claim(token, now))
            return token

        return await self._store.write(run)

    async def devices(self, user_id: str) -> list[Session]:
        """The sessions of a user, last used first."""
        now = self._clock.now()
        found = await self._store.read(lambda tx: tx.sessions(user_id))
        alive = [session for session in found if now < session.expire_time]
        return sorted(alive, key=lambda session: session.rotate_time, reverse=True)

    async def delete_device(self, user_id: str, session_id: str) -> None:
        """End a session of this user; succeeds when there is none."""

        def run(tx: Transaction) -> None:
            session = tx.session(session_id)
            if session is not None and session.user_id == user_id:
                tx.delete_session(session_id)

        await self._store.write(run)

    async def change_password(self, user_id: str, old: str, new: str, session_id: str = "") -> Grant:
        """Ends all sessions, and opens one in the place of `session_id`.

        Raises `WrongCredentials`, `TooManyAttempts` or `NotFound`.
        """
        user = await self.get_user(user_id)
        account, attempt = await self._prove(user.email, old)
        password_hash = await self._passwords.hash(new)
        now = self._clock.now()

        def run(tx: Transaction) -> Grant:
            user = self._still(tx, account)
            tx.delete_failure(attempt)
            tx.set_password(user.id, password_hash)
            caller = tx.session(session_id)
            for session in tx.sessions(user.id):
                tx.delete_session(session.id)
            return self._open(tx, user, now, caller.device if caller else "")

        return await self._store.write(run)

    async def get_user(self, user_id: str) -> User:
        """Raises `NotFound`."""
        return await self._store.read(lambda tx: _user(tx, user_id))

    async def list_users(self, after: tuple[datetime, str] | None, limit: int) -> list[User]:
        """Users oldest first, after the one made then with that id."""
        time, user_id = after or (None, "")
        return await self._store.read(lambda tx: tx.users_after(time, user_id, limit))

    async def set_user_role(self, user_id: str, role: Role) -> User:
        """Raises `NotFound` or `LastOperator`."""

        def run(tx: Transaction) -> User:
            user = _user(tx, user_id)
            if user.role is Role.OPERATOR and role is not Role.OPERATOR and tx.operators() == 1:
                raise LastOperator(user.name)
            tx.set_role(user_id, role)
            return replace(user, role=role)

        return await self._store.write(run)

    async def create_profile(self, user_id: str, display_name: str, caller: str, request_id: str) -> Profile:
        """Raises `NotFound` or `ProfileLimit`. A repeated request gets the profile as it was made."""
        name, now = display_text(display_name, "profile.display_name"), self._clock.now()
        profile = Profile(id=new_id(), user_id=user_id, display_name=name, create_time=now)

        def run(tx: Transaction) -> Profile:
            def create() -> bytes:
                _user(tx, user_id)
                if len(tx.profiles(user_id)) >= MAX_PROFILES:
                    raise ProfileLimit(MAX_PROFILES, "profiles")
                tx.add_profile(profile)
                return json.dumps([profile.id, now.isoformat()]).encode()

            request = json.dumps([user_id, name]).encode()
            made, time = json.loads(tx.once(f"{caller}/CreateProfile", request_id, request, now, create))
            return replace(profile, id=made, create_time=datetime.fromisoformat(time))

        return await self._store.write(run)

    async def list_profiles(self, user_id: str) -> list[Profile]:
        """Oldest first. Raises `NotFound`."""

        def run(tx: Transaction) -> list[Profile]:
            _user(tx, user_id)
            return tx.profiles(user_id)

        return await self._store.read(run)

    async def delete_profile(self, user_id: str, profile_id: str) -> None:
        """What other services hold of it is erased later. Raises `NotFound` or `LastProfile`."""
        name = f"users/{user_id}/profiles/{profile_id}"

        def run(tx: Transaction) -> None:
            profiles = tx.profiles(user_id)
            if all(profile.id != profile_id for profile in profiles):
                raise NotFound(name)
            if len(profiles) == 1:
                raise LastProfile(name)
            tx.delete_profile(profile_id)
            tx.save_erasure(Erasure(profile=name, due_time=self._clock.now(), rounds=2))

        await self._store.write(run)
        self._deleted()

    async def next_erasure(self) -> Erasure | None:
        """The one to be done first, due or not."""
        return await self._store.read(lambda tx: tx.next_erasure())

    async def erased(self, erasure: Erasure) -> None:
        """It was done: plan the next round, if any."""

        def run(tx: Transaction) -> None:
            if erasure.rounds > 1:
                due = self._clock.now() + LAST_ERASURE_AFTER
                tx.save_erasure(replace(erasure, due_time=due, rounds=erasure.rounds - 1))
            else:
                tx.remove_erasure(erasure.profile)

        await self._store.write(run)

    async def _prove(self, email: str, password: str) -> tuple[Account, str]:
        """The account the password opens, and the id of the attempt, to be deleted with what follows from it.

        An attempt counts as failed before the password is looked at: many at once don't outrun the limit.
        """
        now, attempt, key = self._clock.now(), new_id(), email_key(email)
        digest = hashlib.sha256(key.encode()).digest()

        def run(tx: Transaction) -> Account | None:
            check_attempts(tx.failures(digest, now - FAILURE_WINDOW), now)
            tx.add_failure(attempt, digest, now)
            return tx.account_by_email(key)

        account = await self._store.write(run)
        right = await self._passwords.verify(account.password_hash if account else None, password)
        if account is None or not right:
            raise WrongCredentials()
        return account, attempt

    @staticmethod
    def _still(tx: Transaction, account: Account) -> User:
        """The user as it is now, if its password is still the one just proved."""
        current = tx.account(account.user.id)
        if current is None or current.password_hash != account.password_hash:
            raise WrongCredentials()
        return current.user

    def _join(self, tx: Transaction, account: Account, now: datetime, device: str) -> Joined:
        user = account.user
        profile = Profile(id=new_id(), user_id=user.id, display_name=user.display_name, create_time=now)
        tx.add_account(account)
        tx.add_profile(profile)
        return Joined(user=user, profile=profile, grant=self._open(tx, user, now, device))

    def _open(self, tx: Transaction, user: User, now: datetime, device: str) -> Grant:
        alive: list[Session] = []
        for session in tx.sessions(user.id):
            if now >= session.expire_time:
                tx.delete_session(session.id)
            else:
                alive.append(session)
        for session in alive[: max(0, len(alive) + 1 - MAX_SESSIONS)]:
            tx.delete_session(session.id)
        secret = self._tokens.new_secret()
        session = new_session(new_id(), user.id, secret, now, device)
        tx.add_session(session)
        return self._tokens.grant(user, session, secret)

    @staticmethod
    def _check_claim(claim: Claim | None, token: str) -> Claim:
        if claim is None or not claim.opens_with(token):
            raise ClaimInvalid()
        return claim


def _user(tx: Transaction, user_id: str) -> User:
    account = tx.account(user_id)
    if account is None:
        raise NotFound(f"users/{user_id}")
    return account.user

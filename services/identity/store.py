"""What identity needs of a store."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Protocol, TypeVar

from services.identity.model import Account, Claim, Erasure, Profile, Role, Session, User

T = TypeVar("T")


class Transaction(Protocol):
    """Reads and changes that happen together or not at all, as if no other transaction ran meanwhile."""

    def once(
        self, scope: str, request_id: str, request: bytes, now: datetime, run: Callable[[], bytes]
    ) -> bytes:
        """What `run` returned at the first call with this scope and id.

        Raises `AlreadyExists` when that call had another `request`.
        """

    def account(self, user_id: str) -> Account | None:
        """An account by its user's id."""

    def account_by_email(self, key: str) -> Account | None:
        """An account by `email_key`."""

    def users_after(self, create_time: datetime | None, user_id: str, limit: int) -> list[User]:
        """Users oldest first, after this one; from the start when `create_time` is None."""

    def operators(self) -> int:
        """How many operators there are."""

    def add_account(self, account: Account) -> None:
        """Raises `EmailTaken`."""

    def set_password(self, user_id: str, password_hash: str) -> None:
        """Replace the hash."""

    def set_role(self, user_id: str, role: Role) -> None:
        """Replace the role."""

    def profiles(self, user_id: str) -> list[Profile]:
        """All profiles of a user, oldest first."""

    def add_profile(self, profile: Profile) -> None:
        """Its user must exist."""

    def delete_profile(self, profile_id: str) -> None:
        """Succeeds when there is none."""

    def save_erasure(self, erasure: Erasure) -> None:
        """Insert or replace the profile's."""

    def next_erasure(self) -> Erasure | None:
        """The one due first."""

    def remove_erasure(self, profile: str) -> None:
        """It is done for good."""

    def session(self, session_id: str) -> Session | None:
        """A session that hasn't been deleted."""

    def sessions(self, user_id: str) -> list[Session]:
        """All sessions of a user, oldest first."""

    def add_session(self, session: Session) -> None:
        """Its user must exist."""

    def update_session(self, session: Session) -> None:
        """Replace generation, rotation and expiry."""

    def delete_session(self, session_id: str) -> None:
        """Succeeds when there is none."""

    def failures(self, email_sha256: bytes, since: datetime) -> list[datetime]:
        """Times of the failed attempts for an address after `since`, ascending; forgets all older ones."""

    def add_failure(self, failure_id: str, email_sha256: bytes, time: datetime) -> None:
        """Count an attempt as failed."""

    def delete_failure(self, failure_id: str) -> None:
        """The attempt succeeded after all."""

    def claim(self) -> Claim | None:
        """The operator's claim, used or not."""

    def put_claim(self, claim: Claim) -> None:
        """Make or replace it."""


class Store(Protocol):
    """Where identity's state lives; what `write` returned survives a crash."""

    async def write(self, run: Callable[[Transaction], T]) -> T:
        """Run in one transaction; an exception undoes it. `run` may run again."""

    async def read(self, run: Callable[[Transaction], T]) -> T:
        """Run against one snapshot; the changing methods fail."""

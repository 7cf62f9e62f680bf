from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import inspect
from sqlalchemy.exc import IntegrityError

from services.identity.model import (
    Account,
    Claim,
    EmailTaken,
    Erasure,
    Profile,
    Role,
    Session,
    User,
    email_key,
    new_claim,
    new_session,
)
from services.identity.store import Transaction
from services.identity.store_sql import SqlStore, metadata
from services.runtime.errors import AlreadyExists
from services.runtime.sql import Database

NOW = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def account(number: int = 1, **user: object) -> Account:
    made = User(
        id=f"u{number}",
        email=f"Ann{number}@Example.org",
        display_name="Ann",
        role=Role.VIEWER,
        create_time=NOW + timedelta(seconds=number),
    )
    return Account(user=replace(made, **user), password_hash="$argon2id$hash")  # type: ignore[arg-type]


def profile(number: int, user: str = "u1") -> Profile:
    return Profile(
        id=f"p{number}", user_id=user, display_name=f"P{number}", create_time=NOW + timedelta(seconds=number)
    )


@pytest.fixture
def store(sql_database: Database) -> SqlStore:
    return SqlStore(sql_database)


async def given(store: SqlStore, *changes: Callable[[Transaction], object]) -> None:
    for change in changes:
        await store.write(change)


class TestSchema:
    async def test_the_migrations_add_up_to_the_tables_the_store_uses(self, sql_database: Database) -> None:
        def columns(conn: object) -> dict[str, set[str]]:
            found = inspect(conn)
            return {
                table: {column["name"] for column in found.get_columns(table)}
                for table in found.get_table_names()
                if table != "alembic_version"
            }

        expected = {name: set(table.columns.keys()) for name, table in metadata.tables.items()}
        assert await sql_database.read(columns) == expected


class TestAccounts:
    async def test_an_account_is_found_by_id_and_by_its_address_in_any_case(self, store: SqlStore) -> None:
        await given(store, lambda tx: tx.add_account(account()))
        assert await store.read(lambda tx: tx.account("u1")) == account()
        assert await store.read(lambda tx: tx.account_by_email(email_key("ANN1@EXAMPLE.ORG"))) == account()

    async def test_an_unknown_account_is_none(self, store: SqlStore) -> None:
        assert await store.read(lambda tx: tx.account("u1")) is None

    async def test_one_address_has_one_account_whatever_its_case(self, store: SqlStore) -> None:
        await given(store, lambda tx: tx.add_account(account(1, email="straße@x.org")))
        with pytest.raises(EmailTaken):
            await store.write(lambda tx: tx.add_account(account(2, email="STRASSE@x.org")))
        assert await store.read(lambda tx: tx.account("u2")) is None

    async def test_users_come_oldest_first_and_go_on_after_the_last_seen(self, store: SqlStore) -> None:
        users = [account(n).user for n in (1, 2, 3)]
        await given(store, *(lambda tx, n=n: tx.add_account(account(n)) for n in (3, 1, 2)))
        assert await store.read(lambda tx: tx.users_after(None, "", 2)) == users[:2]
        assert await store.read(lambda tx: tx.users_after(users[1].create_time, "u2", 2)) == users[2:]

    async def test_users_made_in_the_same_instant_are_all_listed(self, store: SqlStore) -> None:
        same = [account(n, create_time=NOW).user for n in (1, 2)]
        await given(store, *(lambda tx, n=n: tx.add_account(account(n, create_time=NOW)) for n in (1, 2)))
        assert await store.read(lambda tx: tx.users_after(NOW, "u1", 9)) == same[1:]

    async def test_role_and_password_are_replaced_and_operators_counted(self, store: SqlStore) -> None:
        await given(
            store,
            lambda tx: tx.add_account(account(1)),
            lambda tx: tx.add_account(account(2)),
            lambda tx: tx.set_role("u1", Role.OPERATOR),
            lambda tx: tx.set_password("u1", "other"),
        )
        changed = Account(user=account(1, role=Role.OPERATOR).user, password_hash="other")
        assert await store.read(lambda tx: (tx.account("u1"), tx.account("u2"))) == (changed, account(2))
        assert await store.read(lambda tx: tx.operators()) == 1


class TestProfiles:
    async def test_they_come_oldest_first_and_only_the_users_own(self, store: SqlStore) -> None:
        await given(
            store,
            lambda tx: tx.add_account(account(1)),
            lambda tx: tx.add_account(account(2)),
            lambda tx: tx.add_profile(profile(2)),
            lambda tx: tx.add_profile(profile(1)),
            lambda tx: tx.add_profile(profile(3, "u2")),
        )
        assert await store.read(lambda tx: tx.profiles("u1")) == [profile(1), profile(2)]

    async def test_deleting_takes_one_and_repeats_harmlessly(self, store: SqlStore) -> None:
        await given(
            store,
            lambda tx: tx.add_account(account()),
            lambda tx: tx.add_profile(profile(1)),
            lambda tx: tx.add_profile(profile(2)),
            lambda tx: tx.delete_profile("p1"),
            lambda tx: tx.delete_profile("p1"),
        )
        assert await store.read(lambda tx: tx.profiles("u1")) == [profile(2)]

    async def test_a_profile_needs_its_user(self, store: SqlStore) -> None:
        with pytest.raises(IntegrityError):
            await store.write(lambda tx: tx.add_profile(profile(1)))

    async def test_erasures_are_kept_by_profile_and_come_in_the_order_they_are_due(
        self, store: SqlStore
    ) -> None:
        def erasure(number: int, seconds: int, rounds: int = 2) -> Erasure:
            due = NOW + timedelta(seconds=seconds)
            return Erasure(profile=f"users/u1/profiles/p{number}", due_time=due, rounds=rounds)

        async def first() -> Erasure | None:
            return await store.read(lambda tx: tx.next_erasure())

        assert await first() is None
        await given(
            store,
            lambda tx: tx.save_erasure(erasure(1, 1)),
            lambda tx: tx.save_erasure(erasure(2, 2)),
            lambda tx: tx.save_erasure(erasure(1, 3, rounds=1)),
        )
        assert await first() == erasure(2, 2)
        await given(store, lambda tx: tx.remove_erasure(erasure(2, 2).profile))
        assert await first() == erasure(1, 3, rounds=1)


class TestSessions:
    async def test_a_session_is_kept_rotated_and_deleted(self, store: SqlStore) -> None:
        session = new_session("s1", "u1", b"secret", NOW)
        await given(store, lambda tx: tx.add_account(account()), lambda tx: tx.add_session(session))
        assert await store.read(lambda tx: tx.session("s1")) == session

        rotated: Session = replace(
            session,
            generation=1,
            rotate_time=NOW + timedelta(1),
            rotate_client="c",
            expire_time=NOW + timedelta(31),
        )
        await given(store, lambda tx: tx.update_session(rotated))
        assert await store.read(lambda tx: tx.sessions("u1")) == [rotated]

        await given(store, lambda tx: tx.delete_session("s1"), lambda tx: tx.delete_session("s1"))
        assert await store.read(lambda tx: tx.session("s1")) is None


class TestFailures:
    async def test_only_those_of_the_address_within_the_window_are_told(self, store: SqlStore) -> None:
        minutes = [NOW + timedelta(minutes=n) for n in range(4)]
        await given(
            store,
            lambda tx: tx.add_failure("f0", b"a", minutes[0]),
            lambda tx: tx.add_failure("f3", b"a", minutes[3]),
            lambda tx: tx.add_failure("f2", b"a", minutes[2]),
            lambda tx: tx.add_failure("x", b"b", minutes[2]),
        )
        assert await store.write(lambda tx: tx.failures(b"a", minutes[0])) == [minutes[2], minutes[3]]

    async def test_an_attempt_that_succeeded_is_forgotten(self, store: SqlStore) -> None:
        await given(store, lambda tx: tx.add_failure("f", b"a", NOW), lambda tx: tx.delete_failure("f"))
        assert await store.write(lambda tx: tx.failures(b"a", NOW - timedelta(1))) == []


class TestClaim:
    async def test_there_is_one_and_it_is_replaced(self, store: SqlStore) -> None:
        assert await store.read(lambda tx: tx.claim()) is None
        used: Claim = replace(new_claim("second", NOW), claim_time=NOW)
        await given(store, lambda tx: tx.put_claim(new_claim("first", NOW)), lambda tx: tx.put_claim(used))
        assert await store.read(lambda tx: tx.claim()) == used


class TestOnce:
    async def test_the_first_answer_is_given_again_without_a_second_effect(self, store: SqlStore) -> None:
        runs: list[int] = []

        def run() -> bytes:
            runs.append(1)
            return b"answer"

        answers = [await store.write(lambda tx: tx.once("scope", "id", b"body", NOW, run)) for _ in range(3)]
        assert (answers, runs) == ([b"answer"] * 3, [1])

    async def test_another_request_with_the_same_id_is_refused(self, store: SqlStore) -> None:
        await given(store, lambda tx: tx.once("scope", "id", b"body", NOW, lambda: b""))
        with pytest.raises(AlreadyExists) as caught:
            await store.write(lambda tx: tx.once("scope", "id", b"other", NOW, lambda: b""))
        assert caught.value.reason == "REQUEST_ID_REUSED"

    async def test_a_failed_request_leaves_no_key_behind(self, store: SqlStore) -> None:
        def fail() -> bytes:
            raise EmailTaken()

        with pytest.raises(EmailTaken):
            await store.write(lambda tx: tx.once("scope", "id", b"body", NOW, fail))
        assert await store.write(lambda tx: tx.once("scope", "id", b"other", NOW, lambda: b"ok")) == b"ok"


async def test_an_exception_undoes_the_whole_transaction(store: SqlStore) -> None:
    def run(tx: Transaction) -> None:
        tx.add_account(account())
        raise RuntimeError("after the change")

    with pytest.raises(RuntimeError):
        await store.write(run)
    assert await store.read(lambda tx: tx.account("u1")) is None

from __future__ import annotations

from typing import Literal

from argon2 import PasswordHasher, Type, extract_parameters

from services.identity.passwords import PARAMETERS, Argon2Passwords

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


class Counting(PasswordHasher):
    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str | bytes] = []

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        self.verified.append(hash)
        return super().verify(hash, password)


async def test_the_right_password_passes_and_others_fail() -> None:
    passwords = Argon2Passwords(CHEAP)
    stored = await passwords.hash("correct horse")
    assert await passwords.verify(stored, "correct horse")
    assert not await passwords.verify(stored, "Correct horse")


async def test_an_accent_is_the_same_in_both_spellings() -> None:
    passwords = Argon2Passwords(CHEAP)
    stored = await passwords.hash("Cafe\N{COMBINING ACUTE ACCENT} au lait")
    assert await passwords.verify(stored, "Café au lait")


async def test_two_hashes_of_one_password_differ() -> None:
    passwords = Argon2Passwords(CHEAP)
    assert await passwords.hash("correct horse") != await passwords.hash("correct horse")


async def test_an_unknown_user_costs_one_verification_like_a_known_one_and_never_passes() -> None:
    hasher = Counting()
    passwords = Argon2Passwords(hasher)
    assert not await passwords.verify(None, "correct horse")
    assert len(hasher.verified) == 1
    assert extract_parameters(str(hasher.verified[0])) == extract_parameters(await passwords.hash("x"))


async def test_a_broken_hash_fails_instead_of_raising() -> None:
    assert not await Argon2Passwords(CHEAP).verify("not a hash", "correct horse")


async def test_the_default_is_argon2id_with_the_documented_cost_and_older_hashes_are_outdated() -> None:
    assert (PARAMETERS.type, PARAMETERS.memory_cost, PARAMETERS.time_cost, PARAMETERS.parallelism) == (
        Type.ID,
        64 * 1024,
        3,
        4,
    )
    passwords = Argon2Passwords()
    assert passwords.outdated(CHEAP.hash("x"))
    assert not passwords.outdated(await passwords.hash("x"))

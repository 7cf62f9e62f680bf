"""Argon2id (RFC 9106) in threads, few at a time."""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.profiles import RFC_9106_LOW_MEMORY

from services.identity.model import password_text

#: RFC 9106, 4, second recommended option: 64 MiB, 3 passes, 4 lanes; well above OWASP's least (19 MiB, 2
#: passes, 1 lane). Hashes made with other parameters are remade at the next sign-in.
PARAMETERS = RFC_9106_LOW_MEMORY
#: Bounds the memory of simultaneous sign-ins to 128 MiB; further ones queue.
_THREADS = 2


class Argon2Passwords:
    """Hashes and checks passwords; a thread holds `PARAMETERS.memory_cost` KiB while it works."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        """`hasher` is for tests, which need no slow one."""
        self._hasher = hasher or PasswordHasher.from_parameters(PARAMETERS)
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="argon2")
        #: The hash of no password; checking against it takes as long as against a user's.
        self._decoy = self._hasher.hash(secrets.token_hex())

    async def hash(self, password: str) -> str:
        """The PHC string of a password, with a new salt."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._hasher.hash, password_text(password))

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right. None is the hash of an unknown user: always wrong, and as slow."""
        loop = asyncio.get_running_loop()
        candidate = password_hash or self._decoy
        right = await loop.run_in_executor(self._pool, self._verify, candidate, password_text(password))
        return right and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(password_hash)

    def close(self) -> None:
        """Finish what runs."""
        self._pool.shutdown()

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

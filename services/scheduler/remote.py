"""Calls to other services from work that must not give up because one of them is away for a while."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc.aio

from services.runtime.errors import Code, KinoError, OutcomeUnknown
from services.runtime.logs import logger
from services.runtime.status import error_of
from services.scheduler.model import Failure

T = TypeVar("T")

_log = logger("scheduler")
#: Answers that stay the same however often one asks.
_FINAL = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_FOUND,
        Code.ALREADY_EXISTS,
        Code.PERMISSION_DENIED,
        Code.FAILED_PRECONDITION,
        Code.OUT_OF_RANGE,
        Code.UNIMPLEMENTED,
    }
)
#: Answers that mean a bug or damage: worth a few tries, not endless ones.
_BROKEN = frozenset({Code.INTERNAL, Code.UNKNOWN, Code.DATA_LOSS})
_MAX_BROKEN = 6
_MAX_WAIT_S = 15.0
_MAX_STORE_WAIT_S = 2.0


async def patiently(call: Callable[[], Awaitable[T]], alive: Callable[[], Awaitable[bool]]) -> T | None:
    """The answer of `call`, asked again while it says that it will do better later.

    None when `alive` no longer holds. Raises the error when another try is useless.
    """
    broken, wait_s = 0, 0.1
    while await alive():
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            code, cause = error_of(error).code, error.details()
            if code in _FINAL:
                raise error_of(error) from None
            broken += code in _BROKEN
            if broken >= _MAX_BROKEN:
                raise error_of(error) from None
        except KinoError as error:
            if error.code in _FINAL | _BROKEN:
                raise
            cause = error.message
        _log.warning("call repeated", cause=cause, wait_s=wait_s)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1))
        wait_s = min(wait_s * 2, _MAX_WAIT_S)
    return None


async def through_outages(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which may run again, begun anew while our own store is away."""
    wait_s = 0.1
    while True:
        try:
            return await work()
        except KinoError as error:
            if not passes(error):
                raise
            _log.warning("waits for the store", cause=error.message, wait_s=wait_s)
        await asyncio.sleep(wait_s * random.uniform(0.5, 1))
        wait_s = min(wait_s * 2, _MAX_STORE_WAIT_S)


def passes(error: Exception) -> bool:
    """Whether the error is that of an engine that is away for a while, or full."""
    if isinstance(error, OutcomeUnknown):
        return True
    return isinstance(error, KinoError) and error.code in (Code.UNAVAILABLE, Code.RESOURCE_EXHAUSTED)


def failure_of_error(error: Exception) -> Failure:
    """Any error as it is told to the uploader; one nobody foresaw says no more than that."""
    if isinstance(error, KinoError):
        return Failure(
            code=error.code, reason=error.reason, message=error.message, metadata=dict(error.metadata)
        )
    return Failure(
        code=Code.INTERNAL,
        reason="INTERNAL",
        message="Something went wrong inside the scheduler; its log says what.",
    )


def detached(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that outlives the call that starts it: it inherits neither its deadline nor its caller."""
    return asyncio.get_running_loop().create_task(work, context=contextvars.Context())

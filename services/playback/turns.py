"""Turns: how many messages go out in one round of the event loop, and whose come first.

gRPC takes up one new call after the other, and half a dozen rounds of the loop pass from one to the next.
When the processor is short all who watch have a message to send in every round: with 2,000 of them a round
took as long as hundreds of messages, and a new viewer, or one who renews or ends, waited for all in each.
"""

from __future__ import annotations

import asyncio
from collections import deque

#: Messages in one round.
PER_ROUND = 8
#: Rounds after a new stream in which one message goes out: others may be waiting to be taken up behind it.
_BRISK_ROUNDS = 10


class Turns:
    """Lets a few messages through in each round: those of new streams first, then the others as they came."""

    def __init__(self, per_round: int = PER_ROUND) -> None:
        self._per_round = per_round
        self._brisk_rounds = 0
        #: What this round began with, and what is left of it.
        self._granted = self._left = per_round
        self._new: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        #: Whether the end of this round is waited for.
        self._counting = False

    def arrived(self) -> None:
        """A new stream was taken up: let the rounds that follow be short."""
        self._brisk_rounds = _BRISK_ROUNDS

    async def take(self, *, new: bool) -> None:
        """Wait for one's turn, which is at once while few ask. `new`: nothing is to be seen yet."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_round)
        if self._left:
            self._left -= 1
            return
        turn = loop.create_future()
        (self._new if new else self._others).append(turn)
        await turn

    def _next_round(self) -> None:
        idle = self._left == self._granted
        self._granted = self._left = 1 if self._brisk_rounds else self._per_round
        self._brisk_rounds = max(self._brisk_rounds - 1, 0)
        while self._left and (waiting := self._new or self._others):
            turn = waiting.popleft()
            if not turn.done():  # else its stream is gone
                turn.set_result(None)
                self._left -= 1
        self._counting = not idle or self._left < self._granted
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_round)

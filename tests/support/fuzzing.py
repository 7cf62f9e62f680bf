"""Sources with some of their bytes changed, and what becomes of them."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from services.media.errors import MediaError
from services.runtime.errors import KinoError
from tests.support.encoding import whole_path


def flipped(data: bytes, seed: int) -> bytes:
    """`data` with 1 to 64 bytes changed, half of them in the first and last 4 KiB, where the structure is."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 2, 4, 16, 64))):
        edge = min(4096, len(changed) // 2)
        places = (
            chance.randrange(len(changed)),
            chance.randrange(edge),
            len(changed) - 1 - chance.randrange(edge),
        )
        changed[chance.choice(places)] ^= 1 << chance.randrange(8)
    return bytes(changed)


async def outcome(source: Path) -> str:
    """What the whole path makes of a source: `made`, or the reason of its typed refusal.

    Anything else that is raised is a crash outside of the sandbox, and goes on.
    """
    try:
        await whole_path(source, 64, 36)
    except MediaError as error:
        return error.reason
    except KinoError as error:
        return f"other: {error.reason}"
    return "made"


async def fuzz(data: bytes, folder: Path, suffix: str, seeds: range) -> Counter[str]:
    """How often each outcome came."""
    found: Counter[str] = Counter()
    for seed in seeds:
        source = folder / f"{seed}.{suffix}"
        source.write_bytes(flipped(data, seed))
        found[await outcome(source)] += 1
        source.unlink()
    return found

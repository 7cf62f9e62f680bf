"""Queries as people type them, made from titles by a seeded chance."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

_TITLES = Path(__file__).with_name("film_titles.txt")

Misspelling = Callable[[random.Random, str], str | None]


def film_titles() -> list[str]:
    """3,156 titles of films; the file names their source and licence."""
    return [line for line in _TITLES.read_text().splitlines() if not line.startswith("#")]


def exact(chance: random.Random, title: str) -> str | None:
    return title


def one_typo(chance: random.Random, title: str) -> str | None:
    return _typo(chance, title.lower()) if len(title) >= 5 else None


def two_typos(chance: random.Random, title: str) -> str | None:
    return _typo(chance, _typo(chance, title.lower())) if len(title) >= 8 else None


def joined(chance: random.Random, title: str) -> str | None:
    return title.replace(" ", "").lower() if " " in title else None


def prefix(chance: random.Random, title: str) -> str | None:
    return title[: max(3, int(len(title) * 0.6))].lower() if len(title) >= 5 else None


def prefix_with_typo(chance: random.Random, title: str) -> str | None:
    return _typo(chance, title[: int(len(title) * 0.6)].lower()) if len(title) >= 8 else None


def dropped_word(chance: random.Random, title: str) -> str | None:
    words = title.split()
    if len(words) < 3:
        return None
    words.pop(chance.randrange(len(words)))
    return " ".join(words)


def shuffled(chance: random.Random, title: str) -> str | None:
    words = title.split()
    chance.shuffle(words)
    return " ".join(words) if len(words) > 1 else None


def cases(make: Misspelling, titles: Sequence[str], count: int, seed: int = 7) -> Iterator[tuple[str, str]]:
    """`count` pairs of a query and the title it means."""
    chance = random.Random(seed)
    for title in chance.sample(titles, len(titles)):
        query = make(chance, title)
        if query is not None and count:
            count -= 1
            yield query, title


def _typo(chance: random.Random, text: str) -> str:
    """One letter replaced, left out, put in, or exchanged with the next."""
    at, letter = chance.randrange(len(text) - 1), chance.choice(string.ascii_lowercase)
    return chance.choice(
        [
            text[:at] + letter + text[at + 1 :],
            text[:at] + text[at + 1 :],
            text[:at] + letter + text[at:],
            text[:at] + text[at + 1] + text[at] + text[at + 2 :],
        ]
    )

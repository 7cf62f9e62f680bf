"""Documents, hits, and how well a title answers a query."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rapidfuzz.distance import OSA
from rapidfuzz.fuzz import ratio

from services.search.text import fold, is_dense, joined

#: Hits below this have little more than letters in common with the query.
LEAST_SCORE = 0.55


@dataclass(frozen=True, kw_only=True)
class Document:
    """A title as the index knows it; a deleted one is kept as a mark so that old news can't bring it back."""

    #: `titles/{title}`.
    title: str
    version: int
    display_name: str = ""
    release_year: int = 0
    #: `users/{user}`.
    owner: str = ""
    #: Whether viewers may see it.
    visible: bool = False
    deleted: bool = False


@dataclass(frozen=True, kw_only=True)
class Viewer:
    """Whose eyes the index is searched with."""

    subject: str
    #: Operators and services find every title.
    sees_all: bool = False


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A document that was found."""

    document: Document
    #: 0 to 1.
    score: float


def rank(query: str, documents: Iterable[Document]) -> list[Hit]:
    """The documents that answer `query`, best first; of equals the shorter name, then the newer."""
    wanted = fold(query)
    hits = [Hit(document=d, score=score(wanted, fold(d.display_name))) for d in documents]
    return sorted((hit for hit in hits if hit.score >= LEAST_SCORE), key=_order)


def _order(hit: Hit) -> tuple[float, int, int, str]:
    document = hit.document
    return -round(hit.score, 6), len(document.display_name), -document.release_year, document.title


def score(query: str, name: str) -> float:
    """How well a folded name answers a folded query, 0 to 1.

    The best of four readings: the whole name, with words joined or split; its beginning, while it is being
    typed; its words in any order, or some of them; a piece of it, for scripts without spaces.
    """
    q, n = joined(query), joined(name)
    if not q or not n:
        return 0.0
    if q == n:
        return 1.0
    whole = 0.98 * OSA.normalized_similarity(q, n)
    begun = 0.96 * _prefix(q, n)
    words = _words(query.split(), name.split())
    piece = 0.9 * (0.8 + 0.2 * len(q) / len(n)) if q in n and is_dense(q[0]) else 0.0
    return max(whole, begun, words, piece)


def _prefix(query: str, name: str) -> float:
    """How well the query matches the name's beginning; little is lost for what is still missing."""
    if len(query) >= len(name):
        return 0.0
    lengths = {len(query) - 1, len(query), len(query) + 1}
    best = max(OSA.normalized_similarity(query, name[:length]) for length in lengths)
    return best * (0.9 + 0.1 * len(query) / len(name))


def _words(query: Sequence[str], name: Sequence[str]) -> float:
    """How well each word of the query is found among the name's, and how much of the name they cover."""
    left = list(name)
    matched = covered = 0.0
    for index, word in enumerate(query):
        best, at = (
            max((_word(word, other, last=index == len(query) - 1), at) for at, other in enumerate(left))
            if left
            else (0.0, -1)
        )
        if at >= 0:
            covered += best * len(left[at])
            matched += best * len(word)
            left.pop(at)
    precision = matched / sum(map(len, query))
    coverage = covered / sum(map(len, name))
    return 0.97 * precision * (0.8 + 0.2 * coverage)


def _word(word: str, other: str, *, last: bool) -> float:
    similarity = ratio(word, other) / 100
    if last and other.startswith(word):
        similarity = max(similarity, 0.95)
    return similarity if similarity >= 0.6 else 0.0

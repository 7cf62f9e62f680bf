"""Text made comparable: folding, words and n-grams, for any script."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator
from functools import lru_cache

#: Letters that Unicode does not decompose but people type without (or with) their stroke, by script.
_ALIKE = str.maketrans(
    {
        "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i", "ħ": "h", "ŧ": "t",
        "ى": "ي", "ی": "ي", "ک": "ك", "ة": "ه", "ـ": None,
        "ς": "σ",
        "’": None, "'": None, "`": None, "ʼ": None, "׳": None,
    }
)  # fmt: skip
#: Scripts written without spaces, or in which one character says what a word says elsewhere: (first, last).
_DENSE = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1780, 0x17FF),  # Khmer
    (0x2E80, 0x9FFF),  # CJK radicals to unified ideographs, with kana
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0x20000, 0x3FFFF),  # ideographs beyond the first plane
)
_GRAM = 3


@lru_cache(maxsize=4096)
def fold(text: str) -> str:
    """`text` in words that compare alike however they were typed; one space between words.

    Compatibility decomposition and case folding (Unicode Standard, 5.18), without marks, punctuation and
    invisible characters. A text of nothing but punctuation keeps it, so that such a title can be found.
    """
    decomposed = unicodedata.normalize("NFKD", text.replace("İ", "i")).casefold().translate(_ALIKE)
    folded = " ".join("".join(map(_plain, unicodedata.normalize("NFKD", decomposed))).split())
    return folded or " ".join(decomposed.split())


def _plain(char: str) -> str:
    category = unicodedata.category(char)
    if category in ("Mn", "Me", "Cf", "Cc"):
        return " " if char in "\t\n\r" else ""
    return " " if category[0] in "PZ" else char


def joined(folded: str) -> str:
    """A folded text without its spaces."""
    return folded.replace(" ", "")


def grams(folded: str) -> set[str]:
    """What a folded text is filed under.

    Three-character pieces of the text without spaces, so that joined and split words meet; the start of each
    word; of dense scripts single characters and pairs.
    """
    words = folded.split()
    return {
        *_pieces(joined(folded)),
        *(f"^{word[:2]}" for word in words),
        *(f"^{word[:1]}" for word in words),
    }


def lookups(folded: str) -> set[str]:
    """What a folded query is looked up by: its `grams`, but first letters only of words that have no more."""
    return {*_pieces(joined(folded)), *(f"^{word[:2]}" for word in folded.split())}


def terms(pieces: Iterable[str]) -> list[str]:
    """N-grams as terms of letters and digits only, so that no engine can take them for query syntax."""
    return [f"g{piece.encode().hex()}" for piece in pieces]


def _pieces(text: str) -> Iterator[str]:
    for index, char in enumerate(text):
        if is_dense(char):
            yield char
            yield text[index : index + 2]
        elif len(piece := text[index : index + _GRAM]) == _GRAM or len(text) < _GRAM:
            yield piece


def is_dense(char: str) -> bool:
    """Whether `char` is of a script without spaces between words."""
    return any(first <= ord(char) <= last for first, last in _DENSE)

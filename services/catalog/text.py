"""What people write about a title or a series."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

from services.runtime.errors import InvalidArgument

_NAME_CHARS = 500


@dataclass(frozen=True, kw_only=True)
class TitleText:
    """What people write about a title or a series."""

    display_name: str
    description: str = ""
    release_year: int = 0
    genres: tuple[str, ...] = ()

    def check(self, of: str = "title") -> TitleText:
        """This text, if it can be shown; `of` is the field to blame. Raises `InvalidArgument`."""
        check_name(f"{of}.display_name", self.display_name)
        check_plain(
            f"{of}.description", self.description.replace("\n", " ").replace("\r", " ").replace("\t", " ")
        )
        for index, genre in enumerate(self.genres):
            check_plain(f"{of}.genres[{index}]", genre)
        return self


def check_name(field: str, name: str) -> None:
    """Raises `InvalidArgument` for a name that can't be shown."""
    if not name.strip() or len(name) > _NAME_CHARS:
        raise InvalidArgument(field, f"must have 1 to {_NAME_CHARS} characters, not only spaces")
    check_plain(field, name)


def check_plain(field: str, text: str) -> None:
    """Raises `InvalidArgument` for control characters."""
    if any(unicodedata.category(char) == "Cc" for char in text):
        raise InvalidArgument(field, "must not contain control characters")

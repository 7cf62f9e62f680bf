"""What can go wrong in history, beyond the suite's general errors."""

from __future__ import annotations

from services.runtime.errors import NotFound


class ViewNotFound(NotFound):
    """{view} does not exist: the profile has not begun the title."""

    reason = "VIEW_NOT_FOUND"
    fields = ("view",)

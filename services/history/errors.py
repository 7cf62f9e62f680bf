"""What can go wrong in history, beyond the suite's general errors."""

from __future__ import annotations

from services.runtime.errors import FailedPrecondition, NotFound, Unavailable


class ViewNotFound(NotFound):
    """{view} does not exist: the profile has not begun the title."""

    reason = "VIEW_NOT_FOUND"
    fields = ("view",)


class HistoryUnavailable(Unavailable):
    """Viewing history is not available at the moment; try again."""

    reason = "HISTORY_UNAVAILABLE"


class HistoryMisconfigured(FailedPrecondition):
    """{problem}"""

    reason = "HISTORY_MISCONFIGURED"

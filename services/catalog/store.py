"""Where the catalog keeps its titles and media."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from services.catalog.model import Details, Media, Rendition, Segment, Sweep, Title, Viewer

T = TypeVar("T")


class Session(Protocol):
    """One transaction: all of it takes effect, or none."""

    def title(self, title_id: str) -> Title | None:
        """A title, deleted ones too until they are collected."""

    def titles(self, viewer: Viewer, after: tuple[datetime, str] | None, limit: int) -> list[Title]:
        """What `viewer` sees, newest first; `after` is (create_time, id) of the last one seen."""

    def create_once(self, scope: str, request_id: str, request: bytes, title: Title) -> str:
        """Save a new title unless this request did before; the id of the title it made.

        Raises `RequestIdReused` when the id came with another request.
        """

    def save_title(self, title: Title) -> None:
        """Insert or replace a title and mark it as unsent to the search index."""

    def media(self, title_id: str) -> Media | None:
        """The media of a title, at a cost that grows with its renditions only."""

    def save_media(self, media: Media, changed: Sequence[Rendition]) -> None:
        """Insert or update the media and these of its renditions."""

    def replace_renditions(self, media: Media) -> None:
        """Make the renditions of `media` the only ones of its title."""

    def details(self, title_id: str) -> Details:
        """Frames, grid and highlights; empty ones where there are none."""

    def save_details(self, title_id: str, details: Details) -> None:
        """Replace all of them."""

    def save_grid(self, title_id: str, starts: Sequence[int], highlights: bytes) -> None:
        """Replace grid and highlights."""

    def segments(self, title_id: str, job: str, rendition_id: str, first: int, limit: int) -> list[Segment]:
        """Published segments from number `first` on, by number."""

    def published(
        self, title_id: str, job: str, rendition_id: str, numbers: Sequence[int]
    ) -> Mapping[int, str]:
        """Object keys of those of `numbers` that are published."""

    def add_segments(self, title_id: str, job: str, rendition_id: str, segments: Sequence[Segment]) -> None:
        """Publish segments whose numbers are not published yet."""

    def ready_from(self, title_id: str, job: str, rendition_id: str, number: int) -> int:
        """The first number from `number` on that is not published."""

    def unsent(self, limit: int) -> list[Title]:
        """Titles whose newest version the index may lack, longest waiting first; deleted ones too."""

    def mark_sent(self, title_id: str, version: int) -> None:
        """The search index has this version; nothing happens when there is a newer one."""

    def add_sweep(self, sweep: Sweep) -> None:
        """Have objects collected; replaces an earlier order of the same prefix."""

    def next_sweep(self) -> Sweep | None:
        """The one due first."""

    def remove_sweep(self, sweep: Sweep) -> None:
        """It is done for good."""

    def forget_segments(self, sweep: Sweep, limit: int) -> int:
        """Delete at most `limit` segment rows of what was swept; how many were there."""

    def forget_media(self, title_id: str) -> None:
        """Delete what is left of a deleted title's media and words; the tombstone stays."""


class Store(Protocol):
    """Transactions, which behave as if run one after the other; acknowledged means durable.

    The function given may run more than once and must have no effect outside its session.
    """

    async def write(self, fn: Callable[[Session], T]) -> T:
        """Run a transaction that changes something."""

    async def read(self, fn: Callable[[Session], T]) -> T:
        """Run a transaction that sees one snapshot and changes nothing."""

"""What an edge keeps, and which of it may go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from services.playback.placement import INIT, Item


class Sized(Protocol):
    """Something of a rendition that takes room."""

    @property
    def item(self) -> Item:
        """What it is."""

    @property
    def size_bytes(self) -> int:
        """What it takes."""


F = TypeVar("F", bound=Sized)


class Kept(Generic[F]):
    """Files by item, with additions and removals in constant time.

    An init segment stays as long as anything of its rendition does: nothing plays without it.
    """

    def __init__(self) -> None:
        self.bytes = 0
        #: What may go, in no order.
        self.loose: list[Item] = []
        self._files: dict[Item, F] = {}
        self._places: dict[Item, int] = {}
        self._segments: Counter[str] = Counter()

    def __contains__(self, item: Item) -> bool:
        return item in self._files

    def __len__(self) -> int:
        return len(self._files)

    def get(self, item: Item) -> F | None:
        """The file of an item."""
        return self._files.get(item)

    def files(self) -> Sequence[F]:
        """All of them."""
        return list(self._files.values())

    def add(self, file: F) -> None:
        """Keep a file whose item isn't here."""
        item = file.item
        self._files[item] = file
        self.bytes += file.size_bytes
        if item.number != INIT:
            self._segments[item.group] += 1
            self._hold(Item(item.group, INIT))
        if item.number != INIT or not self._segments[item.group]:
            self._let_go(item)

    def remove(self, item: Item) -> F:
        """Keep a file no longer. Raises `KeyError`."""
        file = self._files.pop(item)
        self.bytes -= file.size_bytes
        self._hold(item)
        if item.number != INIT:
            self._segments[item.group] -= 1
            if not self._segments[item.group]:
                del self._segments[item.group]
                if (init := Item(item.group, INIT)) in self._files:
                    self._let_go(init)
        return file

    def restore(self, files: Iterable[F]) -> None:
        """Add several."""
        for file in files:
            self.add(file)

    def _let_go(self, item: Item) -> None:
        self._places[item] = len(self.loose)
        self.loose.append(item)

    def _hold(self, item: Item) -> None:
        place = self._places.pop(item, None)
        if place is None:
            return
        last = self.loose.pop()
        if last != item:
            self.loose[place], self._places[last] = last, place

"""What commands print: tables and bars for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table

from services.runtime.errors import InvalidArgument


class Output:
    """Where a command's results go: stdout; progress and words about it go to stderr."""

    def __init__(self, *, as_json: bool = False) -> None:
        """`as_json`: one JSON value per result, nothing else on stdout."""
        self.as_json = as_json
        self._out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)

    def messages(
        self, messages: Sequence[Message], columns: Sequence[str], rows: Iterable[Sequence[object]]
    ) -> None:
        """A list of resources: as a table with one row each, or as a JSON array of the messages."""
        if self.as_json:
            self.json([as_dict(message) for message in messages])
        else:
            self.table(columns, rows)

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None
    ) -> None:
        """A table for people."""
        table = Table(
            *columns, title=title, title_justify="left", box=None, header_style="bold", pad_edge=False
        )
        for row in rows:
            table.add_row(*[str(cell) for cell in row])
        self._out.print(table)

    def facts(self, facts: Mapping[str, object]) -> None:
        """Names and values: one line each, or a JSON object."""
        if self.as_json:
            self.json(dict(facts))
            return
        self.table(("", ""), ((name.replace("_", " "), value) for name, value in facts.items()))

    def json(self, value: Any) -> None:
        """One JSON value on one line."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
        sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line for people, on stderr; nothing for programs."""
        if not self.as_json:
            self.err.print(text, soft_wrap=True)


class Mute(Output):
    """Says nothing, for programs that print one result of their own."""

    def __init__(self) -> None:
        super().__init__(as_json=True)

    def json(self, value: Any) -> None:
        """Nothing."""


def as_dict(message: Message) -> dict[str, Any]:
    """A message with the contract's field names."""
    value: dict[str, Any] = MessageToDict(message, preserving_proto_field_name=True)
    return value


def clock(duration: Duration | timedelta | float) -> str:
    """A media time as `h:mm:ss.mmm`, rounded down."""
    if isinstance(duration, Duration):
        duration_ms = duration.ToMilliseconds()
    elif isinstance(duration, timedelta):
        duration_ms = int(duration.total_seconds() * 1000)
    else:
        duration_ms = int(duration * 1000)
    seconds, ms = divmod(duration_ms, 1000)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ms:03d}"


def parse_offset(text: str) -> Duration:
    """`75`, `1:15`, `00:01:15.5` as a Duration, exact to the nanosecond. Raises `InvalidArgument`."""
    sign, body = ("-", text[1:]) if text.startswith("-") else ("", text)
    fields = body.split(":")
    whole, _, fraction = fields[-1].partition(".")
    numbers = [*fields[:-1], whole]
    if (
        len(fields) > 3
        or len(fraction) > 9
        or not all(part.isdecimal() and part.isascii() for part in numbers)
    ):
        raise InvalidArgument("offset", f"{text} is no time; write seconds (75.5) or 1:15.5 or 0:01:15.5.")
    if fraction and not (fraction.isdecimal() and fraction.isascii()):
        raise InvalidArgument("offset", f"{text} is no time; write seconds (75.5) or 1:15.5 or 0:01:15.5.")
    seconds = 0
    for number in numbers:
        seconds = seconds * 60 + int(number)
    nanos = int(fraction.ljust(9, "0") or "0")
    return Duration(seconds=-seconds if sign else seconds, nanos=-nanos if sign else nanos)


def size(size_bytes: int) -> str:
    """A size for people, in binary units."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


#: Currencies of ISO 4217 whose minor unit is not a hundredth, with its number of decimals.
_MINOR_DIGITS = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW"), 0),
    **dict.fromkeys(("PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}


def minor_digits(currency: str) -> int:
    """How many decimals a currency has (ISO 4217)."""
    return _MINOR_DIGITS.get(currency, 2)


def money(amount_minor: int, currency: str) -> str:
    """An amount for people, with the currency's decimals."""
    digits = minor_digits(currency)
    sign, amount = ("-", -amount_minor) if amount_minor < 0 else ("", amount_minor)
    whole, rest = divmod(amount, 10**digits)
    return f"{sign}{whole}.{rest:0{digits}d} {currency}" if digits else f"{sign}{whole} {currency}"

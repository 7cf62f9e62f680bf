"""Requests against the rules written in their contract (protovalidate)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from google.protobuf.message import Message

from services.runtime.errors import ValidationFailed, Violation


@lru_cache(maxsize=1)
def _validator() -> Any:
    # Imported at first use: a worker that serves nothing doesn't pay for it.
    import protovalidate

    return protovalidate.Validator()


def prepare() -> None:
    """Load the engine now, so that the first request doesn't wait for it."""
    _validator()


def validate(message: Message) -> None:
    """Check a message. Raises `ValidationFailed` naming each field that breaks a rule."""
    found = _validator().collect_violations(message)
    if found:
        raise ValidationFailed(tuple(_violation(item.proto) for item in found))


def _violation(proto: Any) -> Violation:
    return Violation(field=_path(proto.field), description=proto.message or proto.rule_id)


def _path(field: Any) -> str:
    """`cues[2].text` for a field path."""
    text = ""
    for element in field.elements if field is not None else ():
        text += ("." if text else "") + element.field_name
        if element.subscript is not None:
            text += f"[{element.subscript.value}]"
    return text

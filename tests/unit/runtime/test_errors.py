from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest

from services.runtime import auth, errors, idempotency, migrations, objects, sealed, server, settings, sql
from services.runtime.errors import (
    AlreadyExists,
    Code,
    FailedPrecondition,
    InvalidArgument,
    KinoError,
    NotFound,
    RemoteError,
    ResourceExhausted,
    Unavailable,
    ValidationFailed,
    Violation,
)


class TitleNotPlayable(FailedPrecondition):
    """{title} cannot be played yet: it is {state}.

    A second paragraph is for readers of the code.
    """

    reason = "TITLE_NOT_PLAYABLE"


def _subclasses(cls: type[KinoError]) -> Iterator[type[KinoError]]:
    for sub in cls.__subclasses__():
        yield sub
        yield from _subclasses(sub)


def test_the_message_is_the_first_paragraph_of_the_docstring_filled_in() -> None:
    error = TitleNotPlayable(title="titles/x", state="PROCESSING")
    assert str(error) == error.message == "titles/x cannot be played yet: it is PROCESSING."
    assert error.metadata == {"title": "titles/x", "state": "PROCESSING"}


def test_positional_arguments_are_the_fields_of_the_class() -> None:
    assert NotFound("titles/x").metadata == {"resource": "titles/x"}
    assert str(InvalidArgument("offset", "is negative")) == "offset: is negative"


def test_an_error_without_what_its_sentence_needs_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="TitleNotPlayable needs state"):
        TitleNotPlayable(title="titles/x")
    with pytest.raises(TypeError, match="at most 1 positional"):
        NotFound("titles/x", "titles/y")


def test_braces_in_a_value_are_not_taken_for_a_field() -> None:
    assert str(NotFound("titles/{title}")) == "titles/{title} does not exist."


def test_only_errors_about_fields_carry_violations() -> None:
    assert InvalidArgument("a.b", "is wrong").violations == (Violation(field="a.b", description="is wrong"),)
    assert NotFound("titles/x").violations == ()


def test_validation_names_the_first_field_and_counts_the_others() -> None:
    found = tuple(Violation(field=name, description="is empty") for name in ("a", "b", "c"))
    error = ValidationFailed(found)
    assert (str(error), error.violations, error.metadata) == ("a: is empty (and 2 more)", found, {})
    assert str(ValidationFailed((Violation(field="", description="no rule holds"),))) == "no rule holds"


def test_the_retry_delay_is_a_number_or_unknown() -> None:
    assert Unavailable(250).retry_after_ms == 250
    assert (Unavailable().retry_after_ms, AlreadyExists("x").retry_after_ms) == (None, None)
    assert ResourceExhausted("uploads", 90).retry_after_ms == 90


def test_a_remote_error_has_the_code_and_reason_it_was_given() -> None:
    error = RemoteError(
        code=Code.NOT_FOUND, reason="TITLE_GONE", message="{not a field}", metadata={"a": "b"}
    )
    assert (error.code, error.reason, str(error), error.metadata) == (
        Code.NOT_FOUND,
        "TITLE_GONE",
        "{not a field}",
        {"a": "b"},
    )


def test_every_error_of_the_runtime_has_a_sentence_and_a_reason() -> None:
    modules = {
        m.__name__ for m in (auth, errors, idempotency, migrations, objects, sealed, server, settings, sql)
    }
    seen = [cls for cls in _subclasses(KinoError) if cls.__module__ in modules]
    assert len(seen) > 20
    for cls in seen:
        assert cls.__doc__, cls
        assert cls.reason.isupper(), cls
        assert cls.reason.replace("_", "").isalnum(), cls


@pytest.mark.parametrize(
    "error",
    [
        TitleNotPlayable(title="titles/x", state="PROCESSING"),
        Unavailable(250),
        ValidationFailed((Violation(field="a", description="b"),)),
        RemoteError(code=Code.ABORTED, reason="R", message="m", metadata={"k": "v"}, retry_after_ms=5),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_pickling(error: KinoError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.code, copy.reason) == (
        type(error),
        str(error),
        error.code,
        error.reason,
    )
    assert (copy.metadata, copy.violations, copy.retry_after_ms) == (
        error.metadata,
        error.violations,
        error.retry_after_ms,
    )


def test_codes_are_the_wire_numbers_of_grpc() -> None:
    import grpc

    assert {code.name: code.value for code in Code} == {
        code.name: code.value[0] for code in grpc.StatusCode if code is not grpc.StatusCode.OK
    }

"""Typed errors: each class is a sentence, a code and a reason; one interceptor maps it to a status.

The tree (a service adds its own subclasses)::

    KinoError
    ├── InvalidArgument ── ValidationFailed
    ├── OutOfRange
    ├── NotFound
    ├── AlreadyExists
    ├── PermissionDenied
    ├── Unauthenticated
    ├── FailedPrecondition
    ├── Aborted
    ├── ResourceExhausted
    ├── Unavailable
    ├── DeadlineExceeded
    ├── OutcomeUnknown
    ├── Internal
    └── RemoteError          what another service answered
"""

from __future__ import annotations

import enum
import inspect
from dataclasses import dataclass
from string import Formatter


class Code(enum.Enum):
    """The canonical gRPC status codes (google/rpc/code.proto), by their wire numbers."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One wrong field of a request: its path in the message, and what is wrong in words."""

    field: str
    description: str


class KinoError(Exception):
    """Something went wrong."""

    #: The gRPC code this error is answered with.
    code: Code = Code.INTERNAL
    #: Machine-readable cause, UPPER_SNAKE, unique in the domain `kino` (`ErrorInfo.reason`).
    reason: str = "INTERNAL"
    #: Names of the positional arguments, in order.
    fields: tuple[str, ...] = ()

    def __init__(self, *args: object, **details: object) -> None:
        """Fill the class's docstring with `details`; positional arguments are named by `fields`.

        Every detail also becomes `ErrorInfo.metadata`: give identifiers, never secrets or paths of the
        machine. Raises `TypeError` when the sentence names a field that isn't given.
        """
        cls = type(self)
        if len(args) > len(cls.fields):
            raise TypeError(f"{cls.__name__} takes at most {len(cls.fields)} positional arguments")
        self.details: dict[str, object] = {**dict(zip(cls.fields, args, strict=False)), **details}
        template = _template(cls)
        missing = {name for _, name, _, _ in Formatter().parse(template) if name} - self.details.keys()
        if missing:
            raise TypeError(f"{cls.__name__} needs {', '.join(sorted(missing))}")
        self.message: str = template.format_map(self.details)
        super().__init__(self.message)

    def __reduce__(self) -> tuple[object, ...]:
        # The default calls the class with the finished sentence; workflow engines pickle what a step raised.
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def metadata(self) -> dict[str, str]:
        """The details as strings, for `ErrorInfo.metadata`."""
        return {name: str(value) for name, value in self.details.items() if value is not None}

    @property
    def violations(self) -> tuple[Violation, ...]:
        """The fields of the request this error blames; empty for most errors."""
        return ()

    @property
    def retry_after_ms(self) -> int | None:
        """After how many milliseconds a retry makes sense; None when unknown or never."""
        value = self.details.get("retry_after_ms")
        return int(value) if isinstance(value, int) else None


def _restored(cls: type[KinoError], args: tuple[object, ...], state: dict[str, object]) -> KinoError:
    error = cls.__new__(cls, *args)
    error.__dict__.update(state)
    return error


def _template(cls: type[KinoError]) -> str:
    """The first paragraph of the class's docstring, on one line."""
    doc = inspect.cleandoc(cls.__doc__ or KinoError.__doc__ or "")
    return " ".join(doc.split("\n\n", 1)[0].split())


class InvalidArgument(KinoError):
    """{field}: {problem}"""

    code = Code.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"
    fields: tuple[str, ...] = ("field", "problem")

    @property
    def violations(self) -> tuple[Violation, ...]:
        field = self.details.get("field")
        if field is None:
            return ()
        return (Violation(field=str(field), description=str(self.details.get("problem", self.message))),)


class ValidationFailed(InvalidArgument):
    """{summary}

    Raised when a request breaks the rules written in its contract.
    """

    reason = "VALIDATION_FAILED"
    fields: tuple[str, ...] = ("summary",)

    def __init__(self, violations: tuple[Violation, ...]) -> None:
        """`violations` must not be empty; the sentence names the first one."""
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(
            f"{first.field}: {first.description}{more}" if first.field else first.description + more
        )
        self._violations = violations

    @property
    def metadata(self) -> dict[str, str]:
        return {}

    @property
    def violations(self) -> tuple[Violation, ...]:
        return self._violations


class OutOfRange(KinoError):
    """{field}: {problem}"""

    code = Code.OUT_OF_RANGE
    reason = "OUT_OF_RANGE"
    fields: tuple[str, ...] = ("field", "problem")


class NotFound(KinoError):
    """{resource} does not exist."""

    code = Code.NOT_FOUND
    reason = "NOT_FOUND"
    fields: tuple[str, ...] = ("resource",)


class AlreadyExists(KinoError):
    """{resource} already exists."""

    code = Code.ALREADY_EXISTS
    reason = "ALREADY_EXISTS"
    fields: tuple[str, ...] = ("resource",)


class PermissionDenied(KinoError):
    """You may not do this."""

    code = Code.PERMISSION_DENIED
    reason = "PERMISSION_DENIED"


class Unauthenticated(KinoError):
    """Sign in first: the call carries no valid credential."""

    code = Code.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class FailedPrecondition(KinoError):
    """{problem}

    The system isn't in the state this needs; repeating the call doesn't help until that changes. The detail
    `subject`, if given, names the resource whose state is wrong.
    """

    code = Code.FAILED_PRECONDITION
    reason = "FAILED_PRECONDITION"
    fields: tuple[str, ...] = ("problem", "subject")


class Aborted(KinoError):
    """{problem}

    A concurrent change won; read again and repeat the whole sequence.
    """

    code = Code.ABORTED
    reason = "ABORTED"
    fields: tuple[str, ...] = ("problem",)


class ResourceExhausted(KinoError):
    """The limit {quota} is used up."""

    code = Code.RESOURCE_EXHAUSTED
    reason = "RESOURCE_EXHAUSTED"
    fields: tuple[str, ...] = ("quota", "retry_after_ms")


class Unavailable(KinoError):
    """The service is not available at the moment; try again."""

    code = Code.UNAVAILABLE
    reason = "UNAVAILABLE"
    fields: tuple[str, ...] = ("retry_after_ms",)


class DeadlineExceeded(KinoError):
    """The call did not finish before its deadline."""

    code = Code.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class OutcomeUnknown(KinoError):
    """It is not known whether the change was stored: the reply to its commit was lost.

    Not `UNAVAILABLE`, which clients repeat blindly; repeat with the same `request_id`, which tells.
    """

    code = Code.UNKNOWN
    reason = "OUTCOME_UNKNOWN"


class Internal(KinoError):
    """Something went wrong inside the service; incident {incident} is in its log."""

    code = Code.INTERNAL
    reason = "INTERNAL"
    fields: tuple[str, ...] = ("incident",)


class RemoteError(KinoError):
    """{message}

    What another service answered, typed. Raised again by a handler it reaches the caller with the same code,
    reason and details; see `services.runtime.status` for the answers that aren't passed on.
    """

    def __init__(
        self,
        *,
        code: Code,
        reason: str,
        message: str,
        metadata: dict[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message=message)
        self.code = code
        self.reason = reason
        self._metadata = dict(metadata or {})
        self._violations = violations
        self._retry_after_ms = retry_after_ms

    @property
    def metadata(self) -> dict[str, str]:
        return self._metadata

    @property
    def violations(self) -> tuple[Violation, ...]:
        return self._violations

    @property
    def retry_after_ms(self) -> int | None:
        return self._retry_after_ms

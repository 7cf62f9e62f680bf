"""Resource names after AIP-122: `users/{user}/profiles/{profile}`."""

from __future__ import annotations

import re
from functools import lru_cache

from services.runtime.errors import InvalidArgument

#: One identifier inside a name: letters, digits, `-`, `_`, `.` and `~`, beginning with a letter or digit.
SEGMENT = r"[A-Za-z0-9][A-Za-z0-9_.~-]{0,127}"

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")


class ResourceName:
    """A pattern of names, for reading and for making them."""

    def __init__(self, pattern: str) -> None:
        """`pattern` is a path whose `{variable}` parts each stand for one whole segment."""
        self.pattern = pattern
        self.variables = tuple(_VARIABLE.findall(pattern))
        literal = [re.escape(part) for part in _VARIABLE.split(pattern)[::2]]
        groups = [f"(?P<{name}>{SEGMENT})" for name in self.variables]
        self._regex = re.compile("".join(a + b for a, b in zip(literal, [*groups, ""], strict=True)))

    def parse(self, name: str, field: str = "name") -> dict[str, str]:
        """The identifiers in `name` by variable. Raises `InvalidArgument` that blames `field`."""
        match = self._regex.fullmatch(name)
        if match is None:
            raise InvalidArgument(field, f"must have the form `{self.pattern}`")
        return match.groupdict()

    def matches(self, name: str) -> bool:
        """Whether `name` follows the pattern."""
        return self._regex.fullmatch(name) is not None

    def format(self, **identifiers: str) -> str:
        """The name made of these identifiers. Raises `ValueError` when one can't stand in a name."""
        name = self.pattern.format(**identifiers)
        if set(identifiers) != set(self.variables) or not self.matches(name):
            raise ValueError(f"{identifiers} does not make a name of the form {self.pattern}")
        return name


@lru_cache(maxsize=256)
def _resource_name(pattern: str) -> ResourceName:
    return ResourceName(pattern)


def parse(pattern: str, name: str, field: str = "name") -> dict[str, str]:
    """The identifiers in `name`, which follows `pattern`. Raises `InvalidArgument` that blames `field`."""
    return _resource_name(pattern).parse(name, field)


def format_name(pattern: str, **identifiers: str) -> str:
    """The name of this pattern made of these identifiers. Raises `ValueError` for a bad identifier."""
    return _resource_name(pattern).format(**identifiers)

"""Where a caller is: told by the gateway in a header, where an operator has set one up."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile("[A-Z]{2}")
#: ISO 3166-1 keeps these for users; gateways write XX and ZZ where they don't know.
_UNKNOWN = ("XX", "ZZ")


class Regions:
    """Reads a caller's region (ISO 3166-1 alpha-2)."""

    def __init__(self, header: str, default: str) -> None:
        """`header` is the metadata the gateway sets, empty where none does; `default` counts without it."""
        self._header = header.lower()
        self._default = default

    def of(self, context: Any) -> str:
        """The caller's region, empty when not known."""
        if not self._header:
            return self._default
        given = dict(context.invocation_metadata() or ()).get(self._header, "")
        code = str(given).strip().upper()
        return code if _CODE.fullmatch(code) and code not in _UNKNOWN else self._default

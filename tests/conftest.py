"""What every test may use. A folder's own fixtures lie in that folder's conftest."""

from __future__ import annotations

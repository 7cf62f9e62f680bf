"""What every test may use. A folder's own fixtures lie in that folder's conftest."""

from __future__ import annotations

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("kino", deadline=None)
settings.load_profile("kino")

"""What every test may use. A folder's own fixtures lie in that folder's conftest."""

from __future__ import annotations

import os

from hypothesis import settings

# How long an example takes says more about the machine than about the code.
settings.register_profile("kino", deadline=None)
# A submission answers for what it changed; new examples are looked for wherever people work.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "kino")

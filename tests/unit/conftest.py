"""Property tests try the same examples each time, so that a run that fails can be repeated; none is timed.

HYPOTHESIS_PROFILE=search tries others, and more of them.
"""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

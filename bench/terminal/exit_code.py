"""Exit codes of the commands."""

from typing import Final

FAILED: Final = 1  # with --check: a verdict is FAIL
INVALID: Final = 3  # the load was not the one asked for, so the figures mean nothing

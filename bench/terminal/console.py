"""A console for wide tables."""

from typing import Final

from rich.console import Console

# The table's width; a narrower terminal wraps lines, which reads better than cut numbers.
MIN_WIDTH: Final = 110


def wide_console() -> Console:
    """A console on which a table's numbers are not cut."""
    console = Console()
    return Console(width=max(MIN_WIDTH, console.width))

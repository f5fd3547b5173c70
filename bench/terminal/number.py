"""A measured number for a reader."""

import math
from typing import Final

NOTHING: Final = "-"


def format_number(value: float) -> str:
    """Three significant digits, more where the number is larger than that."""
    if not math.isfinite(value):
        return NOTHING
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"

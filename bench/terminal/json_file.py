"""Results as JSON files."""

import json
from pathlib import Path
from typing import Any


def write_json(facts: dict[str, Any], path: Path) -> None:
    """Write facts as indented JSON."""
    path.write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")

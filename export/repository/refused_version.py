"""A note beside an export that a server could not load. It is not published again unasked.

The note names one card. So it says nothing of a later export.
"""

from pathlib import Path

from pydantic import BaseModel, ValidationError

from export.card import CARD_FILE
from export.checksum import sha256_of
from export.filesystem.atomic_folder import write_file


class _Note(BaseModel):
    card_sha256: str
    reason: str


def note(computed: Path, reason: str) -> None:
    """Note that a server refused what lies in a folder, with its card."""
    written = _Note(card_sha256=sha256_of(computed / CARD_FILE), reason=reason)
    write_file(_path(computed), f"{written.model_dump_json(indent=2)}\n".encode())


def refusal(computed: Path) -> str | None:
    """Why a server refused what lies in a folder; None where none has."""
    try:
        found = _Note.model_validate_json(_path(computed).read_bytes())
        return found.reason if found.card_sha256 == sha256_of(computed / CARD_FILE) else None
    except (OSError, ValidationError):
        return None


def clear(computed: Path) -> None:
    """Forget the note, where it was published all the same."""
    _path(computed).unlink(missing_ok=True)


def _path(computed: Path) -> Path:
    return computed.with_name(f".{computed.name}.refused.json")

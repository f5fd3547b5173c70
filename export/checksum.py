"""Checksums: whether a file is, byte for byte, the one that was reviewed."""

import hashlib
from pathlib import Path

from export.errors import ExportError


class ChecksumError(ExportError):
    """A file is not the one that was pinned."""


def sha256_of(path: Path) -> str:
    """The SHA-256 of the file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify_sha256(path: Path, expected: str) -> None:
    """Refuse a file whose content is not the expected one.

    Raises:
        ChecksumError: the content differs, or there is no such file.
    """
    if not path.is_file():
        raise ChecksumError(f"{path}: no such file; expected one with sha256 {expected}")
    got = sha256_of(path)
    if got != expected:
        raise ChecksumError(f"{path}: expected sha256 {expected}, got {got}; it will not be loaded")

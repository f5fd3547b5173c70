"""A filesystem that is soon full."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(disk: Path, size_kib: int) -> Iterator[Path]:
    """One of this size, mounted at `disk`; the test is skipped where that is not permitted."""
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "none", disk], check=False).returncode:
        pytest.skip("mounting a small filesystem takes root's rights")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)

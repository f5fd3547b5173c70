import hashlib
from pathlib import Path

import pytest

from export.checksum import ChecksumError, sha256_of, verify_sha256


def test_right_file_is_accepted(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"reviewed")
    verify_sha256(file, hashlib.sha256(b"reviewed").hexdigest())


def test_wrong_file_is_refused_naming_file_expected_and_got(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(b"tampered")
    with pytest.raises(ChecksumError) as refusal:
        verify_sha256(file, "a" * 64)
    assert all(part in str(refusal.value) for part in (str(file), "a" * 64, sha256_of(file)))


def test_absent_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ChecksumError, match="absent: no such file"):
        verify_sha256(tmp_path / "absent", "a" * 64)

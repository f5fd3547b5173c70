"""Which nghttp2 may meet strangers."""

import pytest

from scheduler.wire.nghttp2_version import REQUIRED_PACKAGE, REQUIRED_VERSION, fixed_package, fixed_version


@pytest.mark.parametrize("version", [REQUIRED_PACKAGE, "1.52.0-1+deb12u10", "1.68.1-1", "1:1.70.0-2+b1", "2.0.0-1"])
def test_packages_with_the_fixes(version: str) -> None:
    assert fixed_package(version)


@pytest.mark.parametrize("version", ["1.52.0-1+deb12u2", "1.52.0-1", "1.64.0-1", "1.68.0-1", "", "new"])
def test_packages_without(version: str) -> None:
    assert not fixed_package(version)


def test_the_librarys_own_version() -> None:
    assert fixed_version(REQUIRED_VERSION)
    assert fixed_version("1.69.0-DEV")
    assert not fixed_version("1.52.0")

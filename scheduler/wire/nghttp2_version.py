"""Which nghttp2 may meet strangers.

The fixes that count: rapid reset (CVE-2023-44487), CONTINUATION floods (CVE-2024-28182), and an assertion that a frame
reaches after the session was terminated (CVE-2026-27135). Debian brings fixes to an old version, so its package's
version tells, and elsewhere the library's own.
"""

import re
from typing import Final

REQUIRED_PACKAGE: Final = "1.52.0-1+deb12u3"
REQUIRED_VERSION: Final = "1.68.1"
# Debian 12's package with its fixes; a newer release's packages are told by their upstream version.
PACKAGE: Final = re.compile(r"1\.52\.0-1\+deb12u(\d+)")
FIXED_UPDATE: Final = 3
NUMBERS: Final = re.compile(r"(?:\d+:)?(\d+)\.(\d+)\.(\d+)(?:[-+~].*)?")


def fixed_package(version: str) -> bool:
    """Whether Debian's package of this version has the fixes."""
    debian_12 = PACKAGE.fullmatch(version)
    return int(debian_12[1]) >= FIXED_UPDATE if debian_12 else fixed_version(version)


def fixed_version(version: str) -> bool:
    """Whether nghttp2 itself of this version has the fixes; one that cannot be read counts as if not."""
    found = NUMBERS.fullmatch(version)
    return found is not None and tuple(map(int, found.groups())) >= tuple(map(int, REQUIRED_VERSION.split(".")))

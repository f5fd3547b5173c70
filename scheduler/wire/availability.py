"""Whether the native wire can be used here: its extension is built, with a library that has the fixes."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from scheduler.wire.nghttp2_version import REQUIRED_PACKAGE, REQUIRED_VERSION, fixed_package, fixed_version


class Availability(NamedTuple):
    """What was found.

    Attributes:
        usable: whether the native wire can be used.
        told: the library in words; where it is not usable, why.
    """

    usable: bool
    told: str


def look() -> Availability:
    """Load the extension, and look at what it was built with and at what it runs with."""
    try:
        extension = import_module("scheduler.wire._h2")
    except ImportError as error:
        return Availability(usable=False, told=f"its extension is not built here: {error}")
    if not extension.PACKAGE:
        if not fixed_version(extension.VERSION):
            return _old(f"{REQUIRED_VERSION} or later", extension.VERSION)
        return Availability(usable=True, told=f"nghttp2 {extension.VERSION}")
    if not fixed_package(extension.PACKAGE):
        return _old(f"package {REQUIRED_PACKAGE} or later", extension.PACKAGE)
    # Another one may have been loaded under the same name before: the process has one of it.
    beside = Path(str(extension.__file__)).parent
    if Path(extension.LIBRARY).parent.resolve() != beside.resolve():
        return Availability(usable=False, told=f"nghttp2: expected the library in {beside}, got {extension.LIBRARY}")
    return Availability(usable=True, told=f"Debian's nghttp2 {extension.PACKAGE}")


def _old(expected: str, got: str) -> Availability:
    return Availability(usable=False, told=f"nghttp2: expected {expected}, got {got}; `make setup` builds it anew")

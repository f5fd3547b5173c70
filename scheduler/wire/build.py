"""Build the extension `_h2` in place: `python -m scheduler.wire.build`.

It needs a C compiler, Python's headers, Cython and nghttp2. On Debian nghttp2 comes out of the distribution's own
packages, which are downloaded and unpacked without being installed, so no root is needed; the library is put beside the
extension. Elsewhere it is the installed one. Without any of them nothing is built, one line says why, and the service
uses grpcio: a set-up never fails by it.
"""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

from scheduler.wire.nghttp2_version import REQUIRED_PACKAGE, REQUIRED_VERSION, fixed_package, fixed_version

HERE: Final = Path(__file__).parent
LIBRARY: Final = "libnghttp2.so.14"
PACKAGES: Final = ("libnghttp2-dev", "libnghttp2-14")
# Errors of tools that are asked for something, at most; a line of them is shown.
SHOWN: Final = 200


class NotBuilt(Exception):
    """What is missing."""


def build() -> str:
    """Build it.

    Returns:
        What it was built with.

    Raises:
        NotBuilt: with the reason.
    """
    if shutil.which("cc") is None:
        raise NotBuilt("no C compiler (cc) is here")
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        raise NotBuilt("Python's headers (Python.h) are not here")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        c_file = _c_file(folder)
        if shutil.which("apt-get") and shutil.which("dpkg-deb"):
            return _with_debians(c_file, folder)
        return _with_the_installed(c_file)


def _c_file(folder: Path) -> Path:
    c_file = folder / "_h2.c"
    # Cython finds `scheduler.wire.nghttp2` from the folder that `scheduler` lies in.
    _run(sys.executable, "-m", "cython", "-3", "-o", str(c_file), str(HERE / "_h2.pyx"), cwd=HERE.parents[1])
    return c_file


def _with_debians(c_file: Path, folder: Path) -> str:
    try:
        _run("apt-get", "download", "-qq", *PACKAGES, cwd=folder)
    except NotBuilt:
        _run("apt-get", "update", "-qq", cwd=folder)
        _run("apt-get", "download", "-qq", *PACKAGES, cwd=folder)
    versions = set()
    for package in folder.glob("*.deb"):
        _run("dpkg-deb", "-x", str(package), str(folder), cwd=folder)
        versions.add(_run("dpkg-deb", "-f", str(package), "Version", cwd=folder).strip())
    if len(versions) != 1:
        raise NotBuilt(f"{' and '.join(PACKAGES)}: expected one version, got {', '.join(sorted(versions)) or 'none'}")
    version = versions.pop()
    if not fixed_package(version):
        raise NotBuilt(f"nghttp2: expected package {REQUIRED_PACKAGE} or later, got {version}")
    library = next(iter(folder.glob(f"usr/lib/*/{LIBRARY}")), None)
    if library is None:
        raise NotBuilt(f"{PACKAGES[1]} {version} has no {LIBRARY}")
    # A new file in the place of the old one: a service that runs goes on with what it has.
    beside = HERE / LIBRARY
    beside.unlink(missing_ok=True)
    shutil.copy(library, beside)
    _compile(
        c_file,
        f"-I{folder / 'usr/include'}",
        f'-DFAIRLANE_NGHTTP2_PACKAGE="{version}"',
        str(beside),
        "-Wl,-rpath,$ORIGIN",
    )
    return f"Debian's nghttp2 {version}"


def _with_the_installed(c_file: Path) -> str:
    version = _run("pkg-config", "--modversion", "libnghttp2", cwd=HERE).strip()
    if not fixed_version(version):
        raise NotBuilt(f"nghttp2: expected {REQUIRED_VERSION} or later, got {version}")
    flags = _run("pkg-config", "--cflags", "--libs", "libnghttp2", cwd=HERE).split()
    _compile(c_file, *flags)
    return f"nghttp2 {version}"


def _compile(c_file: Path, *flags: str) -> None:
    extension = HERE / f"_h2{sysconfig.get_config_var('EXT_SUFFIX')}"
    include = f"-I{sysconfig.get_path('include')}"
    # As Python's own extensions; strict aliasing is not what it relies on either.
    hardened = ("-O2", "-fPIC", "-shared", "-fwrapv", "-fstack-protector-strong", "-D_FORTIFY_SOURCE=2", "-Wl,-z,now")
    made = c_file.parent / extension.name
    _run("cc", *hardened, include, str(c_file), *flags, "-o", str(made), cwd=HERE)
    extension.unlink(missing_ok=True)
    shutil.copy(made, extension)


def _run(*command: str, cwd: Path) -> str:
    """What the command prints.

    Raises:
        NotBuilt: it failed, or is not here.
    """
    try:
        ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    except OSError as error:
        raise NotBuilt(f"{command[0]}: {error.strerror}") from None
    if ended.returncode:
        lines = [line for line in ended.stderr.splitlines() if line.strip()]
        raise NotBuilt(f"{Path(command[0]).name}: {lines[-1][:SHOWN] if lines else 'failed'}")
    return ended.stdout


def main() -> None:
    """Build, and say how it went; never an error."""
    try:
        print(f"the native wire is built with {build()}")
    except NotBuilt as error:
        print(f"the native wire is not built, gRPC runs on grpcio: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()

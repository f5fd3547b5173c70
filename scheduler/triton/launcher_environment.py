"""The environment that `fairlane install-triton` makes: where its files are and how its server has to be called."""

import os
import shlex
import shutil
import stat
import sys
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

EMBEDDED: Final = Path(__file__).with_name("embedded")
RUN_BITS: Final = stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH
# What Triton starts for each instance of a model instead of the stub; it becomes the stub, on the models' CPUs.
STUB_ON_CPUS: Final = """#!/bin/sh
exec {python} -I -S -c 'import os, sys; os.sched_setaffinity(0, {cpus}); os.execv(sys.argv[1], sys.argv[1:])' \\
    {stub} "$@"
"""
SERVER_FILES: Final = ("libtriton_python.so", "triton_python_backend_utils.py")


class TritonEnvironmentError(RuntimeError):
    """The environment of the embedded Triton is missing or incomplete."""


def copy_runnable(source: Path, target: Path) -> None:
    """Copy a program and set its run bit, which a wheel does not keep."""
    shutil.copyfile(source, target)
    target.chmod(target.stat().st_mode | RUN_BITS)


@dataclass(frozen=True, slots=True)
class TritonEnvironment:
    """A virtual environment that holds the tritonserver wheel and what its Python stub imports.

    Attributes:
        root: the environment's directory, with bin/ and lib/.
        packages: its site-packages.
        python: its Python as `3.11`; Triton has one stub for each.
    """

    root: Path
    packages: Path
    python: str

    @classmethod
    def find(cls, root: Path | None = None) -> "TritonEnvironment":
        """The environment at `root`, by default `triton` within the running Python's own.

        Raises:
            TritonEnvironmentError: naming the file that is missing and the command that installs it.
        """
        root = Path(sys.prefix) / "triton" if root is None else root.absolute()
        for server in sorted(root.glob("lib/python3.*/site-packages/pytriton/tritonserver/bin/tritonserver")):
            packages = server.parents[3]
            found = cls(root, packages, packages.parent.name.removeprefix("python"))
            found.check()
            return found
        raise TritonEnvironmentError(
            f"no tritonserver in {root}: run `fairlane install-triton`, which installs it there, or name a running "
            "Triton (`--backend HOST:PORT`)"
        )

    def check(self) -> None:
        """Raise TritonEnvironmentError where a file that the start needs is missing."""
        needed = [self.stub, self.libraries, *(self.backend / name for name in SERVER_FILES)]
        for path in needed:
            if not path.exists():
                raise TritonEnvironmentError(f"{path} is missing: run `fairlane install-triton`, which installs it")

    @property
    def server(self) -> Path:
        """The tritonserver program as the wheel has it."""
        return self.packages / "pytriton" / "tritonserver" / "bin" / "tritonserver"

    @property
    def backend(self) -> Path:
        """The Python backend's directory in the wheel."""
        return self.packages / "pytriton" / "tritonserver" / "backends" / "python"

    @property
    def stub(self) -> Path:
        """The program that runs a model's Python, for this environment's Python version."""
        stubs = self.packages / "pytriton" / "tritonserver" / "python_backend_stubs"
        return stubs / self.python / "triton_python_backend_stub"

    @property
    def caches(self) -> Path:
        """The directory of Triton's response caches in the wheel."""
        return self.packages / "pytriton" / "tritonserver" / "caches"

    @property
    def libraries(self) -> Path:
        """The shared libraries that the server alone needs."""
        return self.packages / "nvidia_pytriton.libs"

    def runnable_server(self, scratch: Path) -> Path:
        """The server with its run bit set; a copy in `scratch` where the environment is not ours to change."""
        if os.access(self.server, os.X_OK):
            return self.server
        try:
            self.server.chmod(self.server.stat().st_mode | RUN_BITS)
        except OSError:  # somebody else's, or on a disk that is read-only
            copy_runnable(self.server, scratch / "tritonserver")
            return scratch / "tritonserver"
        return self.server

    def assemble_backends(self, directory: Path, model_cpus: Set[int] | None = None) -> None:
        """Lay out a backend directory: Triton's Python backend, and ours named `onnxruntime` on top of it.

        Copies, 3 MB, and not links: Triton refuses a backend library that resolves to outside of the directory.

        Args:
            directory: is made.
            model_cpus: that the models' processes may use, by number; None: those of the server.
        """
        python = directory / "python"
        python.mkdir(parents=True)
        for name in SERVER_FILES:
            shutil.copyfile(self.backend / name, python / name)
        stub = python / self.stub.name
        if model_cpus is None:
            copy_runnable(self.stub, stub)
        else:
            binary = stub.with_suffix(".bin")
            copy_runnable(self.stub, binary)
            interpreter, program = (shlex.quote(str(each)) for each in (self.root / "bin" / "python", binary))
            stub.write_text(STUB_ON_CPUS.format(python=interpreter, cpus=sorted(model_cpus), stub=program))
            stub.chmod(0o755)
        shutil.copytree(EMBEDDED, directory, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))

    def variables(self, base: Mapping[str, str]) -> dict[str, str]:
        """The server's environment variables, from those of this process.

        The stub runs the Python that PATH names first. Each stub imports numpy, which would start a thread
        per core that nobody uses.
        """
        kept = {name: value for name, value in base.items() if not name.startswith(("PYTHON", "LD_"))}
        return {
            "OPENBLAS_NUM_THREADS": "1",
            **kept,
            "PATH": os.pathsep.join(filter(None, [str(self.root / "bin"), base.get("PATH", "")])),
            "LD_LIBRARY_PATH": str(self.libraries),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

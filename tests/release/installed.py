"""Try a release as a user would: both wheels in empty environments, outside of this repository.

    python -m tests.release.installed build/release model_repository/digits

Part of `make release`. It installs dependencies by pip's own settings, held to requirements/constraints.txt.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CONSTRAINTS = Path(__file__).parents[2] / "requirements" / "constraints.txt"
READY = re.compile(r"fairlane is ready: .*?gRPC on (\S+?), HTTP on ([^\s,]+), embedded Triton on ")
INSTALL_S = 900
COMMAND_S = 120
# Triton starts, and loads one small model.
START_S = 180
STOP_S = 90
COMMANDS = ("serve", "install-triton", "infer", "top", "explain", "export", "models", "quantize", "quantize-report")
COMMANDS += ("simulate", "bench", "capacity", "tune")
ASK = """
import sys, fairlane, numpy
with fairlane.Client(sys.argv[1], tenant="release") as client:
    answer = client.infer("digits", {"image": numpy.zeros((2, 1, 8, 8), numpy.float32)}, timeout_s=30)
print(answer["logits"].shape)
"""
# What makes this process find the repository, or another environment.
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_CONSTRAINT")


class ReleaseError(RuntimeError):
    """Something does not work as installed."""


class Installation:
    """An environment of its own with some wheels, and a working folder outside of the repository."""

    def __init__(self, root: Path, *wheels: Path) -> None:
        self.root = root
        self.work = root.with_name(f"{root.name}-work")
        self.work.mkdir()
        self.environment = {name: value for name, value in os.environ.items() if name not in OURS}
        self._run(sys.executable, "-m", "venv", str(root), timeout_s=INSTALL_S)
        pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--constraint", str(CONSTRAINTS))
        self.run("python", *pip, *map(str, wheels), timeout_s=INSTALL_S)
        self.run("python", "-m", "pip", "check")

    def program(self, name: str) -> str:
        return str(self.root / "bin" / name)

    def run(self, program: str, *arguments: str, timeout_s: float = COMMAND_S) -> str:
        """Run one of its programs, which must succeed; returns what it printed."""
        return self._run(self.program(program), *arguments, timeout_s=timeout_s).stdout

    def try_run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.program(program), *arguments, timeout_s=COMMAND_S, check=False)

    def _run(self, *command: str, timeout_s: float, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=self.work,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise ReleaseError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        return done


def one(folder: Path, pattern: str) -> Path:
    """The one file that the pattern names."""
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise ReleaseError(f"{folder}: expected one {pattern}, got {', '.join(map(str, found)) or 'none'}")
    return found[0]


def repository_of(model: Path, target: Path) -> Path:
    """A repository with this model alone, at its newest version."""
    versions = [path for path in model.iterdir() if path.name.isdigit()]
    if not versions:
        raise ReleaseError(f"{model} has no version: run `make models`")
    newest = max(versions, key=lambda path: int(path.name))
    shutil.copytree(newest, target / model.name / newest.name)
    for path in model.iterdir():
        if path.is_file():
            shutil.copy(path, target / model.name)
    return target


def try_sdk(sdk: Installation, version: str) -> None:
    """The SDK by itself: it is importable, has its version, and brings nothing of the server."""
    told = sdk.run("python", "-c", "import fairlane, fairlane.aio; print(fairlane.__version__)").strip()
    if told != version:
        raise ReleaseError(f"the SDK says that it is {told}: expected {version}")
    if sdk.try_run("python", "-c", "import scheduler").returncode == 0:
        raise ReleaseError("the SDK brings the server along")


def try_commands(server: Installation, version: str) -> None:
    """Every command tells how it is used, or in one line which extra it needs."""
    if server.run("fairlane", "--version").strip() != f"fairlane, version {version}":
        raise ReleaseError("`fairlane --version` does not say the version of the wheel")
    for name in COMMANDS:
        told = server.try_run("fairlane", name, "--help")
        if told.returncode != 0 and (told.stderr.count("\n") > 1 or "extra" not in told.stderr):
            raise ReleaseError(f"fairlane {name} --help ended with {told.returncode}:\n{told.stderr}")


@contextmanager
def serving(server: Installation, repository: Path) -> Iterator[tuple[str, str]]:
    """`fairlane serve` on the repository: its gRPC address and the URL of its HTTP side; ended by SIGINT at the end."""
    command = [server.program("fairlane"), "serve", "--model-repository", str(repository)]
    command += ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    log = server.work / "serve.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=server.work, env=server.environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    late = threading.Timer(START_S, process.kill)
    late.start()
    try:
        assert process.stdout is not None
        found = next(filter(None, map(READY.match, process.stdout)), None)
        late.cancel()
        if found is None:
            raise ReleaseError(f"fairlane serve did not become ready:\n{log.read_text()}")
        yield found[1], found[2]
        process.send_signal(signal.SIGINT)
        if process.wait(STOP_S) != 0:
            raise ReleaseError(f"fairlane serve ended with {process.returncode}:\n{log.read_text()}")
    finally:
        late.cancel()
        if process.poll() is None:
            process.kill()
            process.wait()


def main(folder: Path, model: Path) -> None:
    """Try what lies in `folder` with this model."""
    sdk_wheel = one(folder, "fairlane-*.whl").absolute()
    server_wheel = one(folder, "fairlane_server-*.whl").absolute()
    version = sdk_wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(prefix="fairlane-release-") as scratch:
        sdk = Installation(Path(scratch) / "sdk", sdk_wheel)
        try_sdk(sdk, version)
        print(f"the SDK is {version}, alone in its environment")
        server = Installation(Path(scratch) / "server", sdk_wheel, server_wheel)
        try_commands(server, version)
        print(f"{len(COMMANDS)} commands of the server tell how they are used")
        print(server.run("fairlane", "install-triton", timeout_s=INSTALL_S).strip())
        with serving(server, repository_of(model, Path(scratch) / "models")) as (grpc, http):
            print(
                f"fairlane serve is ready; the SDK's answer has the shape {sdk.run('python', '-c', ASK, grpc).strip()}"
            )
            with urllib.request.urlopen(f"{http}/metrics", timeout=COMMAND_S) as reply:
                if f'fairlane_build_info{{version="{version}"}} 1.0' not in reply.read().decode():
                    raise ReleaseError("/metrics does not say the version of the wheel")
        print("SIGINT ended it in order")


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), Path(sys.argv[2]))
    except ReleaseError as error:
        sys.exit(f"release: {error}")

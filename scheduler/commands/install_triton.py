"""`fairlane install-triton`: the environment of the embedded Triton, beside the one that Fairlane runs in."""

import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

import click

from scheduler.triton.launcher_environment import TritonEnvironment, TritonEnvironmentError

# Every wheel pinned by hash; those that have to match Python are for 3.11.
REQUIREMENTS: Final = Path(__file__).with_name("tritonserver.txt")
PYTHON: Final = (3, 11)


@click.command("install-triton")
def install_triton() -> None:
    """Install the embedded Triton beside this installation.

    It goes into an environment of its own, `triton` within the one that Fairlane runs in. It takes some 320 MB. A
    second call repairs what is missing (docs/how-to/install.md).
    """
    root = Path(sys.prefix) / "triton"
    _check_platform()
    _run("cannot make an environment", sys.executable, "-m", "venv", str(root))
    _run(
        "pip failed",
        *(str(root / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-deps", "--require-hashes", "--requirement", str(REQUIREMENTS)),
    )
    try:
        # Now, while we may: who serves may not be who installed.
        TritonEnvironment.find(root).runnable_server(root)
    except TritonEnvironmentError as error:
        raise click.ClickException(f"{root} is not complete; remove it and try again: {error}") from None
    click.echo(f"the embedded Triton is in {root}")


def _check_platform() -> None:
    """Raise click.ClickException where there is no wheel for this machine; pip would only say that it found none."""
    machine = f"{sys.platform} {platform.machine()}"
    if machine != "linux x86_64" or sys.version_info[:2] != PYTHON:
        raise click.ClickException(
            f"the embedded Triton needs Linux on x86_64 and Python 3.11, got {machine} and Python "
            f"{platform.python_version()}: install fairlane-server with Python 3.11, or name a running Triton "
            "(`fairlane serve --backend HOST:PORT`)"
        )


def _run(failure: str, *command: str) -> None:
    """Run a command, which tells on standard error what it does not like."""
    try:
        subprocess.run(command, check=True)  # noqa: S603 - our own words
    except (OSError, subprocess.CalledProcessError) as error:
        raise click.ClickException(f"{failure}: {error}") from None

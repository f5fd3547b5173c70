"""`fairlane install-triton`: what it installs, and where it cannot. `make release` runs it for real."""

import errno
import platform
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from scheduler.cli import main
from scheduler.commands.install_triton import REQUIREMENTS
from scheduler.triton.launcher_environment import TritonEnvironment

PINNED = re.compile(r"[a-z0-9-]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}")


def test_every_wheel_is_pinned_by_hash() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(PINNED.fullmatch(line) for line in lines)
    assert {"nvidia-pytriton", "numpy", "onnxruntime"} <= {line.partition("==")[0] for line in lines}


def test_machine_without_a_wheel_is_told_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    told = CliRunner().invoke(main, ["install-triton"])
    assert told.exit_code == 1
    assert "needs Linux on x86_64 and Python 3.11, got linux aarch64" in told.output
    assert "--backend HOST:PORT" in told.output


@pytest.mark.parametrize("reason", [errno.EROFS, errno.EPERM])
def test_server_that_is_not_ours_to_change_is_copied(
    reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = TritonEnvironment(tmp_path, tmp_path / "packages", "3.11")
    environment.server.parent.mkdir(parents=True)
    environment.server.write_bytes(b"server")
    environment.server.chmod(0o444)
    change = Path.chmod

    def chmod(path: Path, mode: int) -> None:
        if path == environment.server:
            raise OSError(reason, "not ours")
        change(path, mode)

    monkeypatch.setattr(Path, "chmod", chmod)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    copied = environment.runnable_server(scratch)
    assert copied.parent == scratch
    assert copied.read_bytes() == b"server"
    assert copied.stat().st_mode & 0o111

"""Another distribution's `scheduler` or `export` beside ours is an error with a name, never a surprise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.release.wheel import ROOT, Wheel, build, copy_of_tree

COMMAND = "import fairlane_server; fairlane_server.main()"


def fairlane_version(*folders: Path) -> subprocess.CompletedProcess[str]:
    """`fairlane --version` where these folders come first, before this repository."""
    path = os.pathsep.join(map(str, (*folders, ROOT, ROOT / "client")))
    command = [sys.executable, "-P", "-c", COMMAND, "--version"]
    return subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, timeout=60, check=False
    )


def test_own_packages_alone_are_fine() -> None:
    told = fairlane_version()
    assert told.returncode == 0, told.stderr
    assert told.stdout.startswith("fairlane, version ")


@pytest.mark.parametrize("name", ["scheduler", "export", "bench"])
@pytest.mark.parametrize("kind", ["package", "module"])
def test_foreign_package_in_front_is_named(name: str, kind: str, tmp_path: Path) -> None:
    foreign = tmp_path / f"{name}.py" if kind == "module" else tmp_path / name / "__init__.py"
    foreign.parent.mkdir(exist_ok=True)
    foreign.touch()
    told = fairlane_version(tmp_path)
    assert told.returncode == 1
    assert told.stdout == ""
    assert "Traceback" not in told.stderr
    assert f"{name} in {tmp_path}" in told.stderr
    assert "environment of its own" in told.stderr


def test_folder_that_is_no_package_is_no_collision(tmp_path: Path) -> None:
    (tmp_path / "export").mkdir()
    assert fairlane_version(tmp_path).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build(copy_of_tree(tmp_path_factory.mktemp("tree")), tmp_path_factory.mktemp("wheels") / "server")


@pytest.fixture
def installed(wheel: Wheel, tmp_path: Path) -> Path:
    """What pip leaves in site-packages: the wheel, unpacked."""
    site = tmp_path / "site"
    shutil.unpack_archive(wheel.path, site, "zip")
    return site


def test_installed_packages_are_as_the_wheel_had_them(installed: Path) -> None:
    told = fairlane_version(installed)
    assert told.returncode == 0, told.stderr


def test_package_that_another_distribution_wrote_over_is_named(installed: Path) -> None:
    path = installed / "export" / "__init__.py"
    path.write_text("# somebody else's\n")
    told = fairlane_version(installed)
    assert told.returncode == 1
    assert f"{path} is not Fairlane's any more" in told.stderr


def test_package_that_another_distribution_took_along_is_named(installed: Path) -> None:
    shutil.rmtree(installed / "simulate")
    told = fairlane_version(installed)
    assert told.returncode == 1
    assert "simulate" in told.stderr

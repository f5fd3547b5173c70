"""What is in both wheels: every file of the packages, data and licences included, and nothing else."""

from pathlib import Path

import fairlane
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.release.wheel import PACKAGES, ROOT, Wheel, build, copy_of_tree, files_of


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def server(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build(tree, tmp_path_factory.mktemp("wheels") / "server")


@pytest.fixture(scope="module")
def sdk(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Wheel:
    return build(tree / "client", tmp_path_factory.mktemp("wheels") / "sdk")


def test_server_has_every_file_of_its_packages_and_nothing_else(server: Wheel) -> None:
    assert server.names == files_of(*PACKAGES) | {"fairlane_server.py"}


def test_server_has_the_data_that_its_commands_read(server: Wheel) -> None:
    kinds = {Path(name).suffix for name in server.names}
    assert {".html", ".js", ".css", ".svg", ".yaml", ".j2", ".txt", ".tsv"} <= kinds


def test_sdk_has_every_file_of_its_package_and_nothing_else(sdk: Wheel) -> None:
    assert sdk.names == files_of("fairlane", below=ROOT / "client")
    assert "fairlane/py.typed" in sdk.names


def test_both_carry_their_licences(server: Wheel, sdk: Wheel) -> None:
    text = (ROOT / "LICENSE").read_bytes()
    assert server.read("licenses/LICENSE") == sdk.read("licenses/LICENSE") == text
    assert server.metadata["License-Expression"] == "Apache-2.0 AND BSD-3-Clause"
    assert sdk.metadata["License-Expression"] == "Apache-2.0"
    assert any(name.endswith("licenses/export/data/imagenet_labels.LICENSE.txt") for name in server.all_names)


def test_both_have_one_version_and_the_server_asks_for_its_sdk(server: Wheel, sdk: Wheel) -> None:
    assert server.metadata["Version"] == sdk.metadata["Version"] == fairlane.__version__
    needed = [Requirement(each) for each in server.metadata.get_all("Requires-Dist", [])]
    (of_sdk,) = (each for each in needed if each.name == "fairlane")
    now = Version(fairlane.__version__)
    assert now in of_sdk.specifier
    assert f"{now.major}.{now.minor + 1}.0" not in of_sdk.specifier


def test_command_is_the_one_that_looks_for_collisions(server: Wheel) -> None:
    assert "fairlane = fairlane_server:main" in server.read("entry_points.txt").decode()


def test_both_describe_themselves(server: Wheel, sdk: Wheel) -> None:
    for wheel in (server, sdk):
        assert wheel.metadata["Summary"]
        assert wheel.metadata["Description-Content-Type"] == "text/markdown"
        assert str(wheel.metadata.get_payload()).startswith("# ")

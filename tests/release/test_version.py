"""One version everywhere: client/fairlane/version.py has it, and everything that tells a version tells that one."""

import re
from importlib.metadata import version
from typing import Any

import fairlane
import fairlane.aio
import numpy as np
import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from scheduler.cli import main
from scheduler.triton.fake import FakeModel, FakeTriton
from tests.release.wheel import ROOT

RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d{2}-\d{2}$", re.MULTILINE)


@pytest.mark.parametrize("distribution", ["fairlane", "fairlane-server"])
def test_what_is_installed_is_of_this_version(distribution: str) -> None:
    assert version(distribution) == fairlane.__version__, "run `make setup`: another version is installed"


def test_command_tells_it() -> None:
    told = CliRunner().invoke(main, ["--version"])
    assert told.output == f"fairlane, version {fairlane.__version__}\n"


async def test_metrics_and_user_agents_tell_it(serve: Any, get: Any) -> None:
    served = await serve()
    address = f"127.0.0.1:{served.addresses.grpc.rpartition(':')[2]}"
    async with fairlane.aio.Client(address) as client:
        await client.infer("identity", {"INPUT": np.array([[1]])})
    (upstream,) = (dict(each)["user-agent"] for each in served.triton.metadata)
    assert upstream.startswith(f"fairlane-server/{fairlane.__version__} ")
    _, text = await get(served, "/metrics")
    (info,) = (each for each in text_string_to_metric_families(text) if each.name == "fairlane_build_info")
    assert [(sample.labels, sample.value) for sample in info.samples] == [({"version": fairlane.__version__}, 1.0)]


async def test_sdk_names_itself_to_the_server() -> None:
    triton = FakeTriton((FakeModel("identity"),))
    async with fairlane.aio.Client(await triton.start()) as client:
        await client.infer("identity", {"INPUT": np.array([[1]])})
    await triton.stop()
    (told,) = (dict(each)["user-agent"] for each in triton.metadata)
    assert str(told).startswith(f"fairlane/{fairlane.__version__} ")


def test_changelog_has_it_as_the_newest_release() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert text.index("## [Unreleased]") < text.index(f"## [{fairlane.__version__}]")
    assert RELEASE.findall(text)[0] == fairlane.__version__


def test_how_to_install_names_it() -> None:
    text = (ROOT / "docs" / "how-to" / "install.md").read_text()
    assert set(re.findall(r"\d+\.\d+\.\d+(?=-py3|$)", text, re.MULTILINE)) == {fairlane.__version__}
    assert f"fairlane:{fairlane.__version__} " in text

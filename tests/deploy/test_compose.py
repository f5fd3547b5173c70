"""deploy/compose.yaml: keys of Compose's schema, files that are there, and a configuration that Fairlane takes."""

import re
import subprocess
from pathlib import Path
from typing import Any

import fairlane
import pytest
import yaml

from scheduler.config import Config, load
from scheduler.triton.launcher_environment import TritonEnvironment
from tests.deploy.containerfile import stages

FILE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
TOP = {"name", "services"}
SERVICE = {
    *("build", "cap_drop", "command", "depends_on", "image", "init", "ports", "read_only", "restart", "security_opt"),
    *("shm_size", "stop_grace_period", "volumes"),
}
TRITON_GRPC_PORT = "8001"


@pytest.fixture
def services() -> Any:
    return yaml.safe_load(FILE.read_text())["services"]


def config() -> Config:
    return load(FILE.parent / "compose" / "fairlane.yaml", {}, {})


def test_keys_are_ones_of_the_schema(services: Any) -> None:
    assert set(yaml.safe_load(FILE.read_text())) <= TOP
    for service in services.values():
        assert set(service) <= SERVICE
        assert set(service.get("build", ())) <= {"context", "dockerfile"}
        assert set(service.get("depends_on", ())) <= set(services)


def test_every_image_is_pinned(services: Any) -> None:
    script = (FILE.parent / "triton-container.sh").read_text()
    assert services["fairlane"]["image"] == f"fairlane:{fairlane.__version__}"
    assert f'IMAGE="{services["triton"]["image"]}"' in script, "the release that `make triton-container` runs"


def test_ports_are_published_on_loopback_alone(services: Any) -> None:
    listen = config().listen
    within = [address.rpartition(":")[2] for address in (listen.grpc, listen.http)]
    assert services["fairlane"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in within]
    assert "ports" not in services["triton"]


def test_files_and_folders_are_there(services: Any) -> None:
    for service in services.values():
        for volume in service["volumes"]:
            source, _, mode = volume.split(":")
            assert (FILE.parent / source).exists(), source
            assert mode == "ro"
    context = FILE.parent / services["fairlane"]["build"]["context"]
    assert (context / services["fairlane"]["build"]["dockerfile"]).resolve() == FILE.parent / "Containerfile"


def test_configuration_lies_where_the_image_looks_for_it(services: Any) -> None:
    (volume,) = services["fairlane"]["volumes"]
    assert f'"{volume.split(":")[1]}"' in stages(FILE.parent / "Containerfile")[-1].last("CMD")


def test_backends_are_services(services: Any) -> None:
    for backend in config().backends:
        host, _, port = backend.grpc.rpartition(":")
        assert host in services
        assert port == TRITON_GRPC_PORT


def test_stop_leaves_time_for_what_was_accepted(services: Any) -> None:
    assert services["fairlane"]["stop_grace_period"] == f"{config().limits.drain_s + 5:.0f}s"


def test_fairlane_has_no_more_rights_than_it_needs(services: Any) -> None:
    service = services["fairlane"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_flags_of_tritonserver_are_ones_that_this_release_has(services: Any) -> None:
    environment = TritonEnvironment.find()
    program, *flags = services["triton"]["command"]
    assert program == "tritonserver"
    told = subprocess.run(
        [environment.server, "--help"], env=environment.variables({}), capture_output=True, text=True, check=False
    )
    known = set(re.findall(r"--([a-z-]+)", told.stdout + told.stderr))
    assert "grpc-port" in known
    assert {flag.removeprefix("--").partition("=")[0] for flag in flags} <= known

from pathlib import Path
from typing import Any

import pytest

from bench.measuring.metric import PHASE_METRICS, STREAM_METRICS
from bench.scenarios.scenario import BUILT_IN, ScenarioError, built_in, load_scenario, parse
from bench.targets.kind import TargetKind

FILE = Path("my.yaml")


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_scenario_is_sound(name: str) -> None:
    found, scenario = load_scenario(name)
    assert found == name
    assert scenario.classes
    for stream in scenario.streams.values():
        assert stream.traffic_class in scenario.classes


def test_the_named_scenarios_are_there() -> None:
    asked = {"isolation", "noisy-neighbour", "overload", "cross-model", "efficiency", "spike", "ramp"}
    assert asked <= set(built_in())


def changed(definition: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *folders, last = path.split(".")
    inner = definition
    for folder in folders:
        inner = inner[folder]
    inner[last] = value
    return definition


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("streams.interactive.rate_per_s", -1, r"streams\.interactive\.rate_per_s: .*greater than 0, got -1"),
        ("streams.interactive.outstanding", 4, r"streams\.interactive: set exactly one of"),
        ("streams.interactive.color", "red", r"streams\.interactive\.color: Extra inputs"),
        ("phases.alone.streams", ["nobody"], r"phases\.alone\.streams: no stream is named 'nobody'"),
        ("phases.alone.targets", ["proxy"], r"phases\.alone\.targets: 'proxy' is not among the targets"),
        ("targets", ["triton", "envoy"], r"targets\.1: .*'triton'.*got 'envoy'"),
        ("verdicts.p99.value", "fairlane.flood.interactive.p98_ms", r"verdicts\.p99: .*names no metric"),
        ("verdicts.p99.value", "fairlane.flood", r"verdicts\.p99: .*names no metric"),
        ("verdicts.p99.over", "proxy.flood.ok_per_s", r"verdicts\.p99: .*TARGET\.PHASE that runs"),
        ("verdicts.p99.at_least", 1, r"verdicts\.p99: set exactly one of at_most and at_least"),
        ("fairlane", {"tenants": {"default": {"weight": 0}}}, r"fairlane\.tenants\.default\.weight: .*got 0"),
    ],
)
def test_what_is_wrong_is_named_with_its_path(definition: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(ScenarioError, match=rf"my\.yaml: \d+ error\(s\)\n[\s\S]*{message}"):
        parse(changed(definition, path, value), FILE)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ScenarioError, match="isolation"):
        load_scenario("isolatoin")


def test_a_file_that_is_no_mapping_or_no_yaml_is_named(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    for text, message in (("[1]", "valid dictionary"), ("{", "cannot be read")):
        file.write_text(text)
        with pytest.raises(ScenarioError, match=message):
            load_scenario(str(file))


def test_a_target_that_cannot_run_leaves_with_its_phases_and_verdicts(definition: dict[str, Any]) -> None:
    definition["phases"]["flood"]["targets"] = ["triton", "fairlane"]
    scenario = parse(definition, FILE).without(TargetKind.TRITON)
    assert scenario.targets == [TargetKind.FAIRLANE]
    assert scenario.phases_on(TargetKind.TRITON) == []
    assert set(scenario.verdicts) == {"p99", "answered", "memory"}


def test_a_phase_of_a_target_alone_that_cannot_run_is_left_out(definition: dict[str, Any]) -> None:
    definition["phases"]["flood"]["targets"] = ["triton"]
    definition["verdicts"] = {}
    assert list(parse(definition, FILE).without(TargetKind.TRITON).phases) == ["alone"]


def test_the_documentation_names_every_scenario_target_and_metric() -> None:
    text = (BUILT_IN.parents[1] / "docs" / "reference" / "bench.md").read_text()
    for name in (*built_in(), *TargetKind, *STREAM_METRICS, *PHASE_METRICS):
        assert f"`{name}`" in text, name

import json
import sys

import pytest
from click.testing import CliRunner, Result

from scheduler.cli import main
from simulate import cli
from simulate.reporting.summary import Summary, quantile, summarise
from simulate.scenario import Scenario, class_settings, core_settings, tenant_settings
from simulate.scenarios import SCENARIOS
from simulate.world.backend import BackendPlan, Service
from simulate.world.clients import ClosedLoop, Periodic, Storm
from simulate.world.load import Load

TINY = Scenario(
    name="tiny",
    text="Two callers and a storm.",
    settings=core_settings(
        (class_settings("interactive", 3), class_settings("background", 1, max_queued=4)),
        {"gold": tenant_settings(2)},
    ),
    backends=(BackendPlan("gpu0", {"m": Service(0.1, 0.0)}),),
    clients=(
        ClosedLoop(load=Load(tenant="gold", merge_key=None), outstanding=4),
        ClosedLoop(load=Load(tenant="iron", merge_key=None), outstanding=4),
        Storm(load=Load("background", "batch", merge_key=None), count=10, start_s=30.0),
    ),
    seconds=200.0,
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


def by_tenant(scenario: Scenario, **options: int) -> dict[str, Summary]:
    return {summary.tenant: summary for summary in summarise(scenario.play(), scenario, **options)}


def test_shares_are_beside_what_would_have_been_fair():
    found = by_tenant(TINY)
    assert list(found) == ["gold", "iron", "batch"]
    served = 200.0 - TINY.warm_s
    # The storm asks for no more than its answered part and what was refused: one second.
    assert found["batch"].fair_share == pytest.approx(1.0 / served, rel=0.01)
    assert found["gold"].fair_share == pytest.approx(2 * found["iron"].fair_share)
    for name in ("gold", "iron"):
        assert found[name].share == pytest.approx(found[name].fair_share, rel=0.01)
    assert sum(summary.share for summary in found.values()) == pytest.approx(1.0)


def test_what_was_refused_is_counted_by_reason():
    batch = by_tenant(TINY)["batch"]
    assert (batch.offered, batch.answered, batch.refused) == (10, 4, {"QUEUE_FULL": 6})


def test_tenants_beyond_the_most_share_a_row():
    clients = tuple(Periodic(load=Load(tenant=f"t{number}"), per_s=10 - number) for number in range(5))
    scenario = Scenario(
        name="many", text="", settings=core_settings((class_settings("interactive"),)),
        backends=TINY.backends, clients=clients, seconds=10.0,
    )  # fmt: skip
    assert list(by_tenant(scenario, most=2)) == ["t0", "t1", "(3 others)"]
    assert len(by_tenant(scenario, most=4)) == 5
    assert by_tenant(scenario, most=2)["(3 others)"].offered == 8 * (8 + 7 + 6)


def test_who_got_nothing_has_no_wait_but_a_fair_share():
    scenario = Scenario(
        name="capped", text="",
        settings=core_settings((class_settings("interactive"),), {"none": tenant_settings(max_queued=0)}),
        backends=TINY.backends, seconds=10.0,
        clients=(ClosedLoop(load=Load(), outstanding=1), Periodic(load=Load(tenant="none"), per_s=1)),
    )  # fmt: skip
    facts = by_tenant(scenario)["none"].facts()
    assert (facts["wait_p50_ms"], facts["answered"], facts["share"]) == (None, 0, 0.0)
    assert facts["fair_share"] > 0


@pytest.mark.parametrize(("values", "part", "expected"), [([1.0, 2.0, 3.0, 4.0], 0.5, 3.0), ([7.0], 0.99, 7.0)])
def test_quantiles_are_of_the_nearest_rank(values, part, expected):
    assert quantile(values, part) == expected


def test_the_list_names_every_scenario():
    result = run("--list")
    assert result.exit_code == 0
    assert all(name in result.output for name in SCENARIOS)


def test_no_name_and_a_wrong_name_say_which_there_are():
    for arguments in ((), ("nonsense",)):
        result = run(*arguments)
        assert result.exit_code == 2
        assert "noisy-neighbour" in result.output


def test_a_scenario_prints_a_table():
    result = run("flood", "--seed", "2")
    assert result.exit_code == 0
    assert "QUEUE_FULL" in result.output
    assert "Seed 2" in result.output


def test_json_has_every_tenant(monkeypatch):
    monkeypatch.setitem(SCENARIOS, "flood", TINY)
    result = CliRunner().invoke(main, ["simulate", "flood", "--json"])
    facts = json.loads(result.stdout)
    assert [each["tenant"] for each in facts["tenants"]] == ["gold", "iron", "batch"]
    assert sum(facts["ended"].values()) == facts["tickets"]


def test_a_plot_is_a_png(monkeypatch, tmp_path):
    monkeypatch.setitem(SCENARIOS, "flood", TINY)
    monkeypatch.setattr("simulate.reporting.plot.COLOURS", ("#0072B2", "#D55E00"))
    result = run("flood", "--plot", str(tmp_path / "flood.png"))
    assert result.exit_code == 0
    assert (tmp_path / "flood.png").read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_plot_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(cli, "_play", lambda *_: pytest.fail("played for nothing"))
    result = run("flood", "--plot", str(tmp_path / "flood.png"))
    assert result.exit_code == 1
    assert "fairlane-server[bench]" in result.output

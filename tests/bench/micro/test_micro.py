import json

import pytest
from click.testing import CliRunner

import bench.micro.__main__ as micro
from bench.micro.cost import Loaded, measure
from bench.micro.memory import bytes_per_ticket
from bench.micro.million import play
from bench.micro.profile import profile


def test_as_many_come_as_end_so_the_queue_keeps_its_length():
    loaded = Loaded(100, 10)
    passed = sum(loaded.advance() for _ in range(200))
    snapshot = loaded.core.snapshot()
    assert passed > 200
    assert snapshot.queued + snapshot.in_flight == 100
    assert snapshot.ended["COMPLETED"] == passed


def test_every_class_and_tenant_takes_part():
    loaded = Loaded(100, 10)
    snapshot = loaded.core.snapshot()
    assert [each.queued for each in snapshot.classes] == [25, 75]
    assert len(snapshot.tenants) == 10


def test_a_point_has_a_median_between_its_least_and_its_most():
    point = measure(20, 3, deadlines=True, tickets=200, repeats=3)
    assert 0 < point.least_us <= point.cost_us <= point.most_us


def test_a_queued_ticket_takes_memory():
    assert bytes_per_ticket(500, 10) > 0


def test_every_simulated_ticket_ends():
    run = play(2000)
    assert run.tickets == pytest.approx(2000, rel=0.1)
    assert 0 < run.answered <= run.tickets


def test_the_profile_names_functions_of_the_core():
    spent = profile(20, 3, tickets=200, most=50)
    assert any(one.function == "scheduler.submit" and one.calls == pytest.approx(1.0, abs=0.1) for one in spent)


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_the_command_prints_all_of_it(monkeypatch, arguments):
    monkeypatch.setattr(micro, "POINTS", ((10, 10), (40, 10)))
    monkeypatch.setattr(micro, "HELD", 200)
    result = CliRunner().invoke(
        micro.main, ["--tickets", "50", "--repeats", "1", "--million", "500", "--functions", "3", *arguments]
    )
    assert result.exit_code == 0, result.output
    if arguments:
        facts = json.loads(result.stdout)
        assert [point["queued"] for point in facts["cost"]] == [10, 40] * 2
        assert len(facts["profile"]) == 3
    else:
        assert "bytes a queued ticket" in result.output

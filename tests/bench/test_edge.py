import json

from click.testing import CliRunner

from bench.edge import main


def test_refused_and_accepted_requests_have_a_cost():
    result = CliRunner().invoke(main, ["--requests", "64", "--repeats", "2", "--json"])
    assert result.exit_code == 0, result.output
    costs = json.loads(result.stdout)["cpu_us"]
    assert [len(costs[name]) for name in ("refused", "accepted")] == [2, 2]
    assert all(cost > 0 for values in costs.values() for cost in values)


def test_the_table_names_both():
    result = CliRunner().invoke(main, ["--requests", "32", "--repeats", "1", "--no-telemetry"])
    assert "refused" in result.output
    assert "accepted" in result.output

"""Whatever names clients invent: labels and memory stay bounded, and counters never go back."""

from scheduler.core.outcome import Outcome
from scheduler.core.ticket import Ticket
from scheduler.telemetry import tenants as module
from scheduler.telemetry.tenants import MAX_TENANTS, OTHER, TenantTable


def count(table: TenantTable, tenant: str, times: int = 1, outcome: Outcome = Outcome.COMPLETED) -> None:
    for _ in range(times):
        table.ended(Ticket(1, "interactive", tenant, "m"), outcome, 0.5)


def totals(table: TenantTable) -> dict[str, float]:
    found: dict[str, float] = {}
    for (_, label, _, _), (requests, _) in table.ended_counts.items():
        found[label] = found.get(label, 0) + requests
    return found


def test_first_tenants_get_the_labels_and_the_rest_share_one():
    table = TenantTable(2, 0.0)
    for name in ("a", "b", "c", "d"):
        count(table, name)
    assert totals(table) == {"a": 1, "b": 1, OTHER: 2}


def test_louder_tenant_takes_the_quietest_ones_label_and_other_does_not_go_back():
    table = TenantTable(2, 0.0)
    count(table, "a", 3)
    count(table, "b", 9)
    count(table, "loud", 100)
    table.sample(1.0)
    count(table, "loud", 5)
    count(table, "a", 1)
    assert totals(table) == {"b": 9, "loud": 5, OTHER: 101}


def test_label_does_not_flap_between_tenants_of_like_traffic():
    table = TenantTable(1, 0.0)
    count(table, "a", 60)
    count(table, "b", 100)
    table.sample(1.0)
    assert table.labels() == ["a"]


def test_tenant_that_calls_itself_other_is_counted_among_them():
    table = TenantTable(1, 0.0)
    count(table, OTHER, 50)
    count(table, "a")
    table.sample(1.0)
    assert totals(table) == {OTHER: 50, "a": 1}


def test_new_name_with_every_request_costs_bounded_memory_and_spares_the_busy(monkeypatch):
    monkeypatch.setattr(module, "MAX_TENANTS", 64)
    table = TenantTable(4, 0.0)
    count(table, "steady", 50)
    for number in range(1000):
        count(table, f"{number}")
        assert len(table) <= 64
    assert table.get("steady").requests == 50
    assert set(totals(table)) == {"steady", "0", "1", "2", OTHER}
    assert sum(totals(table).values()) == 1050


def test_traffic_fades_and_the_tenant_is_forgotten():
    table = TenantTable(0, 0.0)
    count(table, "a", 100)
    table.sample(30.0)
    assert 36 < table.get("a").requests < 37
    table.sample(600.0)
    assert len(table) == 0


def test_refusals_are_counted_apart():
    table = TenantTable(1, 0.0)
    count(table, "a", 2, Outcome.QUEUE_FULL)
    count(table, "a", 1, Outcome.FAILED)
    assert (table.get("a").requests, table.get("a").refused) == (3, 2)


def test_bound_is_the_documented_one():
    assert MAX_TENANTS == 4096

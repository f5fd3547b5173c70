from math import inf

import pytest

from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.settings import Cap, CoreSettings
from scheduler.core.tenants.caps import MEMORY_S, OTHERS, Tenant, Tenants, holder_of
from tests.unit.core.build import BACKGROUND, core_settings, make_ticket, tenant_settings


def tenant(**settings: object) -> Tenant:
    return Tenant("acme", tenant_settings(**settings))


def come_and_go(tenants: Tenants, name: str, now: float, *, admitted: bool = True) -> Tenant:
    found = tenants.find(name, now=now)
    found.admitted |= admitted
    tenants.forget_idle(found, now=now)
    return found


class TestCaps:
    def test_a_tenant_is_blocked_from_its_last_place_on(self):
        acme, seen = tenant(max_in_flight=2), []
        for _ in range(3):
            seen.append(acme.blocks(make_ticket()))
            acme.take(make_ticket())
        assert seen == [False, False, True]

    def test_rows_are_capped_to_the_last_one(self):
        acme = tenant(max_rows_in_flight=8)
        acme.take(make_ticket(rows=5))
        assert [acme.blocks(make_ticket(rows=rows)) for rows in (1, 3, 4)] == [False, False, True]

    def test_a_cap_on_one_model_blocks_that_model_alone(self):
        acme = tenant(model_caps={"m": Cap(1, None), "n": Cap(None, 4)})
        acme.take(make_ticket(rows=100))
        assert acme.blocks(make_ticket())
        assert not acme.blocks(make_ticket(model="n", rows=4))
        assert acme.blocks(make_ticket(model="n", rows=5))
        assert not acme.blocks(make_ticket(model="other", rows=100))

    def test_what_a_tenant_has_of_one_model_adds_up_and_is_given_back(self):
        acme = tenant(model_caps={"m": Cap(3, 10)})
        held = [make_ticket(rows=4), make_ticket(rows=4)]
        for ticket in held:
            acme.take(ticket)
        assert [acme.blocks(make_ticket(rows=rows)) for rows in (2, 3)] == [False, True]
        acme.take(make_ticket(rows=1))
        assert acme.blocks(make_ticket())
        for ticket in held:
            acme.release(ticket)
        assert [acme.blocks(make_ticket(rows=rows)) for rows in (9, 10)] == [False, True]
        for _ in range(2):
            acme.take(make_ticket())
        assert acme.blocks(make_ticket())

    @pytest.mark.parametrize(
        ("settings", "counts"),
        [
            ({}, False),
            ({"model_caps": {"m": Cap(1, None)}}, False),
            ({"max_rows_in_flight": 8}, True),
            ({"model_caps": {"m": Cap(1, None), "n": Cap(None, 8)}}, True),
        ],
    )
    def test_rows_are_counted_where_any_cap_is_in_rows(self, settings, counts):
        assert tenant(**settings).counts_rows is counts

    def test_both_caps_hold(self):
        acme = tenant(max_in_flight=2, model_caps={"m": Cap(5, None)})
        for _ in range(2):
            acme.take(make_ticket(model="n"))
        assert acme.blocks(make_ticket())

    def test_without_caps_nothing_blocks(self):
        acme = tenant(max_in_flight=None)
        for _ in range(10_000):
            acme.take(make_ticket(rows=100))
        assert not acme.blocks(make_ticket(rows=1000))

    def test_what_is_taken_is_given_back(self):
        acme, ticket = tenant(max_in_flight=1, max_rows_in_flight=4, model_caps={"m": Cap(1, 4)}), make_ticket(rows=4)
        acme.take(ticket)
        assert (acme.in_flight, acme.held.rows, acme.idle) == (1, 4, False)
        acme.release(ticket)
        assert (acme.in_flight, acme.held.rows, acme.idle) == (0, 0, True)
        assert not acme.blocks(ticket)

    @pytest.mark.parametrize(
        ("settings", "most"),
        [
            ({}, inf),
            ({"max_rows_in_flight": 8}, 8),
            ({"max_rows_in_flight": 8, "model_caps": {"m": Cap(None, 4)}}, 4),
            ({"max_rows_in_flight": 8, "model_caps": {"m": Cap(None, 16)}}, 8),
            ({"max_rows_in_flight": 8, "model_caps": {"m": Cap(1, None)}}, 8),
            ({"model_caps": {"m": Cap(1, None)}}, inf),
            ({"model_caps": {"n": Cap(None, 1)}}, inf),
        ],
    )
    def test_the_rows_of_one_ticket_that_could_ever_run(self, settings, most):
        assert tenant(**settings).most_rows("m") == most


class TestWho:
    def test_a_tenant_has_its_own_settings_or_the_default(self):
        tenants = Tenants(core_settings(tenants={"acme": tenant_settings(weight=4)}))
        assert tenants.find("acme", now=0.0).settings.weight == 4
        assert tenants.find("other", now=0.0).settings.weight == 1

    def test_the_same_name_is_the_same_tenant(self):
        tenants = Tenants(core_settings())
        assert tenants.find("acme", now=0.0) is tenants.find("acme", now=1.0)

    def test_only_an_idle_tenant_is_forgotten(self):
        tenants = Tenants(core_settings())
        acme = tenants.find("acme", now=0.0)
        acme.queued = 1
        tenants.forget_idle(acme, now=0.0)
        acme.queued = 0
        acme.take(make_ticket())
        tenants.forget_idle(acme, now=0.0)
        assert len(tenants) == 1
        acme.release(make_ticket())
        tenants.forget_idle(acme, now=0.0)
        tenants.forget_idle(acme, now=0.0)
        assert len(tenants) == 0

    def test_one_that_was_forgotten_and_came_anew_is_not_forgotten_through_its_old_self(self):
        tenants = Tenants(core_settings())
        old = come_and_go(tenants, "acme", 0.0)
        new = tenants.find("acme", now=0.0)
        tenants.forget_idle(old, now=0.0)
        assert tenants.find("acme", now=0.0) is new

    def test_tenants_are_listed_by_name(self):
        tenants = Tenants(core_settings())
        for name in ("zeta", "acme"):
            tenants.find(name, now=0.0)
        assert [each.name for each in tenants.all()] == ["acme", "zeta"]

    def test_a_rate_outlives_the_time_in_which_its_tenant_is_idle(self):
        tenants = Tenants(core_settings(default=tenant_settings(rate_per_s=0.01, burst=2)))
        acme = tenants.find("acme", now=0.0)
        for _ in range(2):
            acme.bucket.take(now=0.0)
        acme.admitted = True
        tenants.forget_idle(acme, now=0.0)
        for number in range(100):
            come_and_go(tenants, f"t{number}", 150.0)
        assert tenants.find("acme", now=150.0).bucket.wait_s(now=150.0) == 0
        assert tenants.find("acme", now=150.0).bucket.wait_s(now=99.0) > 0


class TestOthers:
    """Three unconfigured tenants are told apart at a time, and `acme` has settings."""

    @pytest.fixture
    def tenants(self) -> Tenants:
        return Tenants(
            core_settings(
                tenants={"acme": tenant_settings(4)}, default=tenant_settings(rate_per_s=0.005), max_tenants=3
            )
        )

    def names(self, tenants: Tenants, *names: str, now: float = 0.0) -> list[str]:
        return [tenants.find(name, now=now).name for name in names]

    def test_names_beyond_the_bound_share_one_place(self, tenants):
        assert self.names(tenants, *"abcdea") == ["a", "b", "c", OTHERS, OTHERS, "a"]
        assert tenants.find("d", now=0.0) is tenants.find("e", now=0.0)

    def test_a_tenant_with_settings_never_shares_and_takes_nobodys_place(self, tenants):
        assert self.names(tenants, "acme", *"abcd", "acme") == ["acme", "a", "b", "c", OTHERS, "acme"]
        come_and_go(tenants, "acme", 0.0)
        assert self.names(tenants, "acme") == ["acme"]

    def test_a_tenant_that_calls_itself_the_others_is_one_of_them(self, tenants):
        assert self.names(tenants, OTHERS, *"abcd") == [OTHERS, "a", "b", "c", OTHERS]
        assert len(tenants) == 4

    def test_an_idle_name_keeps_its_place_for_a_while(self, tenants):
        for name in "abc":
            come_and_go(tenants, name, 0.0)
        assert len(tenants) == 0
        assert self.names(tenants, *"da", now=MEMORY_S - 1) == [OTHERS, "a"]

    def test_after_a_silence_the_place_is_free_and_the_memory_too(self):
        tenants = Tenants(core_settings(max_tenants=3))
        for name in "abc":
            come_and_go(tenants, name, 0.0)
        assert self.names(tenants, *"defg", now=MEMORY_S) == ["d", "e", "f", OTHERS]
        assert not tenants._known

    def test_the_name_that_was_idle_longest_makes_room_and_the_others_stay_known(self):
        tenants = Tenants(core_settings(max_tenants=2))
        come_and_go(tenants, "a", 0.0)
        come_and_go(tenants, "b", 50.0)
        assert self.names(tenants, *"cdb", now=MEMORY_S) == ["c", OTHERS, "b"]

    def test_a_name_is_kept_until_its_rate_has_recovered_so_that_forgetting_gives_no_burst(self, tenants):
        for name in "abc":
            tenants.find(name, now=0.0).bucket.take(now=0.0)
            come_and_go(tenants, name, 0.0)
        assert self.names(tenants, "d", now=199.0) == [OTHERS]
        come_and_go(tenants, OTHERS, 199.0)
        assert self.names(tenants, "d", now=200.0) == ["d"]
        assert set(tenants._buckets) == {"d", OTHERS}

    def test_a_name_that_was_never_let_in_takes_no_place_and_no_memory(self, tenants):
        for number in range(100):
            come_and_go(tenants, f"t{number}", 0.0, admitted=False)
        assert self.names(tenants, *"abc") == ["a", "b", "c"]
        assert len(tenants._buckets) == 3

    def test_a_known_name_that_is_refused_stays_known_with_its_empty_bucket(self, tenants):
        tenants.find("a", now=0.0).bucket.take(now=0.0)
        come_and_go(tenants, "a", 0.0)
        come_and_go(tenants, "a", 1.0, admitted=False)
        assert tenants.find("a", now=2.0).bucket.wait_s(now=2.0) == pytest.approx(198)

    def test_a_storm_of_names_leaves_no_more_than_the_bound_behind(self, tenants):
        for number in range(5000):
            come_and_go(tenants, f"t{number}", number / 10)
            assert len(tenants._known) <= 3
            assert len(tenants._buckets) <= 4
        assert len(tenants) == 0


class TestChange:
    def test_new_caps_count_what_is_held(self):
        acme, ticket = tenant(max_in_flight=4), make_ticket(rows=3)
        acme.take(ticket)
        acme.reconfigure(tenant_settings(max_in_flight=1, max_rows_in_flight=9), None, [ticket])
        assert (acme.in_flight, acme.held.rows, acme.counts_rows) == (1, 3, True)
        assert acme.blocks(make_ticket())

    def test_a_flow_comes_back_when_its_first_ticket_fits_again(self):
        acme = tenant(max_in_flight=1)
        queue, held = ClassQueue("m", BACKGROUND, 1), make_ticket()
        acme.take(held)
        queue.push(make_ticket(), acme)
        assert queue.first() is None
        assert acme.unblocked() == []
        acme.release(held)
        (flow,) = acme.unblocked()
        assert (flow.tenant, acme.parked) == (acme, {})

    def test_tenants_keep_what_they_hold_under_new_settings(self):
        tenants = Tenants(core_settings(tenants={"a": tenant_settings(rate_per_s=1)}, max_tenants=2))
        a, b = (tenants.find(name, now=0.0) for name in "ab")
        come_and_go(tenants, "c", 0.0)
        a.bucket.take(now=0.0)
        ticket, fresh = make_ticket(tenant="a"), make_ticket(tenant="b")
        for owner, each in ((a, ticket), (b, fresh)):
            each.holder = owner
            owner.take(each)
        tenants.reconfigure(
            core_settings(
                tenants={"a": tenant_settings(rate_per_s=2), "c": tenant_settings(7)},
                default=tenant_settings(3),
                max_tenants=2,
            ),
            [ticket, fresh],
        )
        assert (a.in_flight, b.in_flight, b.settings.weight) == (1, 1, 3)
        assert a.bucket.wait_s(now=0.0) == 0  # another rate is another bucket
        assert tenants.find("c", now=1.0).settings.weight == 7
        # Of two places b has one, and c, which has settings of its own now, none.
        assert tenants.find("d", now=1.0).name == "d"
        assert tenants.find("e", now=1.0).name == OTHERS

    def test_a_place_that_is_shared_keeps_what_it_holds_under_new_settings(self):
        tenants = Tenants(core_settings(max_tenants=1))
        tenants.find("a", now=0.0)
        others, ticket = tenants.find("b", now=0.0), make_ticket(tenant="b")
        ticket.holder = others
        others.take(ticket)
        tenants.reconfigure(core_settings(max_tenants=1), [ticket])
        assert others.in_flight == 1

    def test_whoever_only_waits_goes_on_under_new_settings(self):
        tenants = Tenants(core_settings())
        waiting = tenants.find("a", now=0.0)
        tenants.reconfigure(core_settings(default=tenant_settings(3)), [])
        assert (waiting.settings.weight, waiting.in_flight) == (3, 0)

    def test_a_rate_that_stays_goes_on_from_where_it_was_and_a_new_one_is_each_tenants_own(self):
        def settings(default_rate_per_s: float) -> CoreSettings:
            own = {"own": tenant_settings(rate_per_s=1)}
            return core_settings(tenants=own, default=tenant_settings(rate_per_s=default_rate_per_s))

        tenants = Tenants(settings(2.0))
        own, a, b = (tenants.find(name, now=0.0) for name in ("own", "a", "b"))
        for each in (own, a, b):
            each.bucket.take(now=0.0)
        tenants.reconfigure(settings(2.0), [])
        assert [each.bucket.wait_s(now=0.0) for each in (own, a, b)] == [1.0, 0.5, 0.5]
        tenants.reconfigure(settings(4.0), [])
        a.bucket.take(now=0.0)
        assert [each.bucket.wait_s(now=0.0) for each in (own, a, b)] == [1.0, 0.25, 0]

    def test_names_that_are_known_keep_their_places_under_new_settings(self):
        tenants = Tenants(core_settings(max_tenants=2))
        tenants.find("alive", now=0.0)
        come_and_go(tenants, "a", 0.0)
        tenants.reconfigure(core_settings(default=tenant_settings(3), max_tenants=2), [])
        assert [tenants.find(name, now=1.0).name for name in "ba"] == [OTHERS, "a"]


def test_a_queued_ticket_counts_for_its_holder():
    ticket = make_ticket()
    ticket.holder = owner = Tenant("acme", tenant_settings())
    assert holder_of(ticket) is owner

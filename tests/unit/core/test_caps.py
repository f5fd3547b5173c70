from scheduler.core.caps import Tenants
from tests.unit.core.build import core_settings, tenant_settings


def test_a_tenant_is_capped_from_its_last_place_on():
    tenant = Tenants(core_settings(default=tenant_settings(max_in_flight=2))).get("acme")
    seen = []
    for _ in range(3):
        seen.append(tenant.capped)
        tenant.in_flight += 1
    assert seen == [False, False, True]


def test_a_tenant_has_its_own_settings_or_the_default():
    tenants = Tenants(core_settings(tenants={"acme": tenant_settings(weight=4)}))
    assert tenants.get("acme").settings.weight == 4
    assert tenants.get("other").settings.weight == 1


def test_the_same_name_is_the_same_tenant():
    tenants = Tenants(core_settings())
    assert tenants.get("acme") is tenants.get("acme")


def test_asking_how_much_a_tenant_has_queued_makes_no_entry():
    tenants = Tenants(core_settings())
    assert tenants.queued("nobody") == 0
    assert len(tenants) == 0
    tenants.get("acme").queued = 3
    assert tenants.queued("acme") == 3


def test_only_an_idle_tenant_is_forgotten():
    tenants = Tenants(core_settings())
    tenant = tenants.get("acme")
    tenant.queued = 1
    tenants.forget_idle(tenant)
    tenant.queued, tenant.in_flight = 0, 1
    tenants.forget_idle(tenant)
    assert len(tenants) == 1
    tenant.in_flight = 0
    tenants.forget_idle(tenant)
    tenants.forget_idle(tenant)
    assert len(tenants) == 0


def test_tenants_are_listed_by_name():
    tenants = Tenants(core_settings())
    for name in ("zeta", "acme"):
        tenants.get(name)
    assert [tenant.name for tenant in tenants.all()] == ["acme", "zeta"]

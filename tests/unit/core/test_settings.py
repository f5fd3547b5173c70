from tests.unit.core.build import core_settings, tenant_settings


def test_a_tenant_without_an_entry_has_the_default_settings():
    settings = core_settings(tenants={"acme": tenant_settings(4)}, default=tenant_settings(2))
    assert settings.for_tenant("acme").weight == 4
    assert settings.for_tenant("other").weight == 2


def test_the_first_class_has_the_first_rank():
    assert core_settings().ranks() == {"interactive": 0, "background": 1}

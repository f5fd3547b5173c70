"""What unit tests of several core files begin with."""

import pytest

from scheduler.core.queues.class_queue import ClassQueue
from scheduler.core.queues.lane import Lane
from scheduler.core.tenants.caps import Tenant
from tests.unit.core.build import BACKGROUND, tenant_settings
from tests.unit.core.learned import learned_lane


@pytest.fixture
def queue() -> ClassQueue:
    return ClassQueue("m", BACKGROUND, rank=1)


@pytest.fixture
def lane() -> Lane:
    """Learned: 5 ms a batch and 5 ms a row."""
    return learned_lane(0.005, 0.005)


@pytest.fixture
def acme() -> Tenant:
    return Tenant("acme", tenant_settings())

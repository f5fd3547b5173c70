"""The whole service of tests/telemetry."""

from tests.telemetry.conftest import get, request_of, serve  # noqa: F401 - fixtures

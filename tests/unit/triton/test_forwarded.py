"""Which headers of a request go on to the model."""

import re

import pytest

from scheduler.triton import forwarded
from scheduler.triton.forwarded import ForwardedHeaders, size_bytes


def test_nothing_goes_on_where_nothing_is_listed() -> None:
    headers = ForwardedHeaders(())
    assert headers.of([("x-user", "u")]) == ()
    assert headers.args == []


def test_listed_ones_go_on_by_name_or_pattern_in_the_order_of_names() -> None:
    headers = ForwardedHeaders(("x-user", "x-acme-*", "x-?"))
    sent = [("x-user", "u"), ("x-user-id", "no"), ("x-acme-b", "2"), ("my-x-user", "no"), ("x-user", "v"), ("x-a", "1")]
    assert headers.of(sent) == (("x-a", "1"), ("x-acme-b", "2"), ("x-user", "u"), ("x-user", "v"))


def test_a_dot_is_a_dot() -> None:
    assert ForwardedHeaders(("x.y",)).of([("x.y", "1"), ("xzy", "2")]) == (("x.y", "1"),)


@pytest.mark.parametrize(
    "name",
    [
        "authorization",
        "traceparent",
        "tracestate",
        "triton_grpc_error",
        "triton-grpc-protocol-k",
        "grpc-timeout",
        "a-bin",
    ],
)
def test_some_never_go_on_whatever_the_pattern(name: str) -> None:
    assert ForwardedHeaders(("*",)).of([(name, "v"), ("x", "1")]) == (("x", "1"),)


def test_bytes_never_go_on() -> None:
    assert ForwardedHeaders(("*",)).of([("x", b"v")]) == ()


def test_the_flag_finds_what_goes_on_and_nothing_else() -> None:
    (flag,) = ForwardedHeaders(("x-user", "x-acme-*")).args
    name, _, pattern = flag.partition("=")
    assert name == "--grpc-header-forward-pattern"
    found = [each for each in ("x-user", "x-user-id", "my-x-user", "x-acme-", "x-acme-b") if re.search(pattern, each)]
    assert found == ["x-user", "x-acme-", "x-acme-b"]


def test_names_that_clients_invent_are_not_remembered_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarded, "MAX_NAMES", 10)
    headers = ForwardedHeaders(("x-1*",))
    for number in range(100):
        headers.of([(f"x-{number}", "v")])
        assert len(headers._known) <= 10
    assert headers.of([("x-17", "v"), ("x-27", "v")]) == (("x-17", "v"),)


def test_size_is_what_http2_counts() -> None:
    assert size_bytes([("x-user", "u"), ("x-a", "")]) == 6 + 1 + 32 + 3 + 32

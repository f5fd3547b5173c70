"""What reaches the server: metadata, ids, deadline, parameters; and what is refused before it is sent."""

import math

import fairlane
import numpy as np
import pytest

OURS = {"x-priority", "x-tenant-id", "x-request-id", "authorization"}


def ours(seen):
    return {key: value for key, value in seen.metadata.items() if key in OURS}


def test_nothing_set_sends_nothing(client, server):
    client.infer("echo", {})
    assert ours(server.seen[0]) == {}
    assert server.seen[0].request.id == ""


def test_defaults_of_the_client_are_sent(connect, server):
    client = connect(tenant="acme", priority="background", api_key="k")
    client.infer("echo", {})
    assert ours(server.seen[0]) == {"x-priority": "background", "x-tenant-id": "acme", "authorization": "Bearer k"}


def test_call_overrides_the_client(connect, server):
    client = connect(tenant="acme", priority="background")
    client.infer("echo", {}, tenant="demo", priority="interactive", request_id="r-1")
    assert ours(server.seen[0]) == {"x-priority": "interactive", "x-tenant-id": "demo", "x-request-id": "r-1"}
    assert server.seen[0].request.id == "r-1"


def test_version_outputs_and_parameters_are_sent(client, server):
    parameters = {"flag": True, "count": 3, "share": 0.5, "name": "n"}
    client.infer("echo", {"x": [1]}, version="2", outputs=["x"], parameters=parameters)
    request = server.seen[0].request
    assert (request.model_name, request.model_version) == ("echo", "2")
    assert [output.name for output in request.outputs] == ["x"]
    sent = {name: getattr(value, value.WhichOneof("parameter_choice")) for name, value in request.parameters.items()}
    assert sent == parameters


def test_timeout_is_the_grpc_deadline(client, server):
    client.infer("echo", {}, timeout_s=100)
    assert 90 < server.seen[0].left_s < 102  # gRPC rounds up to three digits on the wire


@pytest.mark.parametrize("options", [{"timeout_s": None}, {"timeout_s": math.inf}])
def test_no_limit_sends_no_deadline(connect, server, options):
    connect(**options).infer("echo", {})
    assert server.seen[0].left_s is None or server.seen[0].left_s > 1e6


def test_infinite_timeout_of_a_call_lifts_the_clients(connect, server):
    connect(timeout_s=5).infer("echo", {}, timeout_s=math.inf)
    assert server.seen[0].left_s is None or server.seen[0].left_s > 1e6


@pytest.mark.parametrize("timeout_s", [0, -1, math.nan])
def test_no_time_at_all_sends_nothing(client, server, timeout_s):
    with pytest.raises(fairlane.DeadlineExceeded, match="no time left before attempt 1") as caught:
        client.infer("echo", {}, timeout_s=timeout_s)
    assert caught.value.attempts == 0
    assert server.seen == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tenant": "ü"}, "x-tenant-id: expected printable ASCII; got 'ü'"),
        ({"priority": ""}, "x-priority: expected printable ASCII; got ''"),
        ({"request_id": "a\nb"}, "x-request-id: expected printable ASCII"),
        ({"outputs": "x"}, "expected a list of names; got the one string 'x'"),
        ({"parameters": {"p": None}}, "parameter 'p': expected bool, int, float or str; got NoneType"),
        ({"parameters": {"p": 2**63}}, "parameter 'p': expected an int of 64 bits"),
        ({"inputs": {"x": 1j}}, "input 'x': .* got dtype complex128"),
    ],
)
def test_what_can_not_be_sent_is_refused_here(client, server, options, message):
    with pytest.raises(fairlane.InvalidRequest, match=message) as caught:
        client.infer("echo", **{"inputs": {}, **options})
    assert (caught.value.code, caught.value.model, caught.value.attempts) == ("INVALID_ARGUMENT", "echo", 0)
    assert server.seen == []


def test_bad_api_key_is_not_shown(connect):
    with pytest.raises(fairlane.InvalidRequest) as caught:
        connect(api_key="secret\n").infer("echo", {})
    assert "secret" not in str(caught.value)


def test_request_over_the_clients_own_limit_is_refused_here(connect, server):
    with pytest.raises(fairlane.MessageTooLarge, match=r"at most 100 bytes \(max_message_bytes\); got 1") as caught:
        connect(max_message_bytes=100).infer("echo", {"x": np.zeros(100, np.uint8)})
    assert caught.value.limit_bytes == 100
    assert caught.value.size_bytes > 100
    assert caught.value.attempts == 0
    assert server.seen == []


def test_size_of_a_request_is_the_servers_business(client):
    with pytest.raises(fairlane.MessageTooLarge, match=r"at most 4194304 bytes \(limits.message_bytes of the server\)"):
        client.infer("echo", {"x": np.zeros(5 * 2**20, np.uint8)})  # the fake server has gRPC's own 4 MiB


@pytest.mark.parametrize("bad", [0, -1, 2**31])
def test_limit_that_no_message_can_have_is_refused(connect, bad):
    with pytest.raises(ValueError, match=f"max_message_bytes: expected 1 to 2147483647 or None, got {bad}"):
        connect(max_message_bytes=bad)

"""The configuration file: precedence, errors, and its documentation."""

from pathlib import Path

import pytest

from scheduler.config import Config, load
from scheduler.config.section import Section
from scheduler.core.rate import Rate, RateUnit
from scheduler.core.settings import Cap
from scheduler.errors import StartError

DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "config.md"


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "fairlane.yaml"
    path.write_text(text)
    return path


def test_no_file_gives_two_classes_and_open_tenants() -> None:
    config = load(None, {}, {})
    assert [entry.name for entry in config.classes] == ["interactive", "background"]
    assert config.untagged_class == "interactive"
    settings = config.core_settings()
    assert settings.classes[0].wait_s == 0.022
    assert settings.for_tenant("anyone").max_in_flight == 64


def test_flags_win_over_file_over_environment_over_defaults(tmp_path: Path) -> None:
    path = write(tmp_path, "listen: {grpc: '127.0.0.1:2'}\nmodel_repository: from_file\n")
    environment = {"FAIRLANE_GRPC": "127.0.0.1:1", "FAIRLANE_HTTP": "127.0.0.1:11"}
    config = load(path, {"model_repository": "from_flag"}, environment)
    assert config.listen.grpc == "127.0.0.1:2"
    assert config.listen.http == "127.0.0.1:11"
    assert config.model_repository == Path("from_flag")
    assert load(path, {"listen": {"grpc": "127.0.0.1:3"}}, environment).listen.grpc == "127.0.0.1:3"


def test_tenant_settings_reach_the_core() -> None:
    acme = {"weight": 4, "rate_per_s": 2.5, "burst": 7, "model_caps": {"minilm": {"max_rows_in_flight": 8}}}
    config = load(None, {"tenants": {"acme": acme, "default": {"max_in_flight": 2, "rate_per_s": 2.5}}}, {})
    settings = config.core_settings()
    assert settings.for_tenant("acme").weight == 4
    assert settings.for_tenant("acme").rate == Rate(RateUnit.REQUESTS, 2.5, 7)
    assert settings.for_tenant("acme").model_caps == {"minilm": Cap(None, 8)}
    assert settings.for_tenant("other").max_in_flight == 2
    assert settings.for_tenant("other").rate == Rate(RateUnit.REQUESTS, 2.5, 2)


@pytest.mark.parametrize(
    ("about", "rate"),
    [
        ("rate_per_s: 0.5", Rate(RateUnit.REQUESTS, 0.5, 1)),
        ("rate_per_s: {requests: 3}", Rate(RateUnit.REQUESTS, 3, 3)),
        ("rate_per_s: {rows: 0.5}", Rate(RateUnit.ROWS, 0.5, 1)),
        ("rate_per_s: {rows: 100}, burst: 20", Rate(RateUnit.ROWS, 100, 20)),
        ("rate_per_s: {seconds: 0.5}", Rate(RateUnit.SECONDS, 0.5, 0.5)),
        ("rate_per_s: {seconds: 0.5}, burst: 2.5", Rate(RateUnit.SECONDS, 0.5, 2.5)),
        ("weight: 1", None),
    ],
)
def test_a_rate_is_of_requests_rows_or_seconds(tmp_path: Path, about: str, rate: Rate | None) -> None:
    settings = load(write(tmp_path, f"tenants: {{t: {{{about}}}}}"), {}, {}).core_settings()
    assert settings.for_tenant("t").rate == rate


def test_one_message_may_wait_unless_a_bound_is_set() -> None:
    large = {"limits": {"message_bytes": 2**29}, "tenants": {"small": {"max_queue_bytes": 9}, "any": {"weight": 2}}}
    core = Config.model_validate(large).core_settings()
    assert (core.queue_bytes, core.default_tenant.max_queue_bytes) == (2**29, 2**29)
    assert (core.tenants["small"].max_queue_bytes, core.tenants["any"].max_queue_bytes) == (9, 2**29)
    core = Config.model_validate({"limits": {"message_bytes": 2**29, "queue_bytes": 9}}).core_settings()
    assert core.queue_bytes == 9


def test_untagged_requests_are_never_an_unknown_name() -> None:
    assert "default" in load(None, {}, {}).core_settings().tenants


def test_classes_bounds_reach_the_core() -> None:
    classes = [{"name": "a", "strict": True, "max_queue_bytes": 9}, {"name": "b", "wait_ms": 20}]
    first, second = load(None, {"classes": classes, "limits": {"max_tenants": 7}}, {}).core_settings().classes
    assert (first.strict, first.max_queue_bytes, first.wait_s) == (True, 9, None)
    assert (second.strict, second.max_queue_bytes, second.wait_s) == (False, None, 0.02)


def test_the_number_of_tenants_told_apart_reaches_the_core() -> None:
    assert load(None, {"limits": {"max_tenants": 7}}, {}).core_settings().max_tenants == 7


def test_all_errors_are_reported_together_each_with_its_path(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "listen: {gprc: x}\nclasses: [{name: a, weight: -1}]\n"
        "tenants: {t: {max_in_flight: many}}\nlimits: {queue_bytes: 0}\n",
    )
    with pytest.raises(StartError) as caught:
        load(path, {}, {})
    message = str(caught.value)
    assert "4 error(s)" in message
    assert "listen.gprc: unknown key" in message
    assert "classes.0.weight: Input should be greater than or equal to 0.000001, got -1" in message
    assert "tenants.t.max_in_flight" in message
    assert "got 'many'" in message
    assert "limits.queue_bytes: Input should be greater than 0, got 0" in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("default_class: gold", "default_class: expected one of interactive, background, got 'gold'"),
        ("classes: [{name: a}, {name: a}]", "names must differ"),
        ("backends: [{name: b, grpc: x:1}, {name: b, grpc: y:1}]", "backends: names must differ"),
        (
            "backends: [{name: p, grpc: x:1, resolve: all}, {name: p/y:1, grpc: y:1}]",
            "backends: p/y:1 may be one of the addresses of p",
        ),
        ("backends: [{name: p, grpc: x:1, resolve: some}]", "backends.0.resolve: Input should be 'one' or 'all'"),
        ("classes: [{name: a}, {name: b, strict: true}]", "expected strict classes before all others"),
        ("tenants: {t: {burst: 3}}", "burst: expected rate_per_s beside it"),
        ("tenants: {t: {rate_per_s: 0}}", "rate_per_s.requests: Input should be greater than 0, got 0"),
        ("tenants: {t: {rate_per_s: many}}", "rate_per_s.requests: Input should be a valid number, .* got 'many'"),
        ("tenants: {t: {rate_per_s: {}}}", "rate_per_s: expected a number of requests, or exactly one of requests"),
        ("tenants: {t: {rate_per_s: {rows: 1, seconds: 1}}}", "rate_per_s: expected a number of requests, or exactly"),
        ("tenants: {t: {rate_per_s: {row: 1}}}", "rate_per_s.row: unknown key"),
        ("classes: []", "classes: expected at least one"),
        (
            "limits: {max_queued: 60000}",
            "limits: calls_per_connection: expected more than max_queued, .* got 50000 and max_queued 60000",
        ),
        ("tenants: {t: {weight: .inf}}", "tenants.t.weight: Input should be a finite number, got inf"),
        ("limits: {drain_s: .nan}", "limits.drain_s: Input should be"),
        ("limits: {message_bytes: 2147483648}", "limits.message_bytes: Input should be less than"),
        ("limits: {keepalive_s: 1.0e+9}", "limits.keepalive_s: Input should be less than"),
        ("limits: {idle_s: 1.0e+9}", "limits.idle_s: Input should be less than"),
        ("forward_headers: [Authorization]", "forward_headers.0: is never handed to models, .* got 'Authorization'"),
        ("forward_headers: [x-a, grpc-*]", "forward_headers.1: is never handed to models"),
        ("forward_headers: [x-a(b)]", "forward_headers.0: expected the name of a header or a shell pattern"),
        ("limits: {connection_age_s: 1.0e+9}", "limits.connection_age_s: Input should be less than"),
        ("limits: {connection_grace_s: 3}", "limits: connection_grace_s: expected connection_age_s beside it"),
        ("limits: {metadata_bytes: 99999999999}", "limits.metadata_bytes: Input should be less than"),
        ("limits: {calls_per_connection: 99999999999}", "limits.calls_per_connection: Input should be less than"),
        ("telemetry: {requests: 99999999999}", "telemetry.requests: Input should be less than"),
        ("listen: {grpc: localhost}", "listen.grpc: expected HOST:PORT, got 'localhost'"),
        ("listen: {http: '127.0.0.1:65536'}", "listen.http: expected HOST:PORT, got '127.0.0.1:65536'"),
        ("backends: [{name: b, grpc: ':8001'}]", "backends.0.grpc: expected HOST:PORT, got ':8001'"),
        ("- a list", "expected a mapping at the top, got list"),
        ("a: [", "not YAML"),
    ],
)
def test_inconsistent_file_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(StartError, match=words.replace("[", r"\[")):
        load(write(tmp_path, text), {}, {})


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="cannot be read: No such file"):
        load(tmp_path / "nope.yaml", {}, {})


def test_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(write(tmp_path, ""), {}, {}) == load(None, {}, {})


def test_every_field_is_documented() -> None:
    document = DOCUMENT.read_text()
    assert Config in Section.__subclasses__()
    fields = [(name, field) for each in Section.__subclasses__() for name, field in each.model_fields.items()]
    for name, field in fields:
        assert field.description, name
        assert f"{name}` |" in document, name
        assert field.description in document, name


@pytest.mark.parametrize("weight", ["0", "1e-7", "1e7", ".inf"])
@pytest.mark.parametrize("text", ["classes: [{{name: a, weight: {}}}]", "tenants: {{acme: {{weight: {}}}}}"])
def test_a_weight_is_one_that_virtual_time_can_keep(tmp_path: Path, text: str, weight: str) -> None:
    with pytest.raises(StartError, match="weight"):
        load(write(tmp_path, text.format(weight)), {}, {})


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--grpc-port=8001"], "--grpc-port: Fairlane sets this flag itself"),
        (["--model-repository", "/models"], "--model-repository: Fairlane sets"),
        (["--model-control-mode=poll"], "--model-control-mode: Fairlane sets"),
        (["--load-mod=x"], "--load-mod: Fairlane sets"),  # Triton takes a beginning for the whole
        (["--backend-config=python,shm-region-prefix-name=x"], "--backend-config: Fairlane sets"),
        (["--backend-config", "python,shm-region-prefix-name=x"], "in one piece"),
        (["--allow-sagemaker=true"], "--allow-sagemaker: Fairlane sets"),
        (["log-verbose=1"], "expected a flag as `--NAME=VALUE`, got 'log-verbose=1'"),
        (["--log-verbose=1", "2"], "got '2'"),
        (["--"], "Fairlane sets"),
    ],
)
def test_flags_of_triton_that_are_ours_are_refused(args: list[str], words: str) -> None:
    with pytest.raises(StartError) as caught:
        load(None, {"triton": {"args": args}}, {})
    assert "triton.args" in str(caught.value)
    assert words in str(caught.value)


def test_other_flags_of_triton_are_taken_and_stay_while_it_runs() -> None:
    args = ["--log-verbose=1", "--cache-config=local,size=1048576", "--http-thread-count", "4", "--allow-cpu-metrics=0"]
    config = load(None, {"triton": {"args": args}}, {})
    assert list(config.triton.args) == args
    assert config.reload_errors(load(None, {}, {})) == ["triton: cannot change while the service runs"]


@pytest.mark.parametrize(("given", "limits"), [("none", {}), ("null", {}), ("2.5", {"m": 2.5})])
def test_a_model_may_have_a_limit_of_its_own_or_none(tmp_path: Path, given: str, limits: dict[str, float]) -> None:
    file = tmp_path / "fairlane.yaml"
    file.write_text(f"models: {{m: {{hang_s: {given}}}}}\n")
    config = load(file, {}, {})
    assert config.core_settings().model_hang_s == limits
    assert Config().reload_errors(config) == []


def test_how_long_is_waited_for_can_be_reloaded_and_no_other_limit() -> None:
    changed = Config.model_validate({"limits": {"hang_s": 1, "outage_s": 2, "drain_s": 3}})
    assert Config().reload_errors(changed) == ["limits.drain_s: cannot change while the service runs"]

"""From a request and its metadata to class, tenant, deadline and id. docs/reference/protocol.md has the table."""

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from scheduler.config import Config
from scheduler.core.ticket import Step
from scheduler.edge.access import Access, AuthContext, printable_name
from scheduler.errors import denied, invalid, shown
from scheduler.triton.queue_policy import QueuePolicies

MICROSECONDS: Final = 1e-6
# A year: longer ones mean "no limit", and gRPC overflows on the largest.
LONGEST_TIMEOUT_S: Final = 365 * 86400.0
LONGEST_TIMEOUT_US: Final = 2**63 - 1
# As in Triton; thousands of them are kept for as long as their sequences are open.
SEQUENCE_ID_BYTES: Final = 128


class Caller(NamedTuple):
    """Who asks for what, apart from the tensors.

    Attributes:
        priority_class: a configured class.
        tenant: the unit of fairness.
        request_id: as given, empty where none was.
        timeout_s: seconds from now within which the answer must be there; None: no limit.
        admin: whether it administers the backends, and may name their memory.
        level: the parameter `priority`; 0 where it is not given.
    """

    priority_class: str
    tenant: str
    request_id: str
    timeout_s: float | None
    admin: bool
    level: int = 0


class Classifier:
    """Reads what a client says about itself, and checks that it may have what it asks for."""

    def __init__(self, config: Config, access: Access, queue_of: Callable[[str, str], QueuePolicies]) -> None:
        """Make a classifier.

        Args:
            config: which classes there are.
            access: who may use which.
            queue_of: the priority levels of a model, by its name and version.
        """
        self._classes = [entry.name for entry in config.classes]
        self._untagged = config.untagged_class
        self._access = access
        self._queue_of = queue_of

    def classify(
        self, request: Any, headers: Mapping[str, str], remaining_s: float | None, auth_context: AuthContext
    ) -> Caller:
        """Tell who asks.

        Args:
            request: a `ModelInferRequest`.
            headers: the call's metadata.
            remaining_s: what is left of the client's gRPC deadline, None where it set none.
            auth_context: what the transport knows of the peer.

        Raises:
            RequestError: INVALID_ARGUMENT, for an unknown class or an unusable name; UNAUTHENTICATED or
                PERMISSION_DENIED, for a caller that is unknown or may not use the class or the model.
        """
        tenant = self._access.identify(headers, auth_context)
        self._access.check_model(tenant, request.model_name)
        request_id = request.id
        if not request_id and "x-request-id" in headers:
            request_id = printable_name(headers["x-request-id"], "x-request-id")
        return Caller(
            self._class_of(request, headers, tenant),
            tenant,
            request_id,
            _sooner(remaining_s, _timeout_s(request)),
            self._access.rights(tenant).admin,
            _integer(request, "priority"),
        )

    def _class_of(self, request: Any, headers: Mapping[str, str], tenant: str) -> str:
        asked = self._asked_class(request, headers)
        permitted = self._access.rights(tenant).classes
        if permitted is None or asked in permitted:
            return asked or self._untagged
        if asked:
            raise denied(
                tenant, f"tenant {tenant} may not use class {asked}; it may use {', '.join(sorted(permitted))}"
            )
        if self._untagged in permitted:
            return self._untagged
        return next(name for name in self._classes if name in permitted)

    def _asked_class(self, request: Any, headers: Mapping[str, str]) -> str:
        """The class that the request names, empty where it names none."""
        if "x-priority" in headers:
            return self._named(headers["x-priority"], "x-priority")
        level = _integer(request, "priority")
        if level:
            return self._classes[self._rank_of(level, self._queue_of(request.model_name, request.model_version))]
        if "x-llm-d-inference-objective" in headers:
            return self._named(headers["x-llm-d-inference-objective"], "x-llm-d-inference-objective")
        return ""

    def _rank_of(self, level: int, queue: QueuePolicies) -> int:
        """The rank of a class for a priority level, of which 1 is the most important, as in Triton."""
        if not queue.levels:
            return min(level, len(self._classes)) - 1  # what lies beyond the last class is of the last
        # A model's own levels are spread over the classes: 1 to 5 of 10 are the first of two.
        return max(0, queue.level_of(level) - 1) * len(self._classes) // queue.levels

    def _named(self, name: str, header: str) -> str:
        if name not in self._classes:
            raise invalid(f"{header}: unknown class {shown(name)}; expected one of {', '.join(self._classes)}")
        return name


def step_of(request: Any, idle_s: float, *, pipelined: bool) -> Step | None:
    """What makes a request to a stateful model a step of a sequence; None where it names none, as Triton will say.

    Raises:
        RequestError: INVALID_ARGUMENT, for a parameter of another type than Triton takes, or an id that is too long.
    """
    if "sequence_id" not in request.parameters:
        return None
    parameter = request.parameters["sequence_id"]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param", "string_param"}:
        raise invalid(
            f"parameter 'sequence_id': expected int64_param, uint64_param or string_param, got {kind or 'nothing'}"
        )
    given = getattr(parameter, kind)
    if not given:
        return None
    if kind == "string_param" and len(given.encode()) > SEQUENCE_ID_BYTES:
        raise invalid(f"parameter 'sequence_id': expected at most {SEQUENCE_ID_BYTES} bytes, got {len(given.encode())}")
    return Step(
        sequence_id=repr((request.model_version, given)),
        start=flag(request, "sequence_start"),
        end=flag(request, "sequence_end"),
        idle_s=idle_s,
        pipelined=pipelined,
    )


def flag(request: Any, name: str) -> bool:
    """A request parameter that is true or false; False where it is absent.

    Raises:
        RequestError: INVALID_ARGUMENT, for one of another type.
    """
    if name not in request.parameters:
        return False
    kind = request.parameters[name].WhichOneof("parameter_choice")
    if kind != "bool_param":
        raise invalid(f"parameter {name!r}: expected bool_param, got {kind or 'nothing'}")
    return bool(request.parameters[name].bool_param)


def _timeout_s(request: Any) -> float | None:
    """The parameter `timeout`; Triton takes it as int64 alone, and is given it so where it came as uint64."""
    timeout_us = _integer(request, "timeout")
    if timeout_us and request.parameters["timeout"].HasField("uint64_param"):
        request.parameters["timeout"].int64_param = min(timeout_us, LONGEST_TIMEOUT_US)
    return timeout_us * MICROSECONDS if timeout_us else None


def _integer(request: Any, name: str) -> int:
    """A request parameter that Triton takes as int64 or uint64; 0 where it is absent."""
    parameters = request.parameters
    if not parameters or name not in parameters:
        return 0
    parameter = parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise invalid(f"parameter {name!r}: expected int64_param or uint64_param, got {kind or 'nothing'}")
    value: int = getattr(parameter, kind)
    if value < 0:
        raise invalid(f"parameter {name!r}: expected a value of at least 0, got {value}")
    return value


def _sooner(*timeouts_s: float | None) -> float | None:
    limits = [each for each in timeouts_s if each is not None and each <= LONGEST_TIMEOUT_S]
    return min(limits) if limits else None

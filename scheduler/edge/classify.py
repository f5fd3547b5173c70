"""From a request and its metadata to class, tenant, deadline and id. docs/protocol.md has the table."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from scheduler.config import Config
from scheduler.errors import invalid

DEFAULT_TENANT: Final = "default"
# Names come from outside and end in logs and metrics.
NAME_LENGTH: Final = 128
TENANT_HEADERS: Final = ("x-tenant-id", "x-llm-d-inference-fairness-id")
MICROSECONDS: Final = 1e-6
# A year: longer ones mean "no limit", and gRPC overflows on the largest.
LONGEST_TIMEOUT_S: Final = 365 * 86400.0


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks for what, apart from the tensors.

    Attributes:
        priority_class: a configured class.
        tenant: the unit of fairness.
        request_id: as given, empty where none was.
        timeout_s: seconds from now within which the answer must be there; None: no limit.
    """

    priority_class: str
    tenant: str
    request_id: str
    timeout_s: float | None


class Classifier:
    """Reads what a client says about itself."""

    def __init__(self, config: Config) -> None:
        self._classes = [entry.name for entry in config.classes]
        self._untagged = config.untagged_class

    def classify(
        self, request: Any, metadata: Iterable[tuple[str, str | bytes]] | None, remaining_s: float | None
    ) -> Caller:
        """Tell who asks.

        Args:
            request: a `ModelInferRequest`.
            metadata: the call's metadata.
            remaining_s: what is left of the client's gRPC deadline, None where it set none.

        Raises:
            RequestError: INVALID_ARGUMENT, for an unknown class or an unusable name.
        """
        headers = {key: value for key, value in metadata or () if isinstance(value, str)}
        return Caller(
            priority_class=self._class_of(request, headers),
            tenant=_tenant_of(headers),
            request_id=request.id or _name(headers.get("x-request-id", ""), "x-request-id"),
            timeout_s=_sooner(remaining_s, _timeout_s(request)),
        )

    def _class_of(self, request: Any, headers: dict[str, str]) -> str:
        if "x-priority" in headers:
            return self._named(headers["x-priority"], "x-priority")
        level = _integer(request, "priority")
        if level:
            # As in Triton 1 is the most important; what lies beyond the last level is the last.
            return self._classes[min(level, len(self._classes)) - 1]
        if "x-llm-d-inference-objective" in headers:
            return self._named(headers["x-llm-d-inference-objective"], "x-llm-d-inference-objective")
        return self._untagged

    def _named(self, name: str, header: str) -> str:
        if name not in self._classes:
            raise invalid(f"{header}: unknown class {name[:NAME_LENGTH]!r}; expected one of {', '.join(self._classes)}")
        return name


def _tenant_of(headers: dict[str, str]) -> str:
    for header in TENANT_HEADERS:
        if headers.get(header):
            return _name(headers[header], header)
    return DEFAULT_TENANT


def _name(value: str, header: str) -> str:
    if len(value) > NAME_LENGTH or not value.isprintable():
        raise invalid(
            f"{header}: expected at most {NAME_LENGTH} printable characters, "
            f"got {len(value)} characters{'' if value.isprintable() else ', some not printable'}"
        )
    return value


def _timeout_s(request: Any) -> float | None:
    timeout_us = _integer(request, "timeout")
    return timeout_us * MICROSECONDS if timeout_us else None


def _integer(request: Any, name: str) -> int:
    """A request parameter that Triton takes as int64 or uint64; 0 where it is absent."""
    if name not in request.parameters:
        return 0
    parameter = request.parameters[name]
    kind = parameter.WhichOneof("parameter_choice")
    if kind not in {"int64_param", "uint64_param"}:
        raise invalid(f"parameter {name!r}: expected int64_param or uint64_param, got {kind or 'nothing'}")
    value: int = getattr(parameter, kind)
    if value < 0:
        raise invalid(f"parameter {name!r}: expected a value of at least 0, got {value}")
    return value


def _sooner(*timeouts_s: float | None) -> float | None:
    return min((each for each in timeouts_s if each is not None and each <= LONGEST_TIMEOUT_S), default=None)

"""Errors that end a command with one clear sentence, and errors that end a request with a gRPC status."""

from typing import Final

import grpc

from scheduler.core.outcome import Outcome

MODEL_NOT_LOADED: Final = "MODEL_NOT_LOADED"
# About as long as a Triton needs to start.
NO_BACKEND_PUSHBACK_S: Final = 2.0


# As much of a name from outside as an error tells: quoting one of 64 MiB takes longer than reading it.
SHOWN_LENGTH: Final = 128


def shown(name: str) -> str:
    """A name that came from outside, quoted."""
    return repr(name[:SHOWN_LENGTH])


class StartError(RuntimeError):
    """The service cannot start; the message says what is wrong and what to do."""


class RequestError(Exception):
    """A request is refused before it is queued, for a reason of its own.

    Attributes:
        code: the gRPC status code of the answer.
        reason: from the closed list of reasons in docs/reference/protocol.md.
        pushback_s: seconds after which to come again; None where that cannot help.
        tenant: whom access was refused, empty where nobody known asks.
    """

    def __init__(
        self, code: grpc.StatusCode, reason: str, message: str, pushback_s: float | None = None, tenant: str = ""
    ) -> None:
        super().__init__(message)
        self.tenant = tenant
        self.code = code
        self.reason = reason
        self.pushback_s = pushback_s


def invalid(message: str) -> RequestError:
    """INVALID_ARGUMENT: the message names what was wrong, what was expected and what came."""
    return RequestError(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", message)


def unknown_model(message: str) -> RequestError:
    """NOT_FOUND: no ready backend serves this model, or not this version."""
    return RequestError(grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL", message)


def no_backend(message: str) -> RequestError:
    """UNAVAILABLE: nothing answers right now."""
    return RequestError(grpc.StatusCode.UNAVAILABLE, Outcome.NO_BACKEND.name, message, NO_BACKEND_PUSHBACK_S)


def not_loaded(model: str, why: str, *, loading: bool) -> RequestError:
    """UNAVAILABLE: a backend has the model and does not serve it, for a reason of its own.

    Args:
        model: its name.
        why: it is not served.
        loading: whether it may be in a while; else coming again does not help.
    """
    pushback_s = NO_BACKEND_PUSHBACK_S if loading else None
    return RequestError(
        grpc.StatusCode.UNAVAILABLE, MODEL_NOT_LOADED, f"model {model} is not loaded: {why}", pushback_s
    )


def unauthenticated(message: str) -> RequestError:
    """UNAUTHENTICATED: nobody known asks."""
    return RequestError(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", message)


def denied(tenant: str, message: str) -> RequestError:
    """PERMISSION_DENIED: the tenant is known, and may not do this."""
    return RequestError(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED", message, tenant=tenant)


def unsupported(message: str) -> RequestError:
    """UNIMPLEMENTED: it cannot be done with the backends as they are; the message says why."""
    return RequestError(grpc.StatusCode.UNIMPLEMENTED, "UNSUPPORTED", message)

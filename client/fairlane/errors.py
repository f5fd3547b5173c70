"""Every way a call can end other than well: one hierarchy, rooted at `FairlaneError`."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of the call an error ended; None where the caller did not say."""

    model: str | None = None
    request_id: str | None = None
    tenant: str | None = None
    priority: str | None = None


class FairlaneError(Exception):
    """Root of all errors of this package.

    Attributes:
        message: what was wrong, in the server's words where the server said it.
        code: name of the gRPC status, for example "RESOURCE_EXHAUSTED".
        reason: why the scheduler said no, from its closed list ("QUEUE_FULL", "DEADLINE_EXPIRED", ...);
            None where the scheduler gave no reason, as when the backend itself failed.
        retry_after_s: seconds after which the server asks to come again; only ever set on `Overloaded` and
            `Unavailable`, and None there where the server named no time or asked not to come again.
        attempts: how often the call was sent; 0 where it never left this process.
        model, request_id, tenant, priority: of the call that ended; None where unknown.
    """

    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        reason: str | None = None,
        retry_after_s: float | None = None,
        labels: Labels | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.retry_after_s = retry_after_s
        self.about(labels or Labels())

    def about(self, labels: Labels, *, attempts: int = 0) -> Self:
        """Say which call this error ended, and how often that had been sent."""
        self.model = labels.model
        self.request_id = labels.request_id
        self.tenant = labels.tenant
        self.priority = labels.priority
        self.attempts = attempts
        return self

    def __str__(self) -> str:
        """Message, then what is known of the call in brackets."""
        facts = [self.reason or self.code]
        facts += [
            f"{name} {value}"
            for name in ("model", "priority", "tenant", "request_id")
            if (value := getattr(self, name))
        ]
        if self.retry_after_s is not None:
            facts.append(f"retry after {self.retry_after_s:g} s")
        return f"{self.message} [{', '.join(facts)}]"


class Overloaded(FairlaneError):
    """There was no room: a queue was full, a rate was exceeded, or a more important request took the place."""

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(FairlaneError):
    """The answer did not come, or could not have come, within `timeout_s`."""

    code = "DEADLINE_EXCEEDED"


class InvalidRequest(FairlaneError):
    """The request can not be served as it is: dtype, shape, input name, size, unknown class."""

    code = "INVALID_ARGUMENT"


class MessageTooLarge(InvalidRequest):
    """The request or its answer is larger than a message may be; the message says which, and what to do.

    Attributes:
        size_bytes: of the message; None where the server did not say.
        limit_bytes: what it may have; None where the server did not say.
    """

    size_bytes: int | None = None
    limit_bytes: int | None = None


class ModelNotFound(FairlaneError):
    """No such model, or no such version of it."""

    code = "NOT_FOUND"


class Unavailable(FairlaneError):
    """Nothing answers, or the server has no backend ready or is draining.

    Attributes:
        never_sent: True where no connection could be made, so no server can have seen the request.
    """

    code = "UNAVAILABLE"
    never_sent = False


class Unauthenticated(FairlaneError):
    """No API key, or one the server does not know."""

    code = "UNAUTHENTICATED"


class PermissionDenied(FairlaneError):
    """The key is good, but this tenant may not use this model or class."""

    code = "PERMISSION_DENIED"


class Cancelled(FairlaneError):
    """The call was cancelled: by the server, or because the client was closed under it."""

    code = "CANCELLED"


class BackendError(FairlaneError):
    """The model failed on this request, or answered what can not be read."""

    code = "INTERNAL"


class ClientClosed(FairlaneError):
    """The client was used after `close()`."""

    code = "CANCELLED"

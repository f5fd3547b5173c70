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

        try:
            result = client.infer("digits", {"image": image}, timeout_s=1.0)
        except fairlane.Overloaded as error:
            print(error.reason, error.retry_after_s)  # QUEUE_FULL 1.2
        except fairlane.FairlaneError as error:
            print(error)

    Attributes:
        message: What was wrong. It has the server's words if the server said it.
        code: Name of the gRPC status, for example "RESOURCE_EXHAUSTED".
        reason: Why the scheduler refused, from its closed list ("QUEUE_FULL", "DEADLINE_EXPIRED", ...). None if
            the scheduler gave no reason, for example because the backend failed.
        retry_after_s: Seconds after which the server asks to come again. Only `Overloaded` and `Unavailable` have it.
            None if the server named no time, or asked not to come again.
        attempts: How often the call was sent. 0 if it never left this process.
        model: Model of the call. None if unknown.
        request_id: Id of the call. None if unknown.
        tenant: Tenant of the call. None if unknown.
        priority: Class of the call. None if unknown.
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
    """The server had no room: a queue was full, a rate was exceeded, or a more important request took the place.

    Send it again after `retry_after_s` seconds.
    """

    code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(FairlaneError):
    """The answer did not come within `timeout_s` seconds, or could not have come."""

    code = "DEADLINE_EXCEEDED"


class InvalidRequest(FairlaneError):
    """The request cannot be served as it is: a wrong dtype, shape, input name or size, or an unknown class.

    The message names the input, what was expected and what came. Sending it again does not help.
    """

    code = "INVALID_ARGUMENT"


class MessageTooLarge(InvalidRequest):
    """The request or its answer is larger than a message may be. `message` says which, and what to do.

    Attributes:
        size_bytes: Size of the message in bytes. None if the server did not say.
        limit_bytes: The limit in bytes. None if the server did not say.
    """

    size_bytes: int | None = None
    limit_bytes: int | None = None


class ModelNotFound(FairlaneError):
    """The server has no such model, or no such version of it."""

    code = "NOT_FOUND"


class Unavailable(FairlaneError):
    """Nothing answers, the server has no ready backend, or it is shutting down.

    Attributes:
        never_sent: True if no connection could be made. Then no server has seen the request.
    """

    code = "UNAVAILABLE"
    never_sent = False


class Unauthenticated(FairlaneError):
    """The call had no API key, or one that the server does not know."""

    code = "UNAUTHENTICATED"


class PermissionDenied(FairlaneError):
    """The key is known, but this tenant may not use this model or class."""

    code = "PERMISSION_DENIED"


class Cancelled(FairlaneError):
    """The call was cancelled by the server, or the client was closed during it."""

    code = "CANCELLED"


class BackendError(FairlaneError):
    """The model failed on this request, or its answer cannot be read."""

    code = "INTERNAL"


class ClientClosed(FairlaneError):
    """The client was used after `close()`."""

    code = "CANCELLED"

"""From a request whose caller is known to a call with a ticket, ready to be queued."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any, Final

from scheduler.config import Config
from scheduler.core.ticket import Step, Ticket
from scheduler.driver import Driver
from scheduler.edge.classify import Caller, flag, step_of
from scheduler.edge.cost import Costs
from scheduler.edge.merge_check import MergeChecks
from scheduler.edge.paddings import Paddings
from scheduler.edge.shape import Shape, Shapes
from scheduler.errors import denied, invalid, unsupported
from scheduler.telemetry.hooks import Header, Telemetry
from scheduler.triton.decoupled import EMPTY_FINAL, ResponseStream
from scheduler.triton.forwarded import FORWARDED_BYTES, ForwardedHeaders, size_bytes
from scheduler.triton.pool import Call, Pool
from scheduler.triton.spec import ModelSpec
from scheduler.triton.typed_contents import make_raw

# Of the hash of a request's forwarded headers, in its merge key: they may be much longer than that.
DIGEST_BYTES: Final = 16


class Intake:
    """Checks requests, and makes their tickets.

    Args:
        config: which models merge, and for whom.
        driver: numbers the tickets, and has the clock.
        pool: the backends; with several of them some requests cannot be served.
        telemetry: hears of each valid request.
        checks: which models may not be merged after all.
    """

    def __init__(
        self, config: Config, driver: Driver[Call, Any], pool: Pool, telemetry: Telemetry, checks: MergeChecks
    ) -> None:
        self._driver = driver
        self._pool = pool
        self._telemetry = telemetry
        self._checks = checks
        self._shapes = Shapes()
        self._paddings = Paddings(config)
        self._costs = Costs(config)
        self._forwarded = ForwardedHeaders(config.forward_headers)
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Go on with these settings of models."""
        self._config = config
        self._paddings.configure(config)
        self._costs.configure(config)

    def call(
        self,
        request: Any,
        caller: Caller,
        spec: ModelSpec,
        metadata: Iterable[Header],
        responses: ResponseStream | None,
        arrived: float,
    ) -> Call:
        """Make the call of a `ModelInferRequest`.

        Args:
            request: the message.
            caller: who asks.
            spec: the model.
            metadata: as it came with the call.
            responses: where a decoupled model's responses go.
            arrived: when the request was seen, monotonic seconds.

        Raises:
            RequestError: the request does not fit its model, cannot be served by several backends, names memory
                that is not the caller's, or has too much to be handed to the model in its headers.
        """
        if spec.decoupled:
            flag(request, EMPTY_FINAL)  # to be of its type, as in Triton: the call to it sets it
        if spec.mergeable:
            make_raw(request, spec)
        request_bytes = request.ByteSize()
        shape = self._shapes.of(request, spec, request_bytes, self._paddings.of(spec))
        headers = self._forwarded.of(metadata)
        if headers:
            request_bytes += _checked_bytes(headers)
        if shape.merge_key is None:
            self._check_shared_memory(request, spec, caller)
        step = self._step(request, spec, streamed=responses is not None)
        ticket = Ticket(
            ticket_id=self._driver.next_ticket_id(),
            priority_class=caller.priority_class,
            tenant=caller.tenant,
            model=spec.name,
            rows=shape.rows,
            queue_bytes=request_bytes,
            merge_key=_with_headers(self._merge_key(shape, spec, caller), headers),
            # What may not be merged here is not handed to Triton's batcher together either.
            join_key=shape.join_key if self._config.merges(spec.name) and not self._checks.stopped(spec.name) else None,
            latency_key=shape.latency_key,
            deadline=None if caller.timeout_s is None else arrived + caller.timeout_s,
            step=step,
            cost=self._costs.of(request, spec),
            policy=None if step is not None else spec.queue.policy_of(caller.level),
        )
        call = Call(request, ticket, self._driver.now(), responses if spec.decoupled else None, headers, shape.padding)
        self._telemetry.received(
            ticket, request_id=caller.request_id, headers=metadata, arrived=arrived, now=call.queued_at
        )
        return call

    def _check_shared_memory(self, request: Any, spec: ModelSpec, caller: Caller) -> None:
        """Refuse a region to who may not name it, and where only one of several backends has it."""
        for tensor in (*request.inputs, *request.outputs):
            if "shared_memory_region" not in tensor.parameters:
                continue
            if not caller.admin:
                # Triton asks for a region's name alone: whoever has that may read and write what is another's.
                raise denied(
                    caller.tenant,
                    f"model {spec.name}, {tensor.name}: shared memory: expected a tenant with `admin: true`, "
                    f"got {caller.tenant}",
                )
            if len(self._pool.names()) > 1:
                raise unsupported(
                    f"model {spec.name}, {tensor.name}: shared memory is registered with one backend, and there are "
                    "several; it needs exactly one"
                )

    def _step(self, request: Any, spec: ModelSpec, *, streamed: bool) -> Step | None:
        return None if spec.sequence_idle_s is None else step_of(request, spec.sequence_idle_s, pipelined=streamed)

    def _merge_key(self, shape: Shape, spec: ModelSpec, caller: Caller) -> str | None:
        """The key under which the request may be merged: with its own tenant's, or with everybody's."""
        key = shape.merge_key
        if key is None or not self._config.merges(spec.name):
            return None
        told = self._config.batch_invariant(spec.name)
        invariant = spec.batch_invariant if told is None else told
        if not self._checks.merges(spec, claimed=invariant):
            return None
        if invariant:
            return key
        # Where answers depend on what else is in the batch, one tenant's words must not change another's answer.
        return f"{caller.tenant!r} {key}"


def _checked_bytes(headers: tuple[tuple[str, str], ...]) -> int:
    """What the forwarded headers take while the request waits; INVALID_ARGUMENT where it is too much."""
    taken = size_bytes(headers)
    if taken > FORWARDED_BYTES:
        names = ", ".join(sorted({key for key, _ in headers}))
        raise invalid(
            f"forward_headers: expected at most {FORWARDED_BYTES} bytes of headers, got {taken}: {names[:256]}"
        )
    return taken


def _with_headers(merge_key: str | None, headers: tuple[tuple[str, str], ...]) -> str | None:
    """The merge key of a request whose headers go to the model: a batch has one value of each."""
    if merge_key is None or not headers:
        return merge_key
    return f"{blake2b(repr(headers).encode(), digest_size=DIGEST_BYTES).hexdigest()} {merge_key}"

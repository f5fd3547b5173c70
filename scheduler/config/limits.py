"""The bounds of the whole process."""

from typing import Final, Self

from pydantic import Field, model_validator

from scheduler.config.section import Section

# More clients than most services have at a time; each invented name gains a request ahead of its turn.
MAX_TENANTS: Final = 1000
MAX_QUEUED: Final = 40_000
# A few hundred bytes each, and more than the sequence slots of most backends.
MAX_SEQUENCES: Final = 10_000
# 256 MiB of waiting tensors, whatever the number of requests.
QUEUE_BYTES: Final = 256 * 1024 * 1024
# Each is asked every second what it serves.
BACKENDS_PER_NAME: Final = 64
# Triton's own client defaults to no bound, gRPC to 4 MiB; 64 MiB holds a batch of images.
MESSAGE_BYTES: Final = 64 * 1024 * 1024
# Long enough for accepted work on a CPU, short of the 30 s after which orchestrators kill.
DRAIN_S: Final = 20.0
# Several times what a message of the largest size takes; then it is worth a question, and a line in the log.
HANG_S: Final = 10.0
# A slow probe, a restart of a server of small models or a failover; longer ones are for clients to decide.
OUTAGE_S: Final = 30.0
# Triton's and gRPC's own clients send less than 1 KiB; a trace context and a token fit easily.
METADATA_BYTES: Final = 16 * 1024
# Calls that one connection may have open, a bound on what a peer makes us hold. Above what may wait in all: gRPC resets
# calls beyond it (UNAVAILABLE, no pushback) before they are seen here, and a full queue has to be told as such.
CALLS_PER_CONNECTION: Final = 50_000
# A stream keeps an instance busy with these, and one that is not read from holds no more. With 128, what a stream sends
# at once was felt by others (`python -m bench.attack slow-readers`).
REQUESTS_PER_STREAM: Final = 32
# A peer that vanished without a word is found within a minute.
KEEPALIVE_S: Final = 40.0
# Long enough that a client that calls now and then keeps its connection.
IDLE_S: Final = 1800.0
# gRPC keeps its settings in 32 bits, and times as milliseconds.
GRPC_MOST: Final = 2**31 - 1
GRPC_LONGEST_S: Final = GRPC_MOST // 1000


class Limits(Section):
    """Bounds of the whole process."""

    max_queued: int = Field(default=MAX_QUEUED, gt=0, description="Waiting requests in all, at most.")
    max_tenants: int = Field(
        default=MAX_TENANTS,
        gt=0,
        description="Tenants without an entry told apart at a time; those beyond share one place.",
    )
    queue_bytes: int = Field(
        default=QUEUE_BYTES,
        gt=0,
        description="Bytes of waiting tensors in all, at most; not set: no less than `limits.message_bytes`.",
    )
    max_sequences: int = Field(
        default=MAX_SEQUENCES,
        gt=0,
        description="Stateful sequences known at a time, at most; a tenant may start one while it has fewer than there "
        "is room left for, so half of them where it is alone.",
    )
    backends_per_name: int = Field(
        default=BACKENDS_PER_NAME,
        gt=0,
        description="Backends that one name becomes with `resolve: all`, at most; further addresses are left out.",
    )
    message_bytes: int = Field(
        default=MESSAGE_BYTES, gt=0, le=GRPC_MOST, description="Bytes of one gRPC message, at most."
    )
    drain_s: float = Field(default=DRAIN_S, ge=0, description="Seconds to finish accepted requests when stopping.")
    hang_s: float = Field(
        default=HANG_S,
        gt=0,
        description="Seconds without an answer before which no batch is overdue, and ten times its usual time where "
        "that is more; then its server is asked. It is waited for while that lives, or up to `models.NAME.hang_s`.",
    )
    outage_s: float = Field(
        default=OUTAGE_S,
        ge=0,
        description="Seconds for which requests wait for a model whose backends were ready and are not any more, "
        "before they end as `NO_BACKEND`.",
    )
    metadata_bytes: int = Field(
        default=METADATA_BYTES,
        ge=1024,
        le=GRPC_MOST,
        description="Bytes of one call's metadata, at most; gRPC refuses more.",
    )
    calls_per_connection: int = Field(
        default=CALLS_PER_CONNECTION,
        gt=0,
        le=GRPC_MOST,
        description="Open calls of one connection, at most, above `limits.max_queued`; gRPC resets those beyond.",
    )
    requests_per_stream: int = Field(
        default=REQUESTS_PER_STREAM,
        gt=0,
        description="Requests of one stream taken in before their answers have left, at most; the next is not read.",
    )
    keepalive_s: float = Field(
        default=KEEPALIVE_S,
        gt=0,
        le=GRPC_LONGEST_S,
        description="Seconds of silence after which a connection is asked for a sign of life.",
    )
    idle_s: float = Field(
        default=IDLE_S,
        gt=0,
        le=GRPC_LONGEST_S,
        description="Seconds after which a connection without calls is closed; clients reconnect.",
    )

    connection_age_s: float | None = Field(
        default=None,
        gt=0,
        le=GRPC_LONGEST_S,
        description="Seconds after which a client's connection is told to end, so that it connects anew, as a load "
        "balancer spreads it; a tenth more or less by chance; not set: never.",
    )
    connection_grace_s: float | None = Field(
        default=None,
        gt=0,
        le=GRPC_LONGEST_S,
        description="Seconds that calls of such a connection have to end, before it is cut; not set: as long as they "
        "take.",
    )

    @property
    def most_queue_bytes(self) -> int:
        """Bytes of waiting tensors in all, at most; one message may wait where nothing is set."""
        return self.queue_bytes if "queue_bytes" in self.model_fields_set else max(QUEUE_BYTES, self.message_bytes)

    @model_validator(mode="after")
    def _grace_of_an_age(self) -> Self:
        if self.connection_grace_s is not None and self.connection_age_s is None:
            raise ValueError("connection_grace_s: expected connection_age_s beside it")
        return self

    @model_validator(mode="after")
    def _refused_before_reset(self) -> Self:
        if self.calls_per_connection <= self.max_queued:
            raise ValueError(
                f"calls_per_connection: expected more than max_queued, so that a full queue is told before gRPC resets "
                f"calls; got {self.calls_per_connection} and max_queued {self.max_queued}"
            )
        return self

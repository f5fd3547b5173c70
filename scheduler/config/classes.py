"""The priority classes."""

from typing import Final

from pydantic import Field

from scheduler.config.section import Section
from scheduler.config.weight import Weight
from scheduler.core.settings import ClassSettings

# Background keeps a trickle of 1/17 of the service while interactive traffic is backlogged.
INTERACTIVE_WEIGHT: Final = 16
# A person does not notice 22 ms; it allows background batches of several rows on a CPU.
INTERACTIVE_WAIT_MS: Final = 22
# More interactive requests than this cannot be answered while someone still looks at the screen.
INTERACTIVE_QUEUED: Final = 1024
# A background queue is there to keep instances busy; jobs beyond it come back after the pushback.
BACKGROUND_QUEUED: Final = 20_000


class ClassConfig(Section):
    """A priority class."""

    name: str = Field(description="As in `x-priority`.", min_length=1)
    weight: Weight = Field(default=1, description="Share of service time while all classes are backlogged.")
    wait_ms: float | None = Field(
        default=None,
        gt=0,
        description="How long a request may wait for its own and lesser classes' batches at Triton; bounds their size.",
    )
    max_queued: int = Field(default=BACKGROUND_QUEUED, gt=0, description="Waiting requests of the class, at most.")
    max_queue_bytes: int | None = Field(
        default=None, gt=0, description="Bytes of the class's waiting tensors, at most; not set: `limits.queue_bytes`."
    )
    strict: bool = Field(
        default=False,
        description="Whether it always goes before every lesser class, which may then starve. Above it only "
        "other strict classes are allowed.",
    )

    def core(self) -> ClassSettings:
        """The class as the core reads it."""
        return ClassSettings(
            name=self.name,
            weight=self.weight,
            max_queued=self.max_queued,
            wait_s=None if self.wait_ms is None else self.wait_ms / 1000,
            max_queue_bytes=self.max_queue_bytes,
            strict=self.strict,
        )


def default_classes() -> tuple[ClassConfig, ...]:
    """Two classes, for where no file says otherwise."""
    return (
        ClassConfig(
            name="interactive",
            weight=INTERACTIVE_WEIGHT,
            wait_ms=INTERACTIVE_WAIT_MS,
            max_queued=INTERACTIVE_QUEUED,
        ),
        ClassConfig(name="background", weight=1, max_queued=BACKGROUND_QUEUED),
    )

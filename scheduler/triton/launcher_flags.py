"""The flags that an embedded tritonserver is started with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scheduler.triton.model_folder import folders

LOOPBACK: Final = "127.0.0.1"
EXIT_TIMEOUT_S: Final = 8  # what Triton itself gives requests in flight; below stop()'s default, its own end is tidier
# Models that load at a time, at most. One that never finishes keeps its thread for good.
LOAD_THREADS: Final = 32


@dataclass(frozen=True, slots=True)
class Serving:
    """What a tritonserver serves, and how.

    Attributes:
        repository: of its models.
        args: further flags; where they name one of ours that may be changed, theirs holds.
        with_models: whether it loads every model at its start, and ends where one does not load; else it starts
            without any, and whoever started it loads them.
    """

    repository: Path
    args: Sequence[str] = ()
    with_models: bool = True

    def flags(self, name: str, backends: Path, caches: Path, ports: tuple[int, int, int]) -> list[str]:
        """All flags, in order.

        Args:
            name: the server's id, and the start of its shared memory's names.
            backends: directory of backends.
            caches: directory of response caches.
            ports: gRPC, HTTP and metrics.
        """
        kinds = zip(("grpc", "http", "metrics"), ports, strict=True)
        listen = [
            f"--{kind}-{key}={value}" for kind, port in kinds for key, value in (("address", LOOPBACK), ("port", port))
        ]
        given = {arg[2:].partition("=")[0] for arg in self.args}
        return [
            *listen,
            f"--id={name}",
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            "--model-control-mode=explicit",
            *self._models(given),
            f"--backend-config=python,shm-region-prefix-name={name}_",
            f"--exit-timeout-secs={EXIT_TIMEOUT_S}",
            *([] if "cache-directory" in given else [f"--cache-directory={caches}"]),
            *self.args,
        ]

    def _models(self, given: set[str]) -> list[str]:
        flags = ["--load-model=*"] if self.with_models else []
        if not self.with_models and "model-load-thread-count" not in given:
            flags.append(f"--model-load-thread-count={LOAD_THREADS}")
        # Completion starts every model's stub twice: 1.5 s per load, where all configurations are complete.
        if not any(folder.incomplete for folder in folders(self.repository)):
            flags.append("--disable-auto-complete-config")
        return flags

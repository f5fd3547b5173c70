"""What the figures were measured on."""

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

PACKAGES: Final = ("fairlane-server", "grpcio", "protobuf", "numpy", "onnxruntime", "tritonclient")


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Processor, cores this process may use, kernel, package versions, and the date (ISO 8601, UTC)."""

    cpu: str
    cores: int
    kernel: str
    python: str
    versions: dict[str, str]
    date: str

    @classmethod
    def here(cls) -> "Machine":
        """The machine this runs on, now."""
        return cls(
            cpu=_cpu_name(),
            cores=len(os.sched_getaffinity(0)),
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            versions={name: _version(name) for name in PACKAGES},
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"

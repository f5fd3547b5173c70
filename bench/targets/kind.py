"""The kinds of targets that a scenario may name."""

from enum import StrEnum


class TargetKind(StrEnum):
    """Where load may be sent."""

    TRITON = "triton"
    PRIORITIES = "triton-priorities"
    PROXY = "proxy"
    NGINX = "nginx"
    FAIRLANE = "fairlane"

"""Where a configuration comes from: flags, then the file, then the environment; all errors are told together."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from scheduler.config.config import Config
from scheduler.errors import StartError


def load(path: Path | None, overrides: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> Config:
    """Read the configuration.

    Args:
        path: the YAML file; None: no file.
        overrides: what the flags say, in the shape of the file, absent where a flag was not given.
        environment: where `FAIRLANE_...` is looked up.

    Raises:
        StartError: with every error and the path of each, one a line.
    """
    merged = _merge(_merge(_from_environment(environment), _read(path)), overrides)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        source = "configuration" if path is None else str(path)
        lines = [f"  {_where(detail['loc'])}: {_why(detail)}" for detail in error.errors()]
        raise StartError(f"{source}: {len(lines)} error(s)\n" + "\n".join(lines)) from None


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{path}: cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StartError(f"{path}: not YAML: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise StartError(f"{path}: expected a mapping at the top, got {type(content).__name__}")
    return content


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if "FAIRLANE_GRPC" in environment:
        values.setdefault("listen", {})["grpc"] = environment["FAIRLANE_GRPC"]
    if "FAIRLANE_HTTP" in environment:
        values.setdefault("listen", {})["http"] = environment["FAIRLANE_HTTP"]
    if "FAIRLANE_MODEL_REPOSITORY" in environment:
        values["model_repository"] = environment["FAIRLANE_MODEL_REPOSITORY"]
    return values


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merge key by key; anything else is replaced whole."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else value
    return merged


def _where(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "(whole file)"


def _why(detail: Any) -> str:
    if detail["type"] == "extra_forbidden":
        return "unknown key"
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    # A key that was not hashed is still a secret.
    secret = "api_keys" in detail["loc"] or "restricted_protocol" in detail["loc"]
    return message if secret or isinstance(given, dict | list | tuple | Config) else f"{message}, got {given!r}"

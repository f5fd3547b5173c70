"""What `fairlane top` and `fairlane explain` ask of a running Fairlane's HTTP side."""

import json
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import click

from scheduler.config import DEFAULT_HTTP
from scheduler.telemetry.live import SCHEMA

# The state comes once a second; a service that is silent for longer has gone.
SILENCE_S: Final = 10.0


def page_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options of a command that asks a running Fairlane."""
    command = click.option("--api-key", envvar="FAIRLANE_API_KEY", show_envvar=True, help="Key of a monitor.")(command)
    return click.option(
        "--http",
        default=DEFAULT_HTTP,
        show_default=True,
        metavar="HOST:PORT",
        help="HTTP side of the running Fairlane.",
    )(command)


def states(http: str, match: str, top: int, api_key: str | None) -> Iterator[tuple[str, Any]]:
    """(event, data) as /events sends them: `history` once, then `state` once a second.

    Raises:
        click.ClickException: nobody answers, or with something else.
    """
    query = urllib.parse.urlencode({"match": match, "top": top})
    event = ""
    with _open(http, f"/events?{query}", api_key) as reply:
        try:
            for line in reply:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, _checked(json.loads(value)) if event == "state" else json.loads(value)
        except (OSError, json.JSONDecodeError) as error:
            raise click.ClickException(f"http://{http}: the connection was lost: {error}") from None


def fetch(http: str, path: str, api_key: str | None) -> Any:
    """The JSON at a path.

    Raises:
        click.ClickException: nobody answers, or with an error.
    """
    with _open(http, path, api_key) as reply:
        return _checked(json.load(reply))


def _open(http: str, path: str, api_key: str | None) -> Any:
    url = f"http://{http}{path}"
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=SILENCE_S)
    except urllib.error.HTTPError as error:
        with error:
            raise click.ClickException(f"{url}: {_reason(error)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise click.ClickException(f"{url}: no answer ({reason}); is `fairlane serve` running?") from None


def _reason(error: urllib.error.HTTPError) -> str:
    body = error.read(10_000)
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        if error.code == HTTPStatus.UNAUTHORIZED:
            return body.decode(errors="replace").strip()
        return f"{error.code} {error.reason}"


def _checked(state: Any) -> Any:
    if state.get("schema") != SCHEMA:
        raise click.ClickException(f"the service speaks version {state.get('schema')}, this command version {SCHEMA}")
    return state

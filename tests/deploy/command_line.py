"""Command lines in deploy/, parsed by the command that they call."""

from collections.abc import Sequence
from pathlib import Path

import click

from scheduler.cli import main


def fairlane_config(words: Sequence[str]) -> Path:
    """The configuration that `fairlane WORDS` names, WORDS being a command line of `serve` that click accepts.

    Raises:
        click.UsageError: for an unknown command or option.
    """
    with click.Context(main) as context:
        _, command, rest = main.resolve_command(context, list(words))
        assert command is not None
        assert command.name == "serve"
        path = command.make_context("serve", rest, parent=context).params["config_path"]
    assert isinstance(path, Path)
    return path

"""The `fairlane` command: a group whose sub-commands are imported only when they are called.

Export and quantization pull in torch; serving must not, so nothing is imported here but click.
"""

import importlib
from typing import Final

import click

# name -> (module, attribute, one line for `fairlane --help`)
COMMANDS: Final[dict[str, tuple[str, str, str]]] = {
    "serve": (
        "scheduler.commands.serve",
        "serve",
        "Run the scheduler, with embedded Triton where no backend is named.",
    ),
    "install-triton": (
        "scheduler.commands.install_triton",
        "install_triton",
        "Install the embedded Triton beside this installation.",
    ),
    "infer": ("scheduler.commands.infer", "infer", "Send one request to a running Fairlane and print the answer."),
    "top": ("scheduler.commands.top", "top", "Watch a running Fairlane: classes, tenants, models, backends."),
    "explain": ("scheduler.commands.explain", "explain", "Why a request took as long as it did."),
    "export": ("export.cli", "export", "Export PyTorch models to ONNX, checked against PyTorch."),
    "models": (
        "export.models_cli",
        "models",
        "Versions of the models in a repository: list, promote, roll back, remove.",
    ),
    "quantize": (
        "quantize.cli",
        "quantize",
        "Quantize exported models to INT8 behind an accuracy gate, and publish them.",
    ),
    "quantize-report": ("quantize.cli", "quantize_report", "Write one HTML file about quantized models, with plots."),
    "simulate": ("simulate.cli", "simulate", "Play a named scenario against the core under a virtual clock."),
    "bench": ("bench.cli", "bench", "Load scenarios: Triton directly, its own priorities, and Fairlane, side by side."),
    "capacity": ("bench.capacity", "capacity", "Find the highest rate at which a model's p99 objective holds."),
    "tune": ("bench.tune", "tune", "Choose a model's instances, threads and batch size for a p99 objective."),
}
# The extra with the tools that the commands of a package import.
EXTRAS: Final = {"export": "export", "quantize": "export", "simulate": "bench", "bench": "bench"}


class LazyGroup(click.Group):
    """A click group that imports a command's module on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands, in the order of COMMANDS."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or None where there is no such name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        try:
            command: click.Command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            tool, extra = str(error.name).partition(".")[0], EXTRAS.get(module.partition(".")[0])
            if extra is None or tool in EXTRAS:  # a module of ours that is missing is no extra
                raise
            raise click.ClickException(
                f"{tool} is not installed: install the extra `{extra}` of this project"
            ) from None
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, _, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fairlane-server", prog_name="fairlane")
def main() -> None:
    """Fairlane: a priority scheduler in front of NVIDIA Triton Inference Server."""

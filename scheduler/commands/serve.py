"""`fairlane serve`: run the scheduler until it is told to stop."""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click

from scheduler.app import Addresses, App
from scheduler.config import Config, load
from scheduler.cpus import TritonCpus, divide, keep_to
from scheduler.errors import StartError
from scheduler.grpc_operations import free_operations
from scheduler.grpc_threads import give_way
from scheduler.telemetry import logs

DEFAULT_FILE: Final = Path("fairlane.yaml")
# Objects, young and middle collections until the next one. gRPC leaves a cycle of six objects behind with every call,
# so there is always something to collect; a middle collection walks what two young ones left, and stops the loop for
# a few milliseconds instead of ten; full ones are rare: little cyclic garbage lives that long.
COLLECT_AFTER: Final = (700, 2, 500)


@click.command()
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="Configuration file (fairlane.yaml).")
@click.option("--backend", "backends", multiple=True, metavar="HOST:PORT", help="A running Triton; may be repeated.")
@click.option("--listen", metavar="HOST:PORT", help="Address of the gRPC service.")
@click.option("--http", metavar="HOST:PORT", help="Address of the live page, /metrics and health.")
@click.option("--model-repository", type=click.Path(path_type=Path), help="Models of the embedded Triton.")
def serve(
    config_path: Path | None,
    backends: tuple[str, ...],
    listen: str | None,
    http: str | None,
    model_repository: Path | None,
) -> None:
    """Run the scheduler, with embedded Triton on the model repository where no backend is named."""
    overrides = _overrides(backends, listen, http, model_repository)
    if config_path is None and DEFAULT_FILE.exists():
        config_path = DEFAULT_FILE
    try:
        config = load(config_path, overrides)
        logs.configure(config.telemetry.logs.format, config.telemetry.logs.level)
        drained = asyncio.run(_run(config, lambda: load(config_path, overrides)))
    except StartError as error:
        raise click.ClickException(str(error)) from None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the interpreter's own end takes handlers away, not this
    _drop_unwritten()
    if not drained:
        raise click.ClickException(f"requests were still unanswered after {config.limits.drain_s:g} s; they were ended")


def _overrides(
    backends: tuple[str, ...], listen: str | None, http: str | None, model_repository: Path | None
) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    if backends:
        overrides["backends"] = [{"name": f"backend{place}", "grpc": each} for place, each in enumerate(backends)]
    listening = {"grpc": listen, "http": http}
    overrides["listen"] = {key: value for key, value in listening.items() if value is not None}
    if model_repository is not None:
        overrides["model_repository"] = model_repository
    return overrides


async def _run(config: Config, read: Callable[[], Config]) -> bool:
    """Serve until SIGINT or SIGTERM, reload at SIGHUP; False where the drain ran out of time."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    _stop_at_signals(loop, stop)
    _allow_many_connections()
    triton_cpus = _own_cpu(config)
    free_operations()
    app = App(config, triton_cpus)
    loop.add_signal_handler(signal.SIGHUP, app.reload, read)
    starting = asyncio.create_task(_start(app, config))
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await stopping
    else:
        # Told to stop while starting: what had been started is stopped on the way out.
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    stopping.cancel()
    _tell("stopping: finishing accepted requests", err=True)
    return await app.stop()


def _stop_at_signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """SIGINT and SIGTERM stop us, once: what comes after the first changes nothing, up to the end of the process.

    Not the loop's own handlers: they go with the loop, and a signal that comes then kills whoever stops in order.
    """

    def told(number: int, frame: Any) -> None:
        del number, frame
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(stop.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)


async def _start(app: App, config: Config) -> None:
    """Start, and print the one line when requests can be answered."""
    addresses = await app.start()
    if not app.ready:
        _tell("waiting for a backend to be ready", err=True)
        await app.until_ready()
    give_way()
    _quiet_collector()
    _tell(ready_line(addresses, config))


def _tell(line: str, *, err: bool = False) -> None:
    """Print a line where somebody takes it: a full disk or a closed pipe is no reason to stop, or to stop halfway."""
    with contextlib.suppress(OSError):
        click.echo(line, err=err)


def _drop_unwritten() -> None:
    """Let go of what could not be written; the interpreter would try again at its end, and end with an error."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed before we began
            continue
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _own_cpu(config: Config) -> TritonCpus | None:
    """Keep to a CPU of our own; threads that are still to come inherit it.

    Returns:
        The CPUs of the embedded Triton and its models; None where all are shared.
    """
    division = divide(os.sched_getaffinity(0)) if config.own_cpu and not config.backends else None
    if division is None:
        return None
    keep_to(division.scheduler)
    return division.triton


def _allow_many_connections() -> None:
    """As many open sockets as the system lets this process have; the usual 1024 are fewer than a fleet of clients."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _quiet_collector() -> None:
    """Keep the garbage collector from stopping the event loop for long.

    What is alive now stays alive: it is put beyond the collector's reach, which would otherwise walk all of it
    in the middle of somebody's request.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)


def ready_line(addresses: Addresses, config: Config) -> str:
    """What `fairlane serve` prints when requests can be answered; scripts find the addresses in it."""
    openness = "open to everybody on this machine, as Triton is; " if config.open_as_triton else ""
    triton = "" if addresses.triton is None else f", embedded Triton on {addresses.triton}"
    return f"fairlane is ready: {openness}gRPC on {addresses.grpc}, HTTP on http://{addresses.http}{triton}"

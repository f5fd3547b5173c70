"""A running Triton loads the version that has just been published.

Triton loads the new version beside the old one and hands new requests to it. It unloads the old one after its last
answer. Where the new version does not load, the old one stays.
"""

from collections.abc import Callable
from typing import Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export.errors import ExportError
from export.repository.previous_files import PreviousFiles
from export.repository.repository import Repository

# Loading and warming up the largest model that is shipped takes seconds; a stuck server is not waited for.
LOAD_TIMEOUT_S: Final = 120.0


# Triton's answers about a model that it tried to load. By any other one, as of a proxy that lets nobody load, it did
# not try, or nobody knows.
VERDICTS: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


# Takes back what was published; says what became of it.
TakeBack = Callable[[], str]


class ServerError(ExportError):
    """A server does not serve what it was told to load."""


class LoadRefusedError(ServerError):
    """A server has tried to load a version, and could not."""


class WithdrawnError(LoadRefusedError):
    """A server could not load what was published, and the repository is as it was before."""


def load_on_server(address: str, name: str, version: int) -> None:
    """Have a server serve the newest version of a model.

    Args:
        address: HOST:PORT of a Triton in explicit model control.
        name: the model.
        version: the version that must be the one served afterwards.

    Raises:
        LoadRefusedError: the server cannot load it. Carries its reason.
        ServerError: the server is not there, does not answer in time, or serves another version.
    """
    told = f"{address}: {name} version {version} was not loaded"
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            stub.RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=LOAD_TIMEOUT_S, wait_for_ready=False
            )
        except grpc.RpcError as error:
            kind = LoadRefusedError if error.code() in VERDICTS else ServerError
            # Triton's reason has lines of its own.
            raise kind(f"{told}: {' '.join((error.details() or error.code().name).split())}") from error
        try:
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=LOAD_TIMEOUT_S)
        except grpc.RpcError as error:
            raise ServerError(f"{told}, as far as is known: {error.details() or error.code().name}") from error
    ready = sorted(int(one.version) for one in index.models if one.name == name and one.version.isdecimal())
    if version not in ready:
        raise ServerError(
            f"{address}: {name}: expected version {version} to be served, got {ready}: has another one come meanwhile, "
            "or does this server read another repository?"
        )


def bring_into_service(
    repository: Repository, address: str | None, name: str, version: int, *, new: bool, before: PreviousFiles
) -> None:
    """Load the newest version on a server, if there is one; take back what was changed and cannot be loaded.

    Args:
        repository: where the version lies.
        address: HOST:PORT of a Triton in explicit model control; None: there is none.
        name: the model.
        version: its newest.
        new: whether the caller has just published it. Any other may be in service elsewhere, and stays.
        before: what lay beside the graphs before the caller changed anything.

    Raises:
        WithdrawnError: the server cannot load it, and the model is as it was before.
        ServerError: as `load_on_server`; says what became of a new version.
    """
    if address is None:
        return

    def take_back() -> str:
        if new:
            repository.withdraw(name, version, before)
            return "it is withdrawn"
        repository.put_back(name, before)
        return "the configuration is the one before again"

    changed = new or repository.previous_files(name).configuration != before.configuration
    try:
        load_on_server(address, name, version)
    except LoadRefusedError as error:
        if not changed:
            raise
        _judge(repository, address, name, version, error, take_back)
    except ServerError as error:
        if not changed:
            raise
        raise ServerError(f"{error}; it is published all the same") from error


def _judge(
    repository: Repository, address: str, name: str, version: int, refusal: LoadRefusedError, take_back: TakeBack
) -> None:
    """Take back what a server refused, where it was that; raises, unless the server has it by now."""
    published = "it is published all the same"
    try:
        with repository.changing(name):
            _try_again(repository, address, name, version, refusal, take_back)
    except WithdrawnError:
        raise
    except ServerError as error:
        raise type(error)(f"{error}; {published}") from error
    except (ExportError, OSError) as error:
        raise LoadRefusedError(f"{refusal}; {published}: {error}") from error


def _try_again(
    repository: Repository, address: str, name: str, version: int, refusal: LoadRefusedError, take_back: TakeBack
) -> None:
    # A server is told a model, not a version, and tries the newest: another process may have published one meanwhile.
    # The caller has the model's turn, so now none does.
    there = repository.versions(name)
    if there[-1:] != (version,):
        raise ServerError(f"{refusal}; versions {list(there)} are there now, and the refused one may be the newest")
    try:
        load_on_server(address, name, version)
    except LoadRefusedError as error:
        raise WithdrawnError(f"{error}; {take_back()}") from error

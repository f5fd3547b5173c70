"""A running Triton, told to load what has just been published.

Triton loads the new version beside the old one, hands new requests to it, and lets go of the old one when its last
request has been answered. Where the new one does not load, the old one stays.
"""

from typing import Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export.errors import ExportError
from export.repository import Repository

# Loading and warming up the largest model that is shipped takes seconds; a stuck server is not waited for.
LOAD_TIMEOUT_S: Final = 120.0


# Triton's answers about a model that it tried to load. By any other one, as of a proxy that lets nobody load, it did
# not try, or nobody knows.
VERDICTS: Final = (grpc.StatusCode.INTERNAL, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND)


class ServerError(ExportError):
    """A server does not serve what it was told to load."""


class LoadRefusedError(ServerError):
    """A server has tried to load a version, and could not."""


class WithdrawnError(LoadRefusedError):
    """A server could not load a version, which is in the repository no longer."""


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
            raise kind(f"{told}: {error.details() or error.code().name}") from error
        try:
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=LOAD_TIMEOUT_S)
        except grpc.RpcError as error:
            raise ServerError(f"{told}, as far as is known: {error.details() or error.code().name}") from error
    ready = sorted(int(one.version) for one in index.models if one.name == name and one.version.isdecimal())
    if version not in ready:
        raise ServerError(
            f"{address}: {name}: expected version {version} to be served, got {ready}: has another one come meanwhile, "
            "or is it another repository?"
        )


def bring_into_service(repository: Repository, address: str | None, name: str, version: int, *, new: bool) -> None:
    """Load the newest version on a server, if there is one; withdraw a new one that the server cannot load.

    Args:
        repository: where the version lies.
        address: HOST:PORT of a Triton in explicit model control; None: there is none.
        name: the model.
        version: its newest.
        new: whether the caller has just published it. Any other may be in service elsewhere, and stays.

    Raises:
        WithdrawnError: the server cannot load it, and it was withdrawn.
        ServerError: as `load_on_server`; says what became of a new version.
    """
    if address is None:
        return
    try:
        load_on_server(address, name, version)
    except LoadRefusedError as error:
        if not new:
            raise
        _judge(repository, address, name, version, error)
    except ServerError as error:
        if not new:
            raise
        raise ServerError(f"{error}; it is published all the same") from error


def _judge(repository: Repository, address: str, name: str, version: int, refusal: LoadRefusedError) -> None:
    """Withdraw a version that a server refused, where it was that one; raises, unless the server has it by now."""
    published = "it is published all the same"
    try:
        with repository.changing(name):
            _try_again(repository, address, name, version, refusal)
    except WithdrawnError:
        raise
    except ServerError as error:
        raise type(error)(f"{error}; {published}") from error
    except (ExportError, OSError) as error:
        raise LoadRefusedError(f"{refusal}; {published}: {error}") from error


def _try_again(repository: Repository, address: str, name: str, version: int, refusal: LoadRefusedError) -> None:
    # A server is told a model, not a version, and tries the newest: another process may have published one meanwhile.
    # The caller has the model's turn, so now none does.
    there = repository.versions(name)
    if there[-1:] != (version,):
        raise ServerError(f"{refusal}; versions {list(there)} are there now, and the refused one may be the newest")
    try:
        load_on_server(address, name, version)
    except LoadRefusedError as error:
        if there == (version,):
            raise
        repository.withdraw(name, version)
        raise WithdrawnError(f"{error}; it is withdrawn") from error

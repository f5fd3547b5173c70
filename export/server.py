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


# A server that answers so did not try: nobody is there, or no answer came in time.
NO_VERDICT: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


class ServerError(ExportError):
    """A server does not serve what it was told to load."""


class LoadRefusedError(ServerError):
    """A server has tried to load a version, and could not."""


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
    with grpc.insecure_channel(address) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            stub.RepositoryModelLoad(
                service_pb2.RepositoryModelLoadRequest(model_name=name), timeout=LOAD_TIMEOUT_S, wait_for_ready=False
            )
            index = stub.RepositoryIndex(service_pb2.RepositoryIndexRequest(ready=True), timeout=LOAD_TIMEOUT_S)
        except grpc.RpcError as error:
            kind = ServerError if error.code() in NO_VERDICT else LoadRefusedError
            raise kind(f"{address}: {name} version {version} was not loaded: {error.details()}") from error
    ready = sorted(int(one.version) for one in index.models if one.name == name and one.version.isdecimal())
    if version not in ready:
        raise ServerError(
            f"{address}: {name}: expected version {version} to be served, got {ready}: is it the same repository?"
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
        ServerError: as `load_on_server`; says what became of a new version.
    """
    if address is None:
        return
    try:
        load_on_server(address, name, version)
    except ServerError as error:
        if not new:
            raise
        if isinstance(error, LoadRefusedError):
            raise LoadRefusedError(f"{error}; {_withdrawn(repository, name, version)}") from error
        raise type(error)(f"{error}; it is published all the same") from error


def _withdrawn(repository: Repository, name: str, version: int) -> str:
    """Withdraw a version; tells what came of it."""
    if repository.versions(name) == (version,):
        return "it is published all the same"
    try:
        repository.withdraw(name, version)
    except (ExportError, OSError) as error:
        return f"it is published all the same: {error}"
    return "it is withdrawn"

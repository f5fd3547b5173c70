"""What becomes of a version that a server does not load, with a server that answers as it is told to."""

from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export.repository import Repository
from export.server import LoadRefusedError, ServerError, WithdrawnError, bring_into_service
from tests.export.place import NAME, Place, graph_of

Publish = Callable[[str], int]


class NewestServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Loads the newest version of a repository, as Triton; refuses a graph with the mark `bad`."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.ready = repository, ""
        self.code, self.has_index = grpc.StatusCode.INTERNAL, True
        self.meanwhile: Callable[[], Any] = lambda: None

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802  (as in the protocol)
        version = self.repository.version_folder(request.model_name)
        if graph_of(version) == "bad":
            self.meanwhile()
            context.abort(self.code, f"version {version.name} is invalid")
        self.ready = version.name
        return service_pb2.RepositoryModelLoadResponse()

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802
        del request
        if not self.has_index:
            context.abort(grpc.StatusCode.INTERNAL, "no index")
        index = service_pb2.RepositoryIndexResponse.ModelIndex(name=NAME, version=self.ready, state="READY")
        return service_pb2.RepositoryIndexResponse(models=[index])


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def publish(place: Place) -> Publish:
    def publish(graph: str) -> int:
        place.publish("old", graph=graph)
        return place.repository.versions(NAME)[-1]

    return publish


@pytest.fixture
def server(place: Place) -> NewestServer:
    return NewestServer(place.repository)


@pytest.fixture
def address(server: NewestServer) -> Iterator[str]:
    running = grpc.server(futures.ThreadPoolExecutor(2))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(server, running)
    port = running.add_insecure_port("127.0.0.1:0")
    running.start()
    yield f"127.0.0.1:{port}"
    running.stop(None).wait()


def test_version_that_is_refused_is_withdrawn(place: Place, publish: Publish, address: str) -> None:
    publish("old")
    with pytest.raises(WithdrawnError, match=r"digits version 2 was not loaded: version 2 is invalid; it is withdrawn"):
        bring_into_service(place.repository, address, NAME, publish("bad"), new=True)
    assert place.repository.versions(NAME) == (1,)


def test_only_version_stays_where_it_is_refused(place: Place, publish: Publish, address: str) -> None:
    with pytest.raises(LoadRefusedError, match="version 1 is invalid; it is published all the same"):
        bring_into_service(place.repository, address, NAME, publish("bad"), new=True)
    assert place.repository.versions(NAME) == (1,)


# Of a server without model control, of a proxy that lets nobody load, of a handler that failed by itself.
@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNKNOWN", "UNAVAILABLE"])
def test_version_that_no_server_tried_stays(
    place: Place, publish: Publish, server: NewestServer, address: str, code: str
) -> None:
    publish("old")
    server.code = grpc.StatusCode[code]
    with pytest.raises(ServerError, match="it is published all the same"):
        bring_into_service(place.repository, address, NAME, publish("bad"), new=True)
    assert place.repository.versions(NAME) == (1, 2)


def test_version_stays_where_the_index_alone_is_refused(
    place: Place, publish: Publish, server: NewestServer, address: str
) -> None:
    publish("old")
    server.has_index = False
    with pytest.raises(ServerError, match=r"was not loaded, as far as is known: no index; it is published all the sam"):
        bring_into_service(place.repository, address, NAME, publish("new"), new=True)
    assert place.repository.versions(NAME) == (1, 2)


def test_good_version_is_not_withdrawn_for_a_bad_one_that_came_meanwhile(
    place: Place, publish: Publish, address: str
) -> None:
    publish("old")
    good, bad = publish("good"), publish("bad")
    with pytest.raises(ServerError, match=r"versions \[1, 2, 3\] are there now, and the refused one may be the newest"):
        bring_into_service(place.repository, address, NAME, good, new=True)
    with pytest.raises(WithdrawnError, match="version 3 is invalid"):
        bring_into_service(place.repository, address, NAME, bad, new=True)
    assert place.repository.versions(NAME) == (1, good)


def test_good_version_is_loaded_where_the_bad_one_that_was_tried_for_it_has_been_withdrawn(
    place: Place, publish: Publish, server: NewestServer, address: str
) -> None:
    publish("old")
    good, bad = publish("good"), publish("bad")
    # Between the refusal and a look at it.
    server.meanwhile = lambda: place.repository.withdraw(NAME, bad)
    bring_into_service(place.repository, address, NAME, good, new=True)
    assert server.ready == str(good)
    assert place.repository.versions(NAME) == (1, good)


def test_other_version_that_is_served_is_said(
    place: Place, publish: Publish, server: NewestServer, address: str
) -> None:
    first = publish("old")
    publish("new")
    with pytest.raises(
        ServerError, match=r"expected version 1 to be served, got \[2\]: has another one come meanwhile"
    ):
        bring_into_service(place.repository, address, NAME, first, new=False)
    assert server.ready == "2"

"""What becomes of a version that a server does not load, with a server that answers as it is told to."""

from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from export.repository.previous_files import PreviousFiles
from export.repository.repository import Repository
from export.repository.server_load import ServerError, WithdrawnError, bring_into_service
from tests.export.repository.stand_in import NAME, Place, build, graph_of

Publish = Callable[[str], int]


class NewestServer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Loads the newest version of a repository, as Triton; refuses a graph with the mark `bad`."""

    def __init__(self, repository: Repository) -> None:
        self.repository, self.ready = repository, ""
        self.refuses_config = ""
        self.code, self.has_index = grpc.StatusCode.INTERNAL, True
        self.meanwhile: Callable[[], Any] = lambda: None

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802  (as in the protocol)
        version = self.repository.version_folder(request.model_name)
        configured = (version.parent / "config.pbtxt").read_text()
        if graph_of(version) == "bad" or f'"{self.refuses_config}"' in configured:
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


def bring(place: Place, address: str, version: int, *, new: bool = True) -> None:
    """As by a command that changes nothing but the version."""
    before = place.repository.previous_files(NAME)
    bring_into_service(place.repository, address, NAME, version, new=new, before=before)


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
        bring(place, address, publish("bad"))
    assert place.repository.versions(NAME) == (1,)


@pytest.mark.parametrize("others", [[], ["other"]])
def test_first_version_that_is_refused_takes_its_model_along(place: Place, address: str, others: list[str]) -> None:
    for other in others:
        place.publish("old", graph="old", name=other)
    before = place.repository.previous_files(NAME)
    place.publish("old", graph="bad")
    with pytest.raises(WithdrawnError, match="version 1 is invalid; it is withdrawn"):
        bring_into_service(place.repository, address, NAME, 1, new=True, before=before)
    assert list(place.served()) == others
    assert place.residue() == []


def test_first_version_beside_a_configuration_of_ones_own_leaves_that(place: Place, address: str) -> None:
    place.publish("old", graph="bad")
    configuration = {
        name: text for name, text in place.repository.previous_files(NAME).configuration.items() if "label" not in name
    }
    with pytest.raises(WithdrawnError, match="it is withdrawn"):
        bring_into_service(place.repository, address, NAME, 1, new=True, before=PreviousFiles(configuration))
    model = place.repository.folder / NAME
    assert sorted(path.name for path in model.iterdir()) == ["config.pbtxt", "y_labels.txt"]


@pytest.mark.parametrize("graph", ["bad", "old"])
def test_configuration_goes_with_the_version_that_it_came_with(
    place: Place, server: NewestServer, address: str, graph: str
) -> None:
    place.publish("old", graph="old")
    before, served = place.repository.previous_files(NAME), place.served()
    # Of the same graph the configuration alone is new.
    build(place.folder / NAME, "new", graph, NAME)
    place.publish_built(NAME, configure=True)
    assert place.served() != served
    server.refuses_config = "new"
    there = place.repository.versions(NAME)
    said = "it is withdrawn" if len(there) > 1 else "the configuration is the one before again"
    with pytest.raises(WithdrawnError, match=said):
        bring_into_service(place.repository, address, NAME, there[-1], new=len(there) > 1, before=before)
    assert (place.served(), place.repository.previous_files(NAME), place.residue()) == (served, before, [])


def test_configuration_that_nobody_can_read_is_not_put_back(place: Place, address: str) -> None:
    place.publish("old", graph="old")
    config = place.repository.folder / NAME / "config.pbtxt"
    config.write_text("name:")
    before = place.repository.previous_files(NAME)
    build(place.folder / NAME, "new", "bad", NAME)
    place.publish_built(NAME, configure=True)
    with pytest.raises(WithdrawnError, match="it is withdrawn"):
        bring_into_service(place.repository, address, NAME, 2, new=True, before=before)
    assert place.served() == {NAME: ("old", "new", "new")}


# Of a server without model control, of a proxy that lets nobody load, of a handler that failed by itself.
@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "PERMISSION_DENIED", "UNAUTHENTICATED", "UNKNOWN", "UNAVAILABLE"])
def test_version_that_no_server_tried_stays(
    place: Place, publish: Publish, server: NewestServer, address: str, code: str
) -> None:
    publish("old")
    server.code = grpc.StatusCode[code]
    with pytest.raises(ServerError, match="it is published all the same"):
        bring(place, address, publish("bad"))
    assert place.repository.versions(NAME) == (1, 2)


def test_version_stays_where_the_index_alone_is_refused(
    place: Place, publish: Publish, server: NewestServer, address: str
) -> None:
    publish("old")
    server.has_index = False
    with pytest.raises(ServerError, match=r"was not loaded, as far as is known: no index; it is published all the sam"):
        bring(place, address, publish("new"))
    assert place.repository.versions(NAME) == (1, 2)


def test_good_version_is_not_withdrawn_for_a_bad_one_that_came_meanwhile(
    place: Place, publish: Publish, address: str
) -> None:
    publish("old")
    good, bad = publish("good"), publish("bad")
    with pytest.raises(ServerError, match=r"versions \[1, 2, 3\] are there now, and the refused one may be the newest"):
        bring(place, address, good)
    with pytest.raises(WithdrawnError, match="version 3 is invalid"):
        bring(place, address, bad)
    assert place.repository.versions(NAME) == (1, good)


def test_good_version_is_loaded_where_the_bad_one_that_was_tried_for_it_has_been_withdrawn(
    place: Place, publish: Publish, server: NewestServer, address: str
) -> None:
    publish("old")
    good, bad = publish("good"), publish("bad")
    # Between the refusal and a look at it.
    server.meanwhile = lambda: place.repository.withdraw(NAME, bad, place.repository.previous_files(NAME))
    bring(place, address, good)
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
        bring(place, address, first, new=False)
    assert server.ready == "2"

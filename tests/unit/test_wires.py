"""Which wire is taken, and what is told of it."""

import logging

import pytest

from scheduler import wires
from scheduler.edge.grpcio_server import GrpcioServer
from scheduler.errors import StartError
from scheduler.triton.grpcio_channel import grpcio_channel
from scheduler.wire import availability
from scheduler.wire.availability import Availability

NONE = Availability(usable=False, told="its extension is not built here")
GRPCIO = (GrpcioServer, grpcio_channel)


@pytest.fixture
def unbuilt(monkeypatch):
    monkeypatch.setattr(availability, "look", lambda: NONE)


@pytest.mark.skipif(not availability.look().usable, reason="the extension is not built")
@pytest.mark.parametrize("wire", ["auto", "native"])
def test_the_native_wire_is_taken_where_it_can_be_used(wire, caplog):
    from scheduler.edge.native_server import NativeServer
    from scheduler.triton.native_channel import native_channel

    caplog.set_level(logging.INFO)
    assert wires.chosen(wire) == (NativeServer, native_channel)
    assert "nghttp2" in caplog.text


def test_auto_is_grpcio_where_it_cannot_and_says_so(unbuilt, caplog):
    assert wires.chosen("auto") == GRPCIO
    assert "its extension is not built here" in caplog.text


def test_what_is_asked_for_and_cannot_be_used_ends_the_start(unbuilt):
    with pytest.raises(StartError, match=r"listen\.wire: native: its extension is not built here"):
        wires.chosen("native")


def test_grpcio_is_taken_where_it_is_asked_for():
    assert wires.chosen("grpcio") == GRPCIO


class Extension:
    """What is looked at of an extension."""

    VERSION = "1.52.0"
    __file__ = "/built/_h2.so"

    def __init__(self, package, library="/built/libnghttp2.so.14", version="1.52.0"):
        self.PACKAGE, self.LIBRARY, self.VERSION = package, library, version


@pytest.mark.parametrize(
    ("extension", "told"),
    [
        (Extension("1.52.0-1+deb12u2"), "expected package 1.52.0-1+deb12u3 or later, got 1.52.0-1+deb12u2"),
        (Extension("", version="1.60.0"), "expected 1.68.1 or later, got 1.60.0"),
        (Extension("1.52.0-1+deb12u3", "/usr/lib/libnghttp2.so.14"), "got /usr/lib/libnghttp2.so.14"),
    ],
)
def test_a_library_without_the_fixes_or_another_one_is_not_used(extension, told, monkeypatch):
    monkeypatch.setattr(availability, "import_module", lambda _: extension)
    found = availability.look()
    assert not found.usable
    assert told in found.told


@pytest.mark.parametrize("extension", [Extension("1.52.0-1+deb12u3"), Extension("", version="1.68.1")])
def test_a_library_with_the_fixes_is_used(extension, monkeypatch):
    monkeypatch.setattr(availability, "import_module", lambda _: extension)
    assert availability.look().usable


def test_an_extension_that_is_not_there_is_told(monkeypatch):
    def missing(_):
        raise ImportError("no module")

    monkeypatch.setattr(availability, "import_module", missing)
    assert availability.look() == (False, "its extension is not built here: no module")

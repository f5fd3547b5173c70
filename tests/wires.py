"""What can carry gRPC here: tests of what is promised to clients run over each."""

from scheduler.wire import availability

WIRES = ("grpcio", *(("native",) if availability.look().usable else ()))

"""HTTP/2 and gRPC as cheaply as Python can speak them: frames, and a connection for unary calls of one method.

A load generator shares the machine with what it measures, and grpc.aio takes as much of it as the server does. Frames
are those of RFC 9113; nothing here knows of load, scenarios or results. The load generator, `bench.kinds`, the attacks
and the tests of the edge call it.
"""

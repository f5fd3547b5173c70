"""HTTP/2 as cheaply as Python can: frames, and a connection that makes unary gRPC calls."""

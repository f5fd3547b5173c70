"""gRPC over HTTP/2 for asyncio, on nghttp2: what `listen.wire: native` runs on."""

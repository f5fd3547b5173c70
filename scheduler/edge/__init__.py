"""The gRPC and HTTP side: Triton's protocol in, tickets out, outcomes back as statuses."""

"""The service: server halves of circuits over HTTP, each computation in a process of its own."""

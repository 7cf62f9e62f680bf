"""A gRPC server for answers of megabytes that many share: HTTP/2 on plain sockets, sent without a copy.

gRPC's own server copies each message for each reader and hands it through two threads. Here the finished
messages go to the kernel from where they lie, as many frames in one call as it takes. It serves methods with
one request; everything else stays with gRPC's server, whose handlers and interceptor it uses.
"""

from services.runtime.streams.server import StreamServer

__all__ = ["StreamServer"]

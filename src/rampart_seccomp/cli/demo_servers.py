"""The two loopback servers of the demo: one that the agent works with, one that wants its secret."""

from __future__ import annotations

import contextlib
import http.server
import socket
import threading

__all__ = ["ApiServer", "Attacker"]


class Attacker:
    """A server on the loopback interface that takes whatever arrives, HTTP or not.

    Args:
        secret: What it is after.

    Attributes:
        received: What each connection brought; an entry, if only an empty one, for every connection.
    """

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.settimeout(0.05)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="attacker")

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    def __enter__(self) -> Attacker:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ending.set()
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            # Asked before accepting: a connection completed before the end is in the queue by now.
            ending = self._ending.is_set()
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                if ending:
                    return
                continue
            with connection:
                self.received.append(self._take(connection))

    def _take(self, connection: socket.socket) -> bytes:
        """Read until the stream ends or an HTTP request has brought the secret, and answer the latter."""
        connection.settimeout(2)
        data = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(65536):
                data += piece
                if b" HTTP/1." in data and self.secret in data:
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                    break
        return data

    @property
    def copies(self) -> int:
        """How many connections brought the secret."""
        return sum(self.secret in data for data in self.received)


class _ApiHandler(http.server.BaseHTTPRequestHandler):
    """Hands out the issue and takes comments."""

    server: ApiServer

    def do_GET(self) -> None:
        self._answer(self.server.issue.encode())

    def do_POST(self) -> None:
        self.server.comments.append(self.rfile.read(int(self.headers["Content-Length"])))
        self._answer(b"")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the demo has its own words."""


class ApiServer(http.server.ThreadingHTTPServer):
    """The server that the agent works with; serves while entered.

    Attributes:
        issue: What it hands out.
        comments: What it was told.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ApiHandler)
        self.issue = ""
        self.comments: list[bytes] = []
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name="api")

    def __enter__(self) -> ApiServer:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

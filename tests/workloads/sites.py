"""Servers beside HTTP that clients look for by name: one that redis-cli speaks with, and a real sshd."""

from __future__ import annotations

import contextlib
import os
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

__all__ = ["SSHD", "redis", "ssh"]

SSHD = Path("/usr/sbin/sshd")


@contextlib.contextmanager
def redis(host: str, requests: list[str], directory: Path) -> Iterator[int]:
    """Answer every command of the protocol of Redis (RESP) with "hello"; gives the port."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while head := self.rfile.readline():
                words = []
                for _ in range(int(head[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2])
                requests.append(b" ".join(words).decode())
                self.wfile.write(b"$5\r\nhello\r\n")

    with _served(socketserver.ThreadingTCPServer((host, 0), Handler)) as port:
        yield port


@contextlib.contextmanager
def ssh(host: str, requests: list[str], directory: Path) -> Iterator[int]:
    """Start an sshd for each connection, as inetd would; gives the port.

    In the directory are ``key``, who may log in with it, and ``site``, the public key of the host.
    """
    for name in ("key", "host"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)], check=True
        )
    (directory / "key.pub").rename(directory / "authorized")
    (directory / "host.pub").rename(directory / "site")
    options = {
        "HostKey": directory / "host",
        "AuthorizedKeysFile": directory / "authorized",
        "PidFile": "none",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
    }
    (directory / "config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    command: list[str | Path] = [SSHD, "-i", "-e", "-f", directory / "config"]
    if os.geteuid() == 0:
        # As root it wants a directory in /run, which is there where the service runs.
        make = 'mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && exec "$@"'
        command = ["unshare", "-m", "sh", "-c", make, "sh", *command]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            requests.append("ssh")
            with (directory / "log").open("ab") as log:
                subprocess.run(command, stdin=self.request, stdout=self.request, stderr=log, check=False)

    with _served(socketserver.ThreadingTCPServer((host, 0), Handler)) as port:
        yield port


@contextlib.contextmanager
def _served(server: socketserver.ThreadingTCPServer) -> Iterator[int]:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()

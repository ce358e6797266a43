"""Network faults between a client and a running server: no answer, no connection, for a while."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def free_port() -> int:
    """A free port below those that the kernel gives to clients: otherwise a client of a dead server might connect to itself."""
    for port in range(11_000 + os.getpid() * 7 % 8_000, 32_000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port
    raise RuntimeError("no free port")


_given: set[int] = set()  # to servers that may be down at the moment


@contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as mute:
        yield f"http://127.0.0.1:{mute.getsockname()[1]}"


class _Forbidden(BaseHTTPRequestHandler):
    def answer(self) -> None:
        page = b"<html><title>403 Forbidden</title><body>Access to this host is denied.</body></html>"
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(403)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_CONNECT = answer

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def refusing_proxy() -> Iterator[str]:
    """The URL of a proxy that lets no request through: it answers 403 with a web page."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Forbidden)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class Gate:
    """A loopback port that forwards to another one and can be shut: the network between a client and a running server.

    `mode`: "open"; "refused", new and old connections are cut; "silent", they stay and nothing comes through.
    """

    def __init__(self, target: int) -> None:
        self.port, self._target, self._mode, self._pairs = free_port(), target, "open", set[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def mode(self) -> str:
        """ "open", "refused" or "silent"."""
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        self._mode = mode
        if mode == "refused":
            self._cut()

    def _cut(self) -> None:
        for end in list(self._pairs):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                if self._mode == "refused":
                    client.close()
                else:
                    threading.Thread(target=self._join, args=[client], daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while self._mode == "silent":
                time.sleep(0.01)
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                self._pairs |= {client, server}
                back = threading.Thread(target=self._carry, args=[server, client], daemon=True)
                back.start()
                self._carry(client, server)
                back.join()
                self._pairs -= {client, server}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                while self._mode == "silent":
                    time.sleep(0.01)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the gate and its connections."""
        self._mode = "refused"
        self._listener.close()
        self._cut()


@contextmanager
def gate(target: int) -> Iterator[Gate]:
    """An open Gate to the port `target`."""
    opened = Gate(target)
    try:
        yield opened
    finally:
        opened.close()

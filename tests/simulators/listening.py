"""A real listener for notifications: keeps what comes in, answers as it is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Empty, SimpleQueue
from threading import Thread

Answer = tuple[int, bytes]


@dataclass(frozen=True)
class Letter:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Inbox:
    """What came in, in order, and what to answer before answering as always."""

    url: str
    letters: SimpleQueue[Letter] = field(default_factory=SimpleQueue)
    answers: SimpleQueue[Answer] = field(default_factory=SimpleQueue)

    def take(self, *, seconds_max: float = 20) -> Letter:
        """Return the next letter, waiting for it; fails if none comes."""
        return self.letters.get(timeout=seconds_max)

    def is_quiet(self, *, for_seconds: float = 0.6) -> bool:
        """Tell whether nothing comes for so long."""
        try:
            self.letters.get(timeout=for_seconds)
        except Empty:
            return True
        return False

    def receive(self, letter: Letter) -> Answer:
        self.letters.put(letter)
        try:
            return self.answers.get_nowait()
        except Empty:
            return (200, b"success") if letter.path.startswith("/alipay") else (204, b"")


@contextmanager
def listen() -> Iterator[Inbox]:
    """Listen on a free port until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = inbox.receive(Letter(self.path, dict(self.headers), body))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        inbox = Inbox(f"http://127.0.0.1:{server.server_port}")
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield inbox
        finally:
            server.shutdown()
            thread.join()

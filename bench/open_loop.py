"""An open loop (开环): requests go out when they are due, however the server fares.

Request i is due at start + i / rate. An idle keep-alive connection takes it, or a new one, up to a
limit; beyond that it waits, and its latency counts from when it was due. So a server that falls
behind cannot slow down the load that would show it (security-and-reliability.md, C9).
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from time import monotonic, process_time
from typing import NamedTuple, cast

import httptools

CONNECTIONS_MAX = 256
ANSWER_SECONDS_MAX = 20.0
"""How long after the last request was due the last answer may come."""


class Shot(NamedTuple):
    """One request as bytes, and when it is due, in seconds after the first."""

    request: bytes
    due_seconds: float


class Shooting(NamedTuple):
    """What came of it."""

    latencies_seconds: list[float]
    """Answer time minus due time, of every request, sorted."""
    lags_seconds: list[float]
    """How late the generator itself was with each request, sorted."""
    answers: Counter[Hashable]
    took_seconds: float
    """From when the first was due to the last answer."""
    cpu_seconds: float
    """Of the generator."""
    connections: int


class NoAnswer(Exception):
    """Requests were left without an answer."""


class _Connection(asyncio.Protocol):
    """One keep-alive connection, with one request on its way at most."""

    def __init__(self, gun: "_Gun") -> None:
        self._gun = gun
        self._transport: asyncio.WriteTransport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Be ready."""
        # Not isinstance: the transports of uvloop are no subclasses.
        self._transport = cast("asyncio.WriteTransport", transport)

    def send(self, shot: Shot, due: float) -> None:
        """Send a request that was due at an instant."""
        assert self._transport
        self._due = due
        self._transport.write(shot.request)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._parser.feed_data(data)

    def connection_lost(self, problem: Exception | None) -> None:
        """The server closed; a request on its way stays without an answer, which is an error."""
        del problem
        self._gun.lost(self)

    def on_body(self, body: bytes) -> None:
        """Keep a part of the answer."""
        self._body += body

    def on_message_complete(self) -> None:
        """Hand the answer over and take the next request."""
        answered = monotonic()
        status, body = self._parser.get_status_code(), bytes(self._body)
        self._body.clear()
        self._parser = httptools.HttpResponseParser(self)
        self._gun.answered(self, status, body, answered - self._due, answered)

    def close(self) -> None:
        """Hang up."""
        if self._transport:
            self._transport.close()


class _Gun:
    def __init__(self, host: str, port: int, read: Callable[[int, bytes], Hashable]) -> None:
        self._host, self._port, self._read = host, port, read
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Shot, float]] = deque()
        self.latencies: list[float] = []
        self.answers: Counter[Hashable] = Counter()
        self.last_answer = 0.0
        self.connections = 0
        self.wanted = -1
        self.done = asyncio.Event()

    def shoot(self, shot: Shot, due: float) -> None:
        if self._idle:
            self._idle.pop().send(shot, due)
            return
        self._waiting.append((shot, due))
        if self.connections < CONNECTIONS_MAX:
            self.connections += 1
            task = asyncio.get_running_loop().create_task(self.connect())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def connect(self) -> None:
        loop = asyncio.get_running_loop()
        _, made = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        self._all.add(made)
        self._next(made)

    def answered(
        self, connection: _Connection, status: int, body: bytes, latency: float, at: float
    ) -> None:
        self.latencies.append(latency)
        self.answers[self._read(status, body)] += 1
        self.last_answer = at
        self._next(connection)
        if len(self.latencies) == self.wanted:
            self.done.set()

    def lost(self, connection: _Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def _next(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def close(self) -> None:
        for connection in list(self._all):
            connection.close()


async def shoot(
    host: str,
    port: int,
    shots: Sequence[Shot],
    read: Callable[[int, bytes], Hashable],
    *,
    start: float,
    connections: int = 8,
) -> Shooting:
    """Send every request when it is due, and wait for the answers.

    Args:
        host: of the server.
        port: of the server.
        shots: in the order of their due times.
        read: what is counted of an answer, from its HTTP status and body.
        start: when the first request is due, by `monotonic()`.
        connections: opened before the first request.

    Raises:
        NoAnswer: a request was not answered.
    """
    gun = _Gun(host, port, read)
    gun.connections, gun.wanted = connections, len(shots)
    await asyncio.gather(*(gun.connect() for _ in range(connections)))
    lags: list[float] = []
    await asyncio.sleep(max(0.0, start - monotonic() - 0.05))
    cpu_before = process_time()
    for shot in shots:
        due = start + shot.due_seconds
        ahead = due - monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        elif not len(lags) % 64:
            await asyncio.sleep(0)  # Behind: answers must be read all the same.
        lags.append(max(0.0, monotonic() - due))
        gun.shoot(shot, due)
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            await gun.done.wait()
    except TimeoutError:
        missing = len(shots) - len(gun.latencies)
        raise NoAnswer(f"{missing} of {len(shots)} requests were not answered") from None
    finally:
        gun.close()
    return Shooting(
        sorted(gun.latencies),
        sorted(lags),
        gun.answers,
        gun.last_answer - start,
        process_time() - cpu_before,
        gun.connections,
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    rank = max(1, -(-len(ordered) * round(share * 1_000) // 1_000))
    return ordered[rank - 1]

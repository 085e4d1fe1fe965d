"""The wire between a process and its database: it counts statements, and breaks when told to.

It speaks nothing itself: bytes pass through as they are, and are read in passing (PostgreSQL's
frontend protocol 3.0, "Message Formats").
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

Cut = Literal["before the commit", "after the commit"]

_PIECE = 65_536


class Wire:
    """What passed since it was last looked at, and where it is to break."""

    def __init__(self, url: str, server_url: str) -> None:
        self.url = url
        """How a process reaches the database through this wire."""
        self.statements: list[str] = []
        self.cut: Cut | None = None
        """Break the next connection that commits, and only that one."""
        parts = urlsplit(server_url)
        named = parse_qs(parts.query).get("host", [])
        self._host, self._port = (named[0] if named else parts.hostname or ""), parts.port or 5432
        self._carrying: set[asyncio.Task[None]] = set()

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join one connection of the process to the server."""
        try:
            if self._host.startswith("/"):
                path = f"{self._host}/.s.PGSQL.{self._port}"
                there = await asyncio.open_unix_connection(path)
            else:
                there = await asyncio.open_connection(self._host, self._port)
        except OSError:
            writer.close()
            return
        asks = asyncio.create_task(self._carry(reader, there[1], _Asked(self)))
        answers = asyncio.create_task(self._carry(there[0], writer, _Answered(self)))
        self._carrying |= {asks, answers}
        await asyncio.wait({asks, answers}, return_when=asyncio.FIRST_COMPLETED)
        for one in (writer, there[1]):
            one.close()
        await asyncio.gather(asks, answers, return_exceptions=True)
        self._carrying -= {asks, answers}
        for one in (writer, there[1]):
            with contextlib.suppress(OSError):
                await one.wait_closed()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        heard: "_Asked | _Answered",
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if heard.breaks(piece):
                    self.cut = None
                    return
                writer.write(piece)
                await writer.drain()


class _Asked:
    """What the process says, message by message."""

    def __init__(self, wire: Wire) -> None:
        self._wire, self._buffer, self._is_started = wire, bytearray(), False
        self._prepared: dict[bytes, str] = {}
        self._bound = ""

    def breaks(self, piece: bytes) -> bool:
        self._buffer += piece
        said = []
        while message := self._next():
            said.append(self._read(*message))
        return self._wire.cut == "before the commit" and any(
            one.startswith("COMMIT") for one in said
        )

    def _next(self) -> tuple[bytes, bytes] | None:
        head = 1 if self._is_started else 0
        if len(self._buffer) < head + 4:
            return None
        end = head + int.from_bytes(self._buffer[head : head + 4], "big")
        if len(self._buffer) < end:
            return None
        kind, body = bytes(self._buffer[:head]), bytes(self._buffer[head + 4 : end])
        del self._buffer[:end]
        self._is_started = True
        return kind, body

    def _read(self, kind: bytes, body: bytes) -> str:
        if kind == b"Q":
            return self._keep(body[:-1].decode())
        if kind == b"P":
            name, sql, _ = body.split(b"\0", 2)
            self._prepared[name] = sql.decode()
        elif kind == b"B":
            _, name, _ = body.split(b"\0", 2)
            self._bound = self._prepared[name]
        elif kind == b"E":
            return self._keep(self._bound)
        return ""

    def _keep(self, sql: str) -> str:
        text = " ".join(sql.split())
        self._wire.statements.append(text)
        return text


class _Answered:
    """What the server says: only whether it has committed."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def breaks(self, piece: bytes) -> bool:
        return self._wire.cut == "after the commit" and b"COMMIT\0" in piece


@asynccontextmanager
async def laid(server_url: str) -> AsyncIterator[Wire]:
    """Lay a wire to a database."""
    parts, folder = urlsplit(server_url), Path(tempfile.mkdtemp(prefix="yuanka-wire-"))
    who = parts.netloc.rpartition("@")[0]
    wire = Wire(f"postgresql://{who}@{parts.path}?host={folder}", server_url)
    server = await asyncio.start_unix_server(wire.connected, folder / ".s.PGSQL.5432")
    try:
        yield wire
    finally:
        server.close()
        await server.wait_closed()
        shutil.rmtree(folder)

"""The edge: one clock reading, one id and one log line per request; text that cannot be kept."""

import re
from datetime import datetime
from typing import Annotated

import msgspec
import structlog
from litestar.middleware import ASGIMiddleware
from litestar.types import (
    ASGIApp,
    HTTPReceiveMessage,
    Message,
    Receive,
    Scope,
    Send,
    WebSocketReceiveMessage,
)

from api.clock import Clock
from api.problems import AnyRequest, Malformed
from identity.kernel import new_id

log = structlog.get_logger()

# `\u0000` as JSON writes it, after an even number of backslashes: `\\u0000` is six characters.
_NUL_IN_JSON = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

TAKES_FORM = "takes_form"
"""Marks an operation whose body is no JSON. The caller's Content-Type does not: JSON is read as
JSON whatever it says."""

BRACKETS_MAX = 500
"""Objects and lists of one request, nested or not; the longest list of ours has sixteen."""

FIRST_YEAR, LAST_YEAR = 2000, 2200
"""Instants that callers tell lie between them: others are typing errors, or attacks."""

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
"""An instant with its offset; the Struct that carries it calls `check_instant`."""


class Edge(ASGIMiddleware):
    """Reads the clock once per request, gives the request an id, and logs one line."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def handle(self, scope: Scope, receive: Receive, send: Send, next_app: ASGIApp) -> None:
        """Stamp the request and pass it on."""
        now = self._clock()
        state = scope["state"]
        state["now"], state["request_id"] = now, str(new_id(now))
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def stamped() -> HTTPReceiveMessage | WebSocketReceiveMessage:
            message = await receive()
            if message["type"] == "http.request" and not message["more_body"]:
                # The request takes place when all of it is here: a signature, a code or a token is
                # not held against the minute in which a slow or sly caller sent the first byte.
                state["now"] = self._clock()
            return message

        await next_app(scope, stamped, watched)
        log.info(
            "request",
            request_id=state["request_id"],
            method=scope.get("method"),
            route=scope.get("path_template", ""),
            status=status,
        )


async def refuse_unreadable(request: AnyRequest) -> None:
    """Refuse what no handler could take: a NUL in a path, a query or JSON, or JSON too deep.

    PostgreSQL keeps no NUL in text and the decoder goes no deeper than Python's stack: found later
    it would be our fault, here it is the caller's. Operations that take a form are left
    alone, since pictures are full of NULs; the few texts beside them have patterns.

    Raises:
        Malformed: it is one of these.
    """
    if "\0" in request.scope["path"] or b"%00" in request.scope["query_string"]:
        raise Malformed
    if request.route_handler.opt.get(TAKES_FORM):
        return
    body = await request.body()
    if body.count(b"[") + body.count(b"{") > BRACKETS_MAX or _NUL_IN_JSON.search(body):
        raise Malformed


def check_instant(at: datetime) -> None:
    """Refuse an instant that no clock of a caller can have shown.

    Raises:
        ValueError: it lies before `FIRST_YEAR` or after `LAST_YEAR`.
    """
    if not FIRST_YEAR <= at.year <= LAST_YEAR:
        raise ValueError("the year is out of range")

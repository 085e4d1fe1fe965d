"""One request to a provider: bounded in time and size, never repeated, never in a log.

Not httpx's client but its transport underneath: the client writes every URL to the log, and the
sign-in of WeChat carries the app's secret in one; it also follows the environment's proxies and
keeps cookies, neither of which a provider's interface needs.
"""

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from urllib.parse import urlsplit

import httpx
from msgspec import Struct

CONNECT_SECONDS = 2.0
TOTAL_SECONDS = 5.0
ANSWER_BYTES_MAX = 256 * 1024
CONNECTIONS_MAX = 20


class Silence(Exception):
    """There is no answer to go by; the provider may or may not have done what was asked.

    `cause` is time-out, unreachable or too-large; those who read answers add http-<status>,
    bad-signature and unreadable. It is never the provider's text.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class Answer(Struct, frozen=True):
    """What came back, whatever its status. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Transport:
    """Connections to one provider's address, kept open between requests.

    Args:
        base_url: scheme, host and port, with a path in front of every target if it has one.
        total_seconds: the whole exchange takes no longer, waiting for a connection included.
    """

    def __init__(self, base_url: str, *, total_seconds: float = TOTAL_SECONDS) -> None:
        parts = urlsplit(base_url)
        assert parts.scheme in ("http", "https"), "a provider is reached by http or https"
        assert parts.netloc, "a provider has a host"
        assert not parts.query, "a target brings the query"
        self._base_url = base_url.rstrip("/")
        self._total_seconds = total_seconds
        limits = httpx.Limits(
            max_connections=CONNECTIONS_MAX,
            max_keepalive_connections=CONNECTIONS_MAX // 2,
            keepalive_expiry=30,
        )
        self._connections = httpx.AsyncHTTPTransport(
            verify=_authorities(), limits=limits, retries=0, trust_env=False
        )

    async def send(
        self,
        method: str,
        target: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send one request and return the whole answer, of any status.

        `target` is the path and query after the base address, or empty for that address itself.

        Raises:
            Silence: no complete answer in time.
        """
        timeout = httpx.Timeout(self._total_seconds, connect=CONNECT_SECONDS).as_dict()
        request = httpx.Request(
            method,
            self._base_url + target,
            content=content,
            # Compression would let a small answer grow past the limit in one step.
            headers={**(headers or {}), "Accept-Encoding": "identity"},
            extensions={"timeout": timeout},
        )
        try:
            async with asyncio.timeout(self._total_seconds):
                return await self._exchange(request)
        except (TimeoutError, httpx.TimeoutException) as late:
            raise Silence("time-out") from late
        except (httpx.HTTPError, OSError, AttributeError) as broken:
            # A peer that hangs up between handshake and first byte raises no HTTPError: httpcore
            # asks the dead socket who it is, and what comes of that depends on the event loop.
            raise Silence("unreachable") from broken

    async def _exchange(self, request: httpx.Request) -> Answer:
        response = await self._connections.handle_async_request(request)
        try:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > ANSWER_BYTES_MAX:
                    raise Silence("too-large")
            headers = {name.lower(): value for name, value in response.headers.items()}
            return Answer(response.status_code, headers, bytes(body))
        finally:
            await response.aclose()

    async def disconnect(self) -> None:
        """Close every connection."""
        await self._connections.aclose()


@cache
def _authorities() -> ssl.SSLContext:
    """Return the certificate authorities to believe, read once: reading them takes 50 ms."""
    return httpx.create_ssl_context(trust_env=False)

"""One request to a provider: bounded in time and size, never repeated, never in a log."""

import asyncio
import logging

import pytest

from identity.providers.transport import ANSWER_BYTES_MAX, Silence, Transport
from tests.identity.providers.answering import (
    Asked,
    Respond,
    always,
    answering,
    hang_up,
    keep_silent,
    said,
)


async def _silence(respond: Respond, *, total_seconds: float = 5) -> str:
    async with answering(respond) as url:
        transport = Transport(url, total_seconds=total_seconds)
        try:
            with pytest.raises(Silence) as silence:
                await transport.send("POST", "/x", content=b"{}")
        finally:
            await transport.disconnect()
    return silence.value.cause


async def test_any_answer_comes_back_whole_with_its_status_and_lower_case_headers() -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return said(b"no", status=404, headers={"X-Why": "so"})

    async with answering(respond) as url:
        transport = Transport(f"{url}/base/", total_seconds=5)
        answer = await transport.send("POST", "/x?y=1", content=b"body", headers={"A": "b"})
        await transport.disconnect()
    assert (answer.status, answer.body, answer.headers["x-why"]) == (404, b"no", "so")
    assert (asked[0].method, asked[0].target, asked[0].body) == ("POST", "/base/x?y=1", b"body")
    assert (asked[0].headers["a"], asked[0].headers["accept-encoding"]) == ("b", "identity")


async def test_an_empty_target_is_the_address_itself() -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return said(b"")

    async with answering(respond) as url:
        transport = Transport(f"{url}/gateway.do")
        await transport.send("POST", "")
        await transport.disconnect()
    assert asked[0].target == "/gateway.do"


async def test_a_provider_that_keeps_silent_is_a_time_out() -> None:
    assert await _silence(keep_silent, total_seconds=0.2) == "time-out"


async def test_an_answer_that_drips_is_cut_off_at_the_total() -> None:
    is_cut = asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not writer.transport.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.02)
        writer.close()
        is_cut.set()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = Transport(url, total_seconds=0.3)
        # Every byte comes well within any time-out of a single read.
        with pytest.raises(Silence) as silence:
            await transport.send("GET", "/")
        await is_cut.wait()
        await transport.disconnect()
    assert silence.value.cause == "time-out"


async def test_a_connection_that_is_reset_or_refused_is_unreachable() -> None:
    assert await _silence(hang_up) == "unreachable"
    async with answering(hang_up) as url:
        pass
    transport = Transport(url)
    with pytest.raises(Silence) as silence:
        await transport.send("GET", "/")
    assert silence.value.cause == "unreachable"


async def test_an_answer_that_is_no_http_is_unreachable() -> None:
    assert await _silence(always(b"SSH-2.0-x\r\n\r\n")) == "unreachable"


async def test_an_answer_past_the_limit_is_not_read_on() -> None:
    fits = said(b"x" * ANSWER_BYTES_MAX)
    async with answering(always(fits)) as url:
        transport = Transport(url)
        assert len((await transport.send("GET", "/")).body) == ANSWER_BYTES_MAX
        await transport.disconnect()
    assert await _silence(always(said(b"x" * (ANSWER_BYTES_MAX + 1)))) == "too-large"


async def test_a_write_is_sent_once_even_if_the_connection_breaks() -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        raise ConnectionAbortedError

    assert await _silence(respond) == "unreachable"
    assert len(asked) == 1


async def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return said(b"", status=302, headers={"Location": "/elsewhere"})

    async with answering(respond) as url:
        transport = Transport(url)
        assert (await transport.send("GET", "/")).status == 302
        await transport.disconnect()
    assert len(asked) == 1


async def test_nothing_of_the_url_reaches_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with answering(always(said(b""))) as url:
        transport = Transport(url)
        await transport.send("GET", "/sns?secret=canary-1", headers={"Authorization": "canary-2"})
        await transport.disconnect()
    assert "canary" not in caplog.text


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with answering(always(said(b"direct"))) as url:
        transport = Transport(url)
        assert (await transport.send("GET", "/")).body == b"direct"
        await transport.disconnect()


def test_a_provider_without_scheme_or_host_is_a_mistake_of_ours() -> None:
    for address in ("provider.example", "ftp://provider.example", "https://", "https://a/?b=c"):
        with pytest.raises(AssertionError):
            Transport(address)

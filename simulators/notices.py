"""The sending of notices: on time, again until acknowledged, and wrong where that was asked for.

A notice is due → sent → acknowledged, or due again after the provider's next pause, until it
has no pauses left. A mode holds for the sends about one order until it is used up or changed.
"""

import asyncio
from datetime import timedelta

import httpx
import msgspec
from msgspec.structs import replace

from simulators import trades
from simulators.store import Notice, Store
from simulators.world import Mode, World

_TICK_SECONDS = 0.03
_ANSWER_SECONDS = 5
"""WeChat Pay waits five seconds for an answer; Alipay does not say."""
# A peer that hangs up between the handshake and the first byte is no HTTPError: httpcore asks the
# dead socket who it is talking to, and what comes out depends on the event loop.
_NOT_DELIVERED = (httpx.HTTPError, httpx.InvalidURL, OSError, AttributeError)


class Disturbance(msgspec.Struct, frozen=True):
    """How the next sends about an order go."""

    mode: Mode
    copies: int
    """How many go at once in the mode `duplicate`."""
    times: int | None
    """How many sends it holds for; None is until changed."""


async def run(world: World) -> None:
    """Settle what is due and send what is due, for as long as the process lives."""
    in_flight: set[str] = set()
    # Proxies are for the outside; a notice goes straight to whoever asked for it.
    async with (
        httpx.AsyncClient(timeout=_ANSWER_SECONDS, trust_env=False) as client,
        asyncio.TaskGroup() as group,
    ):
        while True:
            trades.settle_due(world)
            for notice in world.store.notices_to_send(world.now()):
                if notice.id not in in_flight:
                    in_flight.add(notice.id)
                    group.create_task(_send(world, client, notice, in_flight))
            # Looking a few times a second costs less thought than waking for the next moment.
            await asyncio.sleep(_TICK_SECONDS)


def disturb(store: Store, out_trade_no: str, disturbance: Disturbance) -> None:
    """Let the next sends about an order go wrong, or right again."""
    with store.transaction():
        store.keep_fact(_name(out_trade_no), disturbance)


def send_again(world: World, notice: Notice) -> None:
    """Send a notice once more, under its old id, acknowledged or not."""
    with world.store.transaction():
        again = replace(notice, sends=0, next_at=world.now(), is_acknowledged=False)
        world.store.keep_notice(again)


async def _send(
    world: World, client: httpx.AsyncClient, notice: Notice, in_flight: set[str]
) -> None:
    disturbance = _take_disturbance(world.store, notice.out_trade_no)
    copies = {"drop": 0, "duplicate": disturbance.copies}.get(disturbance.mode, 1)
    posts = (_post(world, client, notice, disturbance.mode) for _ in range(copies))
    is_acknowledged = any(await asyncio.gather(*posts))
    in_flight.discard(notice.id)
    # Where somebody asked for another send meanwhile, the notice is due again and stays so.
    if world.store.notice(notice.id) == notice:
        with world.store.transaction():
            world.store.keep_notice(_after_send(world, notice, is_acknowledged=is_acknowledged))


def _after_send(world: World, notice: Notice, *, is_acknowledged: bool) -> Notice:
    pauses = world.providers[notice.provider].retry_seconds
    sent = replace(notice, sends=notice.sends + 1, next_at=None, is_acknowledged=is_acknowledged)
    if is_acknowledged or notice.sends >= len(pauses):
        return sent
    pause = timedelta(seconds=pauses[notice.sends] * world.time_scale)
    return replace(sent, next_at=world.now() + pause)


async def _post(world: World, client: httpx.AsyncClient, notice: Notice, mode: Mode) -> bool:
    provider = world.providers[notice.provider]
    message = provider.write(notice, mode, world.now())
    try:
        answer = await client.post(notice.url, content=message.body, headers=dict(message.headers))
    except _NOT_DELIVERED:
        return False
    return provider.is_acknowledged(answer.status_code, answer.content)


def _take_disturbance(store: Store, out_trade_no: str) -> Disturbance:
    name = _name(out_trade_no)
    found = store.fact(name, Disturbance)
    if found is None:
        return Disturbance(mode="normal", copies=1, times=None)
    if found.times is not None:
        with store.transaction():
            if found.times > 1:
                store.keep_fact(name, replace(found, times=found.times - 1))
            else:
                store.forget_fact(name)
    return found


def _name(out_trade_no: str) -> str:
    return f"notices:{out_trade_no}"

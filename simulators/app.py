"""Where the simulators meet: the three interfaces, the control plane and the sender of notices."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from litestar import Litestar
from litestar.di import Provide

from simulators import alipay, control, notices, wechat, wechat_pay
from simulators.alipay_wire import Alipay
from simulators.clock import now
from simulators.keys import Keys
from simulators.store import Store
from simulators.wechat_pay_wire import WeChatPay
from simulators.world import World

BODY_BYTES_MAX = 1_000_000


def _stop_unless_cancelled(sender: asyncio.Task[None]) -> None:
    # Simulators that answer and never tell would only puzzle; the reason is raised on the way out.
    if not sender.cancelled():
        signal.raise_signal(signal.SIGTERM)


def create_app(keys: Keys, *, time_scale: float) -> Litestar:
    """Return the simulators as an ASGI app, their memory in the keys' directory."""
    world = World(
        keys=keys,
        store=Store(keys.directory / "simulators.sqlite3"),
        providers={"wechat_pay": WeChatPay(keys), "alipay": Alipay(keys)},
        time_scale=time_scale,
        now=now,
    )

    @asynccontextmanager
    async def live(_: Litestar) -> AsyncIterator[None]:
        sender = asyncio.create_task(notices.run(world))
        sender.add_done_callback(_stop_unless_cancelled)
        yield
        sender.cancel()
        with suppress(asyncio.CancelledError):
            await sender
        world.store.close()

    return Litestar(
        route_handlers=[
            wechat.router(),
            wechat_pay.router(world),
            alipay.router(),
            control.router(),
        ],
        dependencies={"world": Provide(lambda: world, sync_to_thread=False)},
        lifespan=[live],
        request_max_body_size=BODY_BYTES_MAX,
        openapi_config=None,
        logging_config=None,
    )

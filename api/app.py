"""Where everything meets: `create_app` puts routes, guards, problems and services together."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from litestar import Litestar, Request, Router
from litestar.di import Provide
from litestar.static_files import create_static_files_router

from api import health, openapi, problems
from api.auth import citizen_guard, gate_guard, merchant_guard
from api.callback import providers as callbacks
from api.citizen import cards, codes, histories, me, passes, recharges, sign_ins
from api.clock import Clock, utc_now
from api.edge import Edge, refuse_unreadable
from api.gate import admissions
from api.logs import configure_logs
from api.merchant import charges
from api.operator import real_names
from api.services import Services, open_services
from api.settings import read_settings

BODY_BYTES_MAX = 128 * 1024
"""Of any request but those that carry pictures, which say so at their handler."""

ServicesOpener = Callable[[], AbstractAsyncContextManager[Services]]


def create_app(open_: ServicesOpener, clock: Clock, *, has_page: bool) -> Litestar:
    """Return the application.

    Args:
        open_: opens what handlers are given, and closes it when the application stops.
        clock: read once per request.
        has_page: whether the API's documentation is shown as a page.
    """

    @asynccontextmanager
    async def lifespan(app: Litestar) -> AsyncIterator[None]:
        async with open_() as services:
            app.state.services = services
            yield

    assets = create_static_files_router(
        path=openapi.ASSETS_PATH,
        directories=[openapi.swagger_assets()],
        include_in_schema=False,
    )
    return Litestar(
        route_handlers=[*_audiences(), *([assets] if has_page else [])],
        lifespan=[lifespan],
        dependencies={
            "services": Provide(_services, sync_to_thread=False),
            "principal": Provide(_principal, sync_to_thread=False),
        },
        exception_handlers=problems.HANDLERS,
        middleware=[Edge(clock)],
        openapi_config=openapi.openapi_config(has_page=has_page),
        request_max_body_size=BODY_BYTES_MAX,
        logging_config=None,
    )


def _audiences() -> list[Router]:
    citizen = Router(
        "",
        guards=[citizen_guard],
        security=[{"citizen": []}],
        route_handlers=[
            me.router,
            cards.router,
            codes.router,
            histories.router,
            passes.router,
            recharges.router,
        ],
    )
    return [
        Router(
            "/v1/citizen",
            before_request=refuse_unreadable,
            route_handlers=[sign_ins.router, citizen],
        ),
        Router(
            "/v1/merchant",
            before_request=refuse_unreadable,
            guards=[merchant_guard],
            security=[{"merchant": []}],
            route_handlers=[charges.router],
        ),
        Router(
            "/v1/gate",
            before_request=refuse_unreadable,
            guards=[gate_guard],
            security=[{"gate": []}],
            route_handlers=[admissions.router],
        ),
        Router(
            "/v1/operator",
            before_request=refuse_unreadable,
            route_handlers=[real_names.sign_in_router, real_names.case_router],
        ),
        callbacks.router,
    ]


def _services(request: Request[Any, Any, Any]) -> Services:
    services: Services = request.app.state.services
    return services


def _principal(request: Request[Any, Any, Any]) -> Any:
    return request.state.principal


def from_environment() -> Litestar:
    """Return the application as the settings of this process describe it (for the server)."""
    settings = read_settings()
    configure_logs()

    @asynccontextmanager
    async def opened() -> AsyncIterator[Services]:
        async with open_services(settings, utc_now) as services, health.listening(services):
            yield services

    return create_app(
        opened,
        utc_now,
        has_page=settings.environment == "development",
    )

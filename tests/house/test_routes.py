"""Every route is guarded by its audience's guard, or is one of the few that are open on purpose."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from litestar.handlers import HTTPRouteHandler
from litestar.routes import HTTPRoute

from api.app import create_app
from api.auth import citizen_guard, gate_guard, merchant_guard, operator_guard
from api.clock import utc_now
from api.services import Services

GUARD_OF: dict[str, Callable[..., Any]] = {
    "/v1/citizen/": citizen_guard,
    "/v1/merchant/": merchant_guard,
    "/v1/gate/": gate_guard,
    "/v1/operator/": operator_guard,
}

OPEN = {
    "POST /v1/citizen/sign-ins": "whoever signs in is nobody yet",
    "POST /v1/citizen/sign-ins/refresh": "the refresh token is the proof",
    "POST /v1/operator/sign-ins": "whoever signs in is nobody yet",
    "POST /v1/callback/wechat-pay": "the provider's signature is the proof",
    "POST /v1/callback/wechat-refund": "the provider's signature is the proof",
    "POST /v1/callback/alipay": "the provider's signature is the proof",
}
"""Route → why anybody may call it."""

OPEN_FOLDERS = ("/schema",)
"""The documentation and its assets."""


def _nothing() -> AbstractAsyncContextManager[Services]:
    raise AssertionError("this application is never started")


def _routes() -> dict[str, HTTPRouteHandler]:
    app = create_app(_nothing, utc_now, has_page=True)
    return {
        f"{method} {route.path_format}": handler
        for route in app.routes
        if isinstance(route, HTTPRoute) and not route.path_format.startswith(OPEN_FOLDERS)
        for handler in route.route_handlers
        for method in sorted(handler.http_methods)
        if method != "OPTIONS"
    }


def _is_guarded(route: str, handler: HTTPRouteHandler) -> bool:
    path = route.partition(" ")[2]
    guard = next((one for prefix, one in GUARD_OF.items() if path.startswith(prefix)), None)
    return guard in [getattr(one, "func", one) for one in handler.resolve_guards()]


def test_every_route_is_guarded_or_open_on_purpose() -> None:
    routes = _routes()
    assert len(routes) > 30
    unguarded = {route for route, handler in routes.items() if not _is_guarded(route, handler)}
    assert unguarded == set(OPEN)

"""Providers' callbacks: raw bytes first, verified, kept, answered in the provider's own words."""

from typing import Any

from litestar import Response, Router, post

from api.replies import AnyRequest
from api.services import Services
from wallet import fulfilment
from wallet.channels.channel import ChannelName, NoticeRefused

WECHAT_NO: dict[str, str] = {"code": "FAIL", "message": "not accepted"}


@post(["/wechat-pay", "/wechat-refund"], include_in_schema=False)
async def take_wechat_pay(request: AnyRequest) -> Response[Any]:
    """Take a notice of WeChat Pay; 204 without a body means that it need not come again."""
    if await _is_taken("wechat_pay", request):
        return Response(None, status_code=204)
    return Response(WECHAT_NO, status_code=401)


@post("/alipay", include_in_schema=False)
async def take_alipay(request: AnyRequest) -> Response[str]:
    """Take a notice of Alipay; exactly `success` means that it need not come again."""
    if await _is_taken("alipay", request):
        return Response("success", status_code=200, media_type="text/plain")
    return Response("failure", status_code=401, media_type="text/plain")


async def _is_taken(channel: ChannelName, request: AnyRequest) -> bool:
    services: Services = request.app.state.services
    try:
        await fulfilment.take_notice(
            services.cashier,
            channel,
            await request.body(),
            [(name, value) for name, value in request.headers.items()],
            now=request.state.now,
        )
    except NoticeRefused:
        return False
    return True


router = Router("/v1/callback", route_handlers=[take_wechat_pay, take_alipay])

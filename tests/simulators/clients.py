"""The unmodified SDKs, pointed at the simulators by subclassing and gateway hooks only."""

from base64 import b64encode
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.simulators.listening import Letter

# The SDKs carry no types; taken this way their names are Any, which is what they are.
wechatpy: Any = import_module("wechatpy")
wechatpy_apis: Any = import_module("wechatpy.client.api")
wechatpayv3: Any = import_module("wechatpayv3")
alipay: Any = import_module("alipay")
BEIJING = timezone(timedelta(hours=8))


def mini_program(env: Mapping[str, str]) -> Any:
    """Return wechatpy's client; its hooks are two base URLs and the token call."""
    base = env["WECHAT_BASE_URL"]

    class Wxa(wechatpy_apis.WeChatWxa):  # type: ignore[misc] # the SDK has no types to subclass
        API_BASE_URL = f"{base}/"

    class Client(wechatpy.WeChatClient):  # type: ignore[misc] # the same
        API_BASE_URL = f"{base}/cgi-bin/"
        wxa = Wxa()

        def fetch_access_token(self) -> Any:
            credentials = {"appid": self.appid, "secret": self.secret}
            return self._fetch_access_token(
                url=f"{base}/cgi-bin/token",
                params={"grant_type": "client_credential"} | credentials,
            )

    client = Client(env["WECHAT_APP_ID"], env["WECHAT_APP_SECRET"], timeout=10)
    client._http.trust_env = False
    return client


def wechat_open_id(env: Mapping[str, str], code: str) -> str:
    """Return who signs in with that code."""
    client = mini_program(env)
    try:
        return str(client.wxa.code_to_session(code)["openid"])
    finally:
        client._http.close()


def wechat_pay(env: Mapping[str, str], *, notify_url: str) -> Any:
    """Return wechatpayv3's client in public-key mode; its hook is the gateway's address."""
    pay = wechatpayv3.WeChatPay(
        wechatpay_type=wechatpayv3.WeChatPayType.MINIPROG,
        mchid=env["WECHAT_PAY_MCH_ID"],
        private_key=Path(env["WECHAT_PAY_MCH_KEY_FILE"]).read_text(),
        cert_serial_no=env["WECHAT_PAY_MCH_SERIAL"],
        appid=env["WECHAT_APP_ID"],
        apiv3_key=env["WECHAT_PAY_API_V3_KEY"],
        notify_url=notify_url,
        public_key=Path(env["WECHAT_PAY_PUBLIC_KEY_FILE"]).read_text(),
        public_key_id=env["WECHAT_PAY_PUBLIC_KEY_ID"],
        timeout=10,
    )
    pay._core._gate_way = env["WECHAT_PAY_BASE_URL"]
    return pay


def alipay_app(env: Mapping[str, str], *, at: datetime) -> Any:
    """Return python-alipay-sdk's client; its hooks are the gateway and the time of a request."""

    class App(alipay.AliPay):  # type: ignore[misc] # the SDK has no types to subclass
        def build_body(self, *args: Any, **kwargs: Any) -> Any:
            # The SDK writes the host's local time, where Alipay wants Beijing's.
            beijing = at.astimezone(BEIJING)
            return super().build_body(*args, **kwargs) | {"timestamp": f"{beijing:%F %T}"}

    app = App(
        appid=env["ALIPAY_APP_ID"],
        app_private_key_string=Path(env["ALIPAY_APP_KEY_FILE"]).read_text(),
        alipay_public_key_string=Path(env["ALIPAY_PUBLIC_KEY_FILE"]).read_text(),
    )
    app._gateway = env["ALIPAY_GATEWAY_URL"]
    return app


def alipay_news(app: Any, letter: Letter) -> dict[str, str] | None:
    """Return an Alipay notification's fields if the SDK verifies them, else None."""
    fields = dict(parse_qsl(letter.body.decode(), strict_parsing=True))
    signature = fields.pop("sign")
    return fields if app.verify(dict(fields), signature) else None


def merchant_authorization(
    env: Mapping[str, str], *, method: str, target: str, body: bytes, at: datetime
) -> str:
    """Return the header of a request to WeChat Pay as signed at that moment."""
    pem = Path(env["WECHAT_PAY_MCH_KEY_FILE"]).read_bytes()
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, RSAPrivateKey)
    timestamp, nonce = int(at.timestamp()), "0123456789abcdef"
    signed = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
    signature = b64encode(key.sign(signed, PKCS1v15(), SHA256())).decode()
    return (
        f'WECHATPAY2-SHA256-RSA2048 mchid="{env["WECHAT_PAY_MCH_ID"]}",nonce_str="{nonce}",'
        f'signature="{signature}",timestamp="{timestamp}",'
        f'serial_no="{env["WECHAT_PAY_MCH_SERIAL"]}"'
    )

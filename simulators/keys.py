"""The keys, ids and secrets of both sides: made at the first start, kept ever after.

Of every pair the simulators use one half only: the merchant's and the app's public keys, the
platforms' private ones. The other halves are for our app, which finds them through
`providers.env`.
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from secrets import randbelow, token_bytes, token_hex

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

MERCHANT_KEY = "wechat-pay-merchant.pem"
WECHAT_PLATFORM_KEY = "wechat-pay-platform.pem"
WECHAT_PLATFORM_PUBLIC = "wechat-pay-platform-public.pem"
APP_KEY = "alipay-app.pem"
ALIPAY_PLATFORM_KEY = "alipay-platform.pem"
ALIPAY_PLATFORM_PUBLIC = "alipay-platform-public.pem"
ENV_FILE = "providers.env"
_PAIRS = {
    MERCHANT_KEY: None,
    WECHAT_PLATFORM_KEY: WECHAT_PLATFORM_PUBLIC,
    APP_KEY: None,
    ALIPAY_PLATFORM_KEY: ALIPAY_PLATFORM_PUBLIC,
}
_IDS_FILE = "ids.json"


class Ids(msgspec.Struct, frozen=True):
    """Who we are at the two providers, and the secrets that are not key pairs."""

    wechat_app_id: str
    wechat_app_secret: str
    mch_id: str
    mch_serial: str
    api_v3_key: str
    wechat_public_key_id: str
    alipay_app_id: str
    alipay_seller_id: str
    alipay_aes_key: str


@dataclass(frozen=True, kw_only=True)
class Keys:
    """What the simulators verify with and sign with."""

    directory: Path
    ids: Ids
    merchant: RSAPublicKey
    wechat_platform: RSAPrivateKey
    alipay_app: RSAPublicKey
    alipay_platform: RSAPrivateKey

    @property
    def api_v3_key(self) -> bytes:
        """The 32 bytes that notifications are encrypted with."""
        return self.ids.api_v3_key.encode()

    @property
    def alipay_aes_key(self) -> bytes:
        """The 16 bytes that phone numbers are encrypted with."""
        return b64decode(self.ids.alipay_aes_key)


def make(directory: Path) -> Keys:
    """Return the keys kept in `directory`, made now if there are none yet."""
    directory = directory.resolve()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    ids_file = directory / _IDS_FILE
    if not ids_file.exists():
        _make_pairs(directory)
        # The ids come last: a start that was killed halfway begins anew, with whole sets only.
        _write(ids_file, msgspec.json.encode(_make_ids()))
    return Keys(
        directory=directory,
        ids=msgspec.json.decode(ids_file.read_bytes(), type=Ids),
        merchant=_load(directory / MERCHANT_KEY).public_key(),
        wechat_platform=_load(directory / WECHAT_PLATFORM_KEY),
        alipay_app=_load(directory / APP_KEY).public_key(),
        alipay_platform=_load(directory / ALIPAY_PLATFORM_KEY),
    )


def env(keys: Keys, url: str) -> dict[str, str]:
    """Return the settings with which our app finds and trusts simulators at `url`."""
    ids, directory = keys.ids, keys.directory
    return {
        "WECHAT_BASE_URL": url,
        "WECHAT_APP_ID": ids.wechat_app_id,
        "WECHAT_APP_SECRET": ids.wechat_app_secret,
        "WECHAT_PAY_BASE_URL": url,
        "WECHAT_PAY_MCH_ID": ids.mch_id,
        "WECHAT_PAY_MCH_SERIAL": ids.mch_serial,
        "WECHAT_PAY_MCH_KEY_FILE": str(directory / MERCHANT_KEY),
        "WECHAT_PAY_API_V3_KEY": ids.api_v3_key,
        "WECHAT_PAY_PUBLIC_KEY_ID": ids.wechat_public_key_id,
        "WECHAT_PAY_PUBLIC_KEY_FILE": str(directory / WECHAT_PLATFORM_PUBLIC),
        "ALIPAY_GATEWAY_URL": f"{url}/gateway.do",
        "ALIPAY_APP_ID": ids.alipay_app_id,
        "ALIPAY_APP_KEY_FILE": str(directory / APP_KEY),
        "ALIPAY_PUBLIC_KEY_FILE": str(directory / ALIPAY_PLATFORM_PUBLIC),
        "ALIPAY_SELLER_ID": ids.alipay_seller_id,
        "ALIPAY_AES_KEY": ids.alipay_aes_key,
        "SIMULATORS_CONTROL_URL": f"{url}/_ctl",
    }


def write_env(keys: Keys, url: str) -> Path:
    """Write `providers.env` anew, since the port may be another one than last time."""
    path = keys.directory / ENV_FILE
    lines = [f"{name}={value}\n" for name, value in env(keys, url).items()]
    _write(path, "".join(lines).encode())
    return path


def digits(count: int) -> str:
    """Return so many random decimal digits."""
    return f"{randbelow(10**count):0{count}d}"


def _make_pairs(directory: Path) -> None:
    for private_name, public_name in _PAIRS.items():
        key = generate_private_key(public_exponent=65537, key_size=2048)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(directory / private_name, private)
        if public_name is not None:
            public = key.public_key()
            pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            _write(directory / public_name, pem)


def _make_ids() -> Ids:
    return Ids(
        wechat_app_id=f"wx{token_hex(8)}",
        wechat_app_secret=token_hex(16),
        mch_id=f"16{digits(8)}",
        mch_serial=token_hex(20).upper(),
        api_v3_key=token_hex(16),
        wechat_public_key_id=f"PUB_KEY_ID_01{digits(26)}",
        alipay_app_id=f"2021{digits(12)}",
        alipay_seller_id=f"2088{digits(12)}",
        alipay_aes_key=b64encode(token_bytes(16)).decode(),
    )


def _load(path: Path) -> RSAPrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, RSAPrivateKey):
        raise TypeError(f"{path.name} is not an RSA key")
    return key


def _write(path: Path, content: bytes) -> None:
    # Written aside and renamed, so that a reader never sees half a file.
    aside = path.with_name(f".{path.name}.new")
    aside.unlink(missing_ok=True)
    aside.touch(mode=0o600)
    aside.write_bytes(content)
    aside.replace(path)

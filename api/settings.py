"""Settings (配置): the one reader of the environment, decoded once into a frozen Struct.

Names are `YUANKA_…` but for the providers' own, which may also stand in the file that
`YUANKA_PROVIDERS_FILE` names: the simulators write one, production mounts one, and only the values
differ. docs/settings.md lists them all.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec

PREFIX = "YUANKA_"

AUTHORITY_PATTERN = r"^(?!.*:(80|443)$)([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?$|^$"


class SettingsRefused(Exception):
    """The process cannot start with these settings; the text says which and what to do."""


class WeChat(msgspec.Struct, frozen=True, kw_only=True):
    """The mini-program at WeChat."""

    base_url: str
    app_id: str
    app_secret: str


class WeChatPay(msgspec.Struct, frozen=True, kw_only=True):
    """The merchant at WeChat Pay v3, public-key mode."""

    base_url: str
    mch_id: str
    mch_serial: str
    mch_key_file: Path
    api_v3_key: str
    public_key_id: str
    public_key_file: Path


class Alipay(msgspec.Struct, frozen=True, kw_only=True):
    """The mini-program and merchant at Alipay, key mode."""

    gateway_url: str
    app_id: str
    app_key_file: Path
    public_key_file: Path
    seller_id: str
    aes_key: str


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a process is told from outside."""

    environment: Literal["production", "development"] = "production"
    database_url: str
    """`postgresql://…`; without it `make demo` and the tests start their own server."""
    schema: Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,62}$")] = "yuanka"
    """The PostgreSQL schema that holds this issuer's tables."""
    issuer: Annotated[int, msgspec.Meta(ge=1, le=2**32 - 1)] = 32020001
    """GB/T 2260 city code and two digits (code-format.md §1)."""
    key_ring_file: Path
    host: str = "127.0.0.1"
    port: int = 8000
    management_port: int = 8001
    authority: Annotated[str, msgspec.Meta(pattern=AUTHORITY_PATTERN)] = ""
    """host:port that machines sign; by default `host:port`. Lower case, and without the port where
    it is the scheme's own (RFC 9421 §2.2.3), or no client would ever sign the same."""
    public_url: str = ""
    """Where providers reach us; by default `http://authority`."""
    workers: int = 1
    connections_max: int = 10
    wechat: WeChat
    wechat_pay: WeChatPay
    alipay: Alipay

    @property
    def signed_authority(self) -> str:
        """Return the `@authority` that signatures must name."""
        return self.authority or f"{self.host}:{self.port}"

    @property
    def callback_url(self) -> str:
        """Return the address under which providers find our callbacks."""
        return (self.public_url or f"http://{self.signed_authority}") + "/v1/callback"


DEMO_FOLDER = Path("var/demo")
DEMO_SETTINGS = DEMO_FOLDER / "demo.env"
"""What the demo's processes are told; commands in the same folder read it where nothing else is."""


def given_port() -> int:
    """Return the first of the ports that the demo takes.

    Raises:
        SettingsRefused: YUANKA_PORT is not a port.
    """
    given = os.environ.get("YUANKA_PORT", "8000")  # noqa: TID251  # the one reader
    if not given.isdigit() or not 1024 <= int(given) <= 65_533:  # noqa: PLR2004
        raise SettingsRefused("YUANKA_PORT must be a number from 1024 to 65533")
    return int(given)


def given_database_url() -> str | None:
    """Return the server that is used instead of the embedded one, if one is named."""
    return os.environ.get("YUANKA_DATABASE_URL")  # noqa: TID251  # the one reader


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of this process.

    Raises:
        SettingsRefused: something is missing, unknown or malformed.
    """
    given = dict(os.environ if environment is None else environment)  # noqa: TID251  # the reader
    if environment is None and "YUANKA_KEY_RING_FILE" not in given and DEMO_SETTINGS.exists():
        given = {**given, **read_env_file(DEMO_SETTINGS)}
    file = given.pop("YUANKA_PROVIDERS_FILE", None)
    if file:
        given = {**read_env_file(Path(file)), **given}
    values: dict[str, object] = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in given.items()
        if name.startswith(PREFIX) and name.removeprefix(PREFIX).lower() not in NOT_OF_A_PROCESS
    }
    unknown = sorted(set(values) - set(Settings.__struct_fields__))
    if unknown:
        names = ", ".join(PREFIX + name.upper() for name in unknown)
        raise SettingsRefused(f"unknown settings: {names}; docs/settings.md lists the known ones")
    for group, prefix in (
        ("wechat_pay", "WECHAT_PAY_"),
        ("wechat", "WECHAT_"),
        ("alipay", "ALIPAY_"),
    ):
        values[group] = {
            name.removeprefix(prefix).lower(): value
            for name, value in given.items()
            if name.startswith(prefix)
            and not (prefix == "WECHAT_" and name.startswith("WECHAT_PAY_"))
        }
    try:
        return msgspec.convert(values, Settings, strict=False, dec_hook=_path)
    except msgspec.ValidationError as problem:
        raise SettingsRefused(f"{problem}; docs/settings.md says what is needed") from problem


def _path(kind: type, value: object) -> Path:
    """Read a path, the one type here that the decoder does not know."""
    assert kind is Path
    return Path(str(value))


NOT_OF_A_PROCESS = frozenset({"face_set", "test_database_url", "demo_dir"})
"""Names that tests and the demo read; they are no settings of a server."""


def read_env_file(path: Path) -> dict[str, str]:
    """Return the KEY=VALUE lines of a file; empty lines and lines with `#` in front are skipped.

    Raises:
        SettingsRefused: the file cannot be read, or a line is not of that form.
    """
    try:
        lines = path.read_text().splitlines()
    except OSError as problem:
        raise SettingsRefused(f"cannot read {path}: {problem.strerror}") from problem
    pairs = {}
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        name, equals, value = line.partition("=")
        if not equals:
            raise SettingsRefused(f"{path}: a line is not NAME=VALUE")
        pairs[name.strip()] = value.strip()
    return pairs

"""`access.json` (api.md, "Demo data"): how a newcomer, the tour and the benches reach the demo."""

from pathlib import Path

import msgspec


class MerchantAccess(msgspec.Struct, frozen=True):
    """A merchant's key; the demo made it, so it has the private half too."""

    name: str
    kind: str
    keyid: str
    private_key_pem: str


class GateAccess(msgspec.Struct, frozen=True):
    """A gate's key."""

    name: str
    park: str
    keyid: str
    private_key_pem: str


class OperatorAccess(msgspec.Struct, frozen=True):
    """An operator's sign-in."""

    login: str
    password: str
    totp_secret: str


class Pages(msgspec.Struct, frozen=True):
    """Addresses of the pages; null until they exist."""

    citizen: str | None = None
    merchant: str | None = None
    gate: str | None = None
    operator: str | None = None


class SimulatorAccess(msgspec.Struct, frozen=True):
    """Where the providers' simulators are told what to do."""

    control: str


class Access(msgspec.Struct, frozen=True):
    """Everything that the demo lets a newcomer use."""

    api: str
    management: str
    merchants: list[MerchantAccess]
    gates: list[GateAccess]
    operators: list[OperatorAccess]
    simulators: SimulatorAccess
    pages: Pages = Pages()


def read_access(path: Path) -> Access:
    """Return what a file of this form says."""
    return msgspec.json.decode(path.read_bytes(), type=Access)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, all of it or none."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_bytes(data)
    fresh.rename(path)

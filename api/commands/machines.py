"""Keys of the demo's machines (机具密钥): made here, both halves, which production never sees."""

from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy.ext.asyncio import AsyncSession

from identity import machine_keys
from identity.machine_keys import OwnerKind
from identity.signatures import dump_private_key, raw_public_key


def register_key(
    session: AsyncSession, owner_kind: OwnerKind, owner_id: UUID, now: datetime
) -> tuple[str, str]:
    """Make and register a key; return its id and the private half, which production never sees."""
    private_key = Ed25519PrivateKey.generate()
    keyid = f"{owner_kind}-{owner_id.hex}"
    machine_keys.register(
        session,
        keyid=keyid,
        owner_kind=owner_kind,
        owner_id=owner_id,
        public_key=raw_public_key(private_key),
        now=now,
    )
    return keyid, dump_private_key(private_key).decode()

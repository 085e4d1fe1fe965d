"""What a process holds while it runs: the database, the writer, keys, channels. Opened once."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple
from uuid import UUID

import msgspec

from api.clock import Clock
from api.settings import Settings
from identity import access_tokens, machine_keys
from identity.access_tokens import TokenKeys
from identity.devices.devices import Gate
from identity.kernel import Database, TimedCache
from identity.machine_keys import KnownKey
from identity.merchants.merchants import Merchant
from identity.providers.alipay import AlipaySignIn, AlipaySignInSettings
from identity.providers.alipay_gateway import AlipayGateway, AlipayGatewaySettings
from identity.providers.provider import ProviderName, SignInProvider
from identity.providers.wechat import WechatSettings, WechatSignIn
from identity.sealing import KeyRing, load_ring
from wallet.admission.parks import Park
from wallet.channels.alipay import Alipay, AlipaySettings
from wallet.channels.channel import Channel, ChannelName
from wallet.channels.wechat_pay import WechatPay, WechatPaySettings
from wallet.codes.presentations import Issuer
from wallet.codes.suites import SUITES, self_test
from wallet.codes.trust import Trust, parse_trust
from wallet.codes.verifier import Memory
from wallet.fulfilment import Cashier, Us
from wallet.ledger.accounts import account_id
from wallet.ledger.chart import Kind
from wallet.ledger.posting import Poster

CHANGES_SEEN_WITHIN_SECONDS = 5.0
"""How long a process may work with a key, a gate or a park's hours as they were."""

VERIFY_AFTER_SIGNING_SECONDS = 80 * 3600
"""How long a key verifies after its last signature (code-format.md §3)."""


class Till(NamedTuple):
    """A merchant's account, and whether it may charge cards now."""

    payable_id: int
    may_charge: bool


class GateSite(NamedTuple):
    """A gate and the park it stands at."""

    gate_id: UUID
    park: Park


class Services(NamedTuple):
    """Everything that handlers are given."""

    settings: Settings
    clock: Clock
    db: Database
    poster: Poster
    ring: KeyRing
    token_keys: TokenKeys
    issuer: Issuer
    sign_in_providers: Mapping[ProviderName, SignInProvider]
    cashier: Cashier
    keys: TimedCache[str, KnownKey]
    gates: TimedCache[UUID, GateSite]
    tills: TimedCache[UUID, Till]


@asynccontextmanager
async def open_services(settings: Settings, clock: Clock) -> AsyncIterator[Services]:
    """Open what a process needs, and close it in the opposite order.

    Raises:
        KeyRingRefused: the key ring may not be used.
        SelfTestFailed: a crypto library does not compute what the standards say.
    """
    self_test()
    ring = load_ring(settings.key_ring_file, is_production=settings.environment == "production")
    async with AsyncExitStack() as stack:
        db = await Database.open(
            settings.database_url,
            schema=settings.schema,
            connections_max=settings.connections_max,
        )
        stack.push_async_callback(db.close)
        poster = await stack.enter_async_context(Poster(db))
        wechat = WechatSignIn(_wechat(settings), clock)
        wechat_pay = WechatPay(_wechat_pay(settings), clock)
        gateway = AlipayGateway(_alipay(settings), clock)
        for connected in (wechat, wechat_pay, gateway):
            stack.push_async_callback(connected.disconnect)
        providers: dict[ProviderName, SignInProvider] = {
            "wechat": wechat,
            "alipay": AlipaySignIn(gateway, AlipaySignInSettings(aes_key=settings.alipay.aes_key)),
        }
        alipay_urls = f"{settings.callback_url}/alipay"
        channels: dict[ChannelName, Channel] = {
            "wechat_pay": wechat_pay,
            "alipay": Alipay(
                gateway,
                AlipaySettings(seller_id=settings.alipay.seller_id, notify_url=alipay_urls),
            ),
        }
        issuer = Issuer(settings.issuer, ring, trust_of(ring, settings.issuer), Memory())
        yield Services(
            settings=settings,
            clock=clock,
            db=db,
            poster=poster,
            ring=ring,
            token_keys=access_tokens.keys_of(ring),
            issuer=issuer,
            sign_in_providers=providers,
            cashier=Cashier(db, poster, channels, us_at(settings)),
            keys=TimedCache(
                lambda keyid: machine_keys.find(db, keyid), seconds=machine_keys.KEY_CACHE_SECONDS
            ),
            tills=TimedCache(
                lambda merchant_id: _find_till(db, merchant_id), seconds=CHANGES_SEEN_WITHIN_SECONDS
            ),
            gates=TimedCache(
                lambda gate_id: _find_gate(db, gate_id), seconds=CHANGES_SEEN_WITHIN_SECONDS
            ),
        )


def _wechat(settings: Settings) -> WechatSettings:
    ours = settings.wechat
    return WechatSettings(base_url=ours.base_url, app_id=ours.app_id, app_secret=ours.app_secret)


def _wechat_pay(settings: Settings) -> WechatPaySettings:
    ours = settings.wechat_pay
    return WechatPaySettings(
        base_url=ours.base_url,
        app_id=settings.wechat.app_id,
        mch_id=ours.mch_id,
        mch_serial=ours.mch_serial,
        mch_private_key=ours.mch_key_file.read_text(),
        api_v3_key=ours.api_v3_key,
        public_keys={ours.public_key_id: ours.public_key_file.read_text()},
        notify_url=f"{settings.callback_url}/wechat-pay",
        refund_notify_url=f"{settings.callback_url}/wechat-refund",
    )


def _alipay(settings: Settings) -> AlipayGatewaySettings:
    ours = settings.alipay
    return AlipayGatewaySettings(
        gateway_url=ours.gateway_url,
        app_id=ours.app_id,
        app_private_key=ours.app_key_file.read_text(),
        alipay_public_key=ours.public_key_file.read_text(),
    )


def us_at(settings: Settings) -> dict[ChannelName, Us]:
    """Return who we are at each provider."""
    return {
        "wechat_pay": Us(settings.wechat.app_id, settings.wechat_pay.mch_id),
        "alipay": Us(settings.alipay.app_id, settings.alipay.seller_id),
    }


def trust_of(ring: KeyRing, issuer: int) -> Trust:
    """Return the trust in our own city's keys."""
    return parse_trust(msgspec.json.encode(trust_document(ring, issuer)))


def trust_document(ring: KeyRing, issuer: int) -> dict[str, object]:
    """Return our own keys in the bare form that `yuanka code check --trust` reads (api.md)."""
    keys = [
        {
            "kid": key.kid,
            "suite": key.suite,
            "pub": SUITES[key.suite].public_key(key.private_key.reveal()).hex(),
            "types": [1],
            "verify_until": key.sign_until + VERIFY_AFTER_SIGNING_SECONDS,
        }
        for key in ring.issuer_keys
    ]
    return {"issuers": [{"iss": issuer, "keys": keys}]}


async def _find_till(db: Database, merchant_id: UUID) -> Till:
    async with db.begin() as session:
        merchant = await session.get_one(Merchant, merchant_id)
        payable_id = await account_id(session, Kind.MERCHANT_PAYABLE, merchant_id)
        return Till(payable_id, merchant.state == "active")


async def _find_gate(db: Database, gate_id: UUID) -> GateSite | None:
    async with db.begin() as session:
        gate = await session.get(Gate, gate_id)
        if gate is None or gate.state != "active":
            return None
        park = await session.get(Park, gate.site_id)
        return GateSite(gate_id, park) if park else None

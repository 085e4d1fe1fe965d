"""Fulfilment (兑现): what a provider proved becomes money on the card, once; and back out again.

Top of the wallet: the one file that knows attempts, recharges, refunds and closures together. A
verified notice of a payment credits in its own short transaction; every other notice is a hint, and
the provider is asked (security-and-reliability.md A3). Jobs here are idempotent and take ids only.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple
from uuid import UUID, uuid5

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from identity.kernel import Database, Refusal, defer, new_id
from identity.request_numbers import Claim, RequestNumberReused
from wallet.channels import attempts, notices
from wallet.channels.attempts import ATTEMPTS, Attempt, LockedAttempt
from wallet.channels.channel import (
    Channel,
    ChannelName,
    ChannelRefused,
    ChannelUnknown,
    Found,
    Headers,
    NewRefund,
    Notice,
    NoticeRefused,
)
from wallet.codes.reasons import Reason
from wallet.ledger.accounts import CITY, account_id
from wallet.ledger.chart import Kind
from wallet.ledger.plans import ACCOUNTS, Change, Decision, Lock, NewTransfer, Posting, Rows
from wallet.ledger.posting import Poster
from wallet.ledger.transfers import Move
from wallet.recharge import closures, recharges, refunds
from wallet.recharge.recharges import RECHARGES, LockedRecharge, Recharge
from wallet.recharge.refunds import Purse, RechargeRefund

log = structlog.get_logger()

CLEARING: dict[str, Kind] = {
    "wechat_pay": Kind.CLEARING_WECHAT_PAY,
    "alipay": Kind.CLEARING_ALIPAY,
}


class Us(NamedTuple):
    """Who we are at a provider: what a genuine message about our money names."""

    app_id: str
    merchant_id: str


class Cashier(NamedTuple):
    """What a process needs to deal with providers; a worker hands it to every job."""

    db: Database
    poster: Poster
    channels: Mapping[ChannelName, Channel]
    us: Mapping[ChannelName, Us]


async def take_notice(
    cashier: Cashier, channel: ChannelName, raw_body: bytes, headers: Headers, *, now: datetime
) -> None:
    """Take a provider's message: keep it, and act on it once. No outbound call is made here.

    Raises:
        NoticeRefused: it is not the provider's, or not fresh; it is kept for inspection.
    """
    # As pairs, since a header that comes twice is for the verifier to refuse.
    pairs = list(headers.items() if isinstance(headers, Mapping) else headers)
    try:
        notice = cashier.channels[channel].notice_of(raw_body, pairs)
    except NoticeRefused as refused:
        async with cashier.db.begin() as session:
            await notices.quarantine(
                session,
                channel,
                problem=refused.problem,
                raw_body=raw_body,
                headers=dict(pairs),
                now=now,
            )
        log.warning("notice_refused", channel=channel, problem=refused.problem)
        raise
    async with cashier.db.begin() as session:
        attempt = await attempts.find(session, channel, notice.out_trade_no)
        problem = _mismatch(attempt, _found(notice), cashier.us[channel])
        await notices.keep(
            session, notice, raw_body=raw_body, headers=dict(pairs), problem=problem, now=now
        )
        is_payment = notice.kind == "payment" and notice.state == "paid"
        if attempt and not problem and not is_payment:
            await _defer_question(session, notice, attempt)
    if problem:
        # Acknowledged all the same, so that the provider stops; people look at what was kept.
        log.error("notice_mismatch", channel=channel, problem=problem)
    elif attempt and is_payment:
        await credit(cashier, attempt, _found(notice), now=now)


async def credit(cashier: Cashier, attempt: Attempt, found: Found, *, now: datetime) -> None:
    """Book a proven payment, once per payment at the provider.

    Posting: clearing → card.principal; clearing → suspense.unknown_in where the card is closed or
    the recharge was credited for another payment, so that people of ours give it back.

    Args:
        cashier: this process's means.
        attempt: the attempt that was paid.
        found: what the provider proved; amount, currency, app and merchant were compared.
        now: the instant.
    """
    channel_txn_no = found.channel_txn_no
    assert channel_txn_no, "a payment has a number at the provider"
    paid_at = found.paid_at or now
    async with cashier.db.begin() as session:
        recharge = await session.get_one(Recharge, attempt.order_id)
        principal_id = await account_id(session, Kind.CARD_PRINCIPAL, recharge.card_id)
        clearing_id = await account_id(session, CLEARING[attempt.channel])
        suspense_id = await account_id(session, Kind.SUSPENSE_UNKNOWN_IN)

    def decide(rows: Rows) -> Decision[None]:
        order, old = rows.get(RECHARGES, recharge.id), rows.get(ATTEMPTS, attempt.id)
        is_closed = rows.get(ACCOUNTS, principal_id).blocked == Reason.CLOSED
        is_due = order.credited_at is None and not is_closed
        moves = (Move(clearing_id, principal_id if is_due else suspense_id, attempt.amount_fen),)
        kind = "recharge.credit" if is_due else "recharge.unknown"
        # A payment that is not due is its own business, however many of them there are.
        business_id = recharge.id if is_due else uuid5(attempt.id, channel_txn_no)
        changes = []
        if old.state != "paid":
            proven = LockedAttempt(old.id, "paid", channel_txn_no, paid_at, found.funding)
            changes.append(Change(ATTEMPTS, proven))
        if is_due:
            changes.append(
                Change(
                    RECHARGES,
                    LockedRecharge(order.id, order.card_id, order.amount_fen, 0, "succeeded", now),
                )
            )
        return Decision(
            None,
            transfers=(NewTransfer(new_id(now), kind, business_id, moves),),
            changes=tuple(changes),
        )

    # The payment's own number at the provider makes it happen once (ledger.md C.4.9).
    owner = uuid5(CITY, f"{attempt.channel}/{cashier.us[_name(attempt)].merchant_id}")
    claim = Claim(
        "channel.payment", owner, channel_txn_no, attempt.out_trade_no.encode(), attempt.id
    )
    locks: tuple[Lock, ...] = (
        (RECHARGES, recharge.id),
        (ATTEMPTS, attempt.id),
        *((ACCOUNTS, account) for account in (principal_id, clearing_id, suspense_id)),
    )
    try:
        await cashier.poster.post(Posting(claim, locks, decide, now))
    except RequestNumberReused:
        log.exception("payment_number_twice", channel=attempt.channel)


async def ask(cashier: Cashier, attempt: Attempt, *, now: datetime) -> Found:
    """Ask the provider about an attempt, and book what it proves.

    Raises:
        ChannelUnknown, ChannelRefused: the provider says nothing that can be used.
    """
    name = _name(attempt)
    found = await cashier.channels[name].query(attempt.out_trade_no)
    if found.state == "paid":
        problem = _mismatch(attempt, found, cashier.us[name])
        if problem:
            log.error("answer_mismatch", channel=name, problem=problem)
        else:
            await credit(cashier, attempt, found, now=now)
    elif found.state in {"closed", "refunded"}:
        if found.state == "refunded" and attempt.state == "sent":
            # Paid and given back behind our back: crediting it now would be money twice.
            log.error("payment_given_back_unseen", channel=name, attempt_id=str(attempt.id))
        async with cashier.db.begin() as session:
            await recharges.close_unpaid(session, attempt)
    return found


async def poll(cashier: Cashier, *, now: datetime) -> None:
    """Job by the clock: whatever is open and due, ask and go on with it.

    The schedules stand in the rows, so that what a killed process left half done is taken up by
    the next one: attempts that may be paid, refunds under way, cards that are being closed.
    """
    async with cashier.db.begin() as session:
        attempt_ids = await attempts.take_due(session, now=now)
        refund_ids = await refunds.take_due(session, now=now)
        card_ids = await closures.closing(session)
    due = (
        *((query_attempt, attempt_id) for attempt_id in attempt_ids),
        *((try_refund, refund_id) for refund_id in refund_ids),
        *((finish_closure, card_id) for card_id in card_ids),
    )
    for go_on, row_id in due:
        try:
            await go_on(cashier, row_id, now=now)
        except Refusal as refusal:
            # A busy row or a database that went away for a moment: the schedule comes back to this
            # one, and the others of this round must not wait for that.
            log.warning("poll_interrupted", problem=refusal.code)


async def query_attempt(cashier: Cashier, attempt_id: UUID, *, now: datetime) -> None:
    """Job: ask about an attempt that is still open; once its time is over, close it first."""
    async with cashier.db.begin() as session:
        attempt = await session.get_one(Attempt, attempt_id)
    if attempt.state != "sent":
        return
    try:
        if now >= attempt.expires_at:
            await _expire(cashier, attempt, now=now)
        else:
            await ask(cashier, attempt, now=now)
    except (ChannelUnknown, ChannelRefused) as problem:
        log.info("attempt_still_unknown", attempt_id=str(attempt_id), problem=problem.code)


async def _expire(cashier: Cashier, attempt: Attempt, *, now: datetime) -> None:
    """Close an unpaid attempt: at the provider first, then ask, then here (channels.md E).

    Where the provider still calls it payable it stays open, and the schedule comes back to it.
    """
    try:
        await cashier.channels[_name(attempt)].close(attempt.out_trade_no)
    except ChannelRefused:
        log.info("close_refused", attempt_id=str(attempt.id))
    found = await ask(cashier, attempt, now=now)
    if found.state == "absent":
        # It never reached the provider, and its time is over: nobody can pay it any more.
        async with cashier.db.begin() as session:
            await recharges.close_unpaid(session, attempt)


async def try_refund(cashier: Cashier, refund_id: UUID, *, now: datetime) -> bool:
    """Job: send a refund, or learn what became of it; return whether it is finished.

    The number stays the same on every repeat, so nothing is paid out twice; unknown is not failed.
    """
    async with cashier.db.begin() as session:
        refund = await session.get_one(RechargeRefund, refund_id)
        if refund.state != "processing":
            return True
        attempt = await attempts.newest(session, refund.recharge_id)
        purse = await purse_of(session, refund.card_id)
        clearing_id = await account_id(session, CLEARING[attempt.channel])
    order = NewRefund(
        out_trade_no=attempt.out_trade_no,
        out_refund_no=refund.refund_no,
        amount_fen=refund.amount_fen,
        total_fen=attempt.amount_fen,
        reason=refund.reason,
    )
    try:
        found = await cashier.channels[_name(attempt)].refund(order)
    except (ChannelUnknown, ChannelRefused) as problem:
        log.warning("refund_not_confirmed", refund_id=str(refund_id), problem=problem.code)
        return False
    is_finished = await refunds.finish(
        cashier.poster, refund, found, purse=purse, clearing_id=clearing_id, now=now
    )
    if is_finished:
        await closures.finish(cashier.db, refund.card_id, now=now)
    return is_finished


async def finish_closure(cashier: Cashier, card_id: UUID, *, now: datetime) -> None:
    """Send a closing card's money back, as far as that is not done, and close it when all is."""
    async with cashier.db.begin() as session:
        purse = await purse_of(session, card_id)
    try:
        await closures.pay_out(cashier.db, cashier.poster, purse, now=now)
    except Refusal as refusal:
        log.warning("closure_not_finished", problem=refusal.code)
    await closures.finish(cashier.db, card_id, now=now)


async def purse_of(session: AsyncSession, card_id: UUID) -> Purse:
    """Return the accounts that a card's refunds move money between."""
    return Purse(
        card_id,
        await account_id(session, Kind.CARD_PRINCIPAL, card_id),
        await account_id(session, Kind.REFUND_PAYABLE),
    )


def _name(attempt: Attempt) -> ChannelName:
    return "alipay" if attempt.channel == "alipay" else "wechat_pay"


def _found(notice: Notice) -> Found:
    """Return what a notice says in the form of an answer to a query."""
    return Found(
        out_trade_no=notice.out_trade_no,
        state="paid",
        amount_fen=notice.total_fen,
        currency=notice.currency,
        app_id=notice.app_id,
        merchant_id=notice.merchant_id,
        channel_txn_no=notice.channel_txn_no,
        paid_at=notice.at,
    )


def _mismatch(attempt: Attempt | None, found: Found, us: Us) -> str | None:
    """Return what does not fit our own order, or None.

    The order's total counts, never what the payer paid after coupons.
    """
    if attempt is None:
        return "unknown-order"
    if found.merchant_id not in {None, us.merchant_id} or found.app_id not in {None, us.app_id}:
        return "merchant-mismatch"
    if found.amount_fen != attempt.amount_fen or found.currency not in {None, "CNY"}:
        return "amount-mismatch"
    return None


async def _defer_question(session: AsyncSession, notice: Notice, attempt: Attempt) -> None:
    if notice.kind == "refund" and notice.out_refund_no:
        refund = await refunds.find_by_no(session, notice.out_refund_no)
        if refund:
            await defer(session, "wallet.fulfilment:try_refund", refund_id=str(refund.id))
            return
    await defer(session, "wallet.fulfilment:query_attempt", attempt_id=str(attempt.id))

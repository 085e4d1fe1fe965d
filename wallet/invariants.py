"""What must hold of the books at every commit (不变量): one function each (ledger.md C.3).

Tests, `yuanka prove` and the crash harness call the same functions. Each returns the faults it
finds, with the account or row and the difference; none means that it holds. All read one snapshot.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from identity.kernel import Database

FAULTS_MAX = 20
"""As many faults are listed per invariant; one is enough to stop payouts."""


class Fault(NamedTuple):
    """One place where an invariant does not hold."""

    where: str
    difference: int


Check = Callable[[AsyncSession], Awaitable[list[Fault]]]


class Invariant(NamedTuple):
    """A sentence about the books, and how to find out."""

    name: str
    says: str
    check: Check


class Proof(NamedTuple):
    """What became of one invariant."""

    invariant: Invariant
    faults: list[Fault]


async def _faults(session: AsyncSession, sql: str) -> list[Fault]:
    """Return the first rows of a query whose rows are faults: (where, difference)."""
    rows = await session.execute(text(f"SELECT * FROM ({sql}) faults LIMIT {FAULTS_MAX}"))  # noqa: S608
    return [Fault(str(where), int(difference)) for where, difference in rows]


async def transfers_sum_to_zero(session: AsyncSession) -> list[Fault]:
    """I1: the entries of every transfer sum to zero, and there are at least two."""
    return await _faults(
        session,
        """
        SELECT 'transfer ' || t.id, coalesce(sum(e.amount_fen), 0)
        FROM ledger_transfer t LEFT JOIN ledger_entry e ON e.transfer_id = t.id
        GROUP BY t.id HAVING coalesce(sum(e.amount_fen), 0) <> 0 OR count(e.account_id) < 2
        """,
    )


async def balances_sum_to_zero(session: AsyncSession) -> list[Fault]:
    """I2: all balances together are zero."""
    return await _faults(
        session,
        """
        SELECT 'all accounts', sum(balance_fen) FROM ledger_account HAVING sum(balance_fen) <> 0
        """,
    )


async def balances_are_their_entries(session: AsyncSession) -> list[Fault]:
    """I3: a balance is the sum of its entries, each entry continues the one before, no gaps."""
    return await _faults(
        session,
        """
        SELECT 'account ' || a.id, a.balance_fen - coalesce(sum(e.amount_fen), 0)
        FROM ledger_account a LEFT JOIN ledger_entry e ON e.account_id = a.id
        GROUP BY a.id
        HAVING a.balance_fen <> coalesce(sum(e.amount_fen), 0)
            OR a.entry_count <> count(e.number) OR a.entry_count <> coalesce(max(e.number), 0)
        UNION ALL
        SELECT 'account ' || account_id || ' entry ' || number, balance_after_fen - running_fen
        FROM (SELECT account_id, number, balance_after_fen,
                     sum(amount_fen) OVER (PARTITION BY account_id ORDER BY number) AS running_fen
              FROM ledger_entry) e
        WHERE balance_after_fen <> running_fen
        """,
    )


async def floors_hold(session: AsyncSession) -> list[Fault]:
    """I4: no account is below its floor, now or after any entry that took from it."""
    return await _faults(
        session,
        """
        SELECT 'account ' || a.id || ' entry ' || e.number, e.balance_after_fen - a.floor_fen
        FROM ledger_account a JOIN ledger_entry e ON e.account_id = a.id
        WHERE e.amount_fen < 0 AND e.balance_after_fen < a.floor_fen
        """,
    )


async def refunds_within_charges(session: AsyncSession) -> list[Fault]:
    """I7: what was given back of a charge is the sum of its refunds, and not more than it took."""
    return await _faults(
        session,
        """
        SELECT 'charge ' || c.id, c.refunded_fen - coalesce(sum(r.amount_fen), 0)
        FROM payments_charge c LEFT JOIN payments_refund r ON r.charge_id = c.id
        GROUP BY c.id
        HAVING c.refunded_fen <> coalesce(sum(r.amount_fen), 0) OR c.refunded_fen > c.amount_fen
            OR (c.state <> 'succeeded' AND c.refunded_fen > 0)
        """,
    )


async def recharge_refunds_within_recharges(session: AsyncSession) -> list[Fault]:
    """I8: what goes back to a recharge is the sum of its refunds, and not more than came in."""
    return await _faults(
        session,
        """
        SELECT 'recharge ' || r.id, r.refunded_fen - coalesce(sum(f.amount_fen), 0)
        FROM recharge_recharge r
        LEFT JOIN recharge_refund f ON f.recharge_id = r.id AND f.state <> 'failed'
        GROUP BY r.id
        HAVING r.refunded_fen <> coalesce(sum(f.amount_fen), 0) OR r.refunded_fen > r.amount_fen
            OR (r.state NOT IN ('succeeded', 'partly_refunded', 'refunded') AND r.refunded_fen > 0)
        """,
    )


async def business_rows_have_their_money(session: AsyncSession) -> list[Fault]:
    """I10: every row that says money moved has one transfer of that amount, and none has two.

    The database keeps (kind, business id) unique; here the amounts are held against the rows.
    """
    return await _faults(
        session,
        """
        WITH said(business_id, kind, amount_fen) AS (
            SELECT id, 'charge.take', amount_fen FROM payments_charge WHERE state = 'succeeded'
            UNION ALL SELECT id, 'charge.refund', amount_fen FROM payments_refund
            UNION ALL SELECT id, 'pass.sell', price_fen FROM passes_pass WHERE price_fen > 0
            UNION ALL SELECT id, 'recharge.credit', amount_fen FROM recharge_recharge
                      WHERE credited_at IS NOT NULL
            UNION ALL SELECT id, 'recharge.refund_ask', amount_fen FROM recharge_refund
            UNION ALL SELECT id, 'recharge.refund_pay', amount_fen FROM recharge_refund
                      WHERE state = 'succeeded'
            UNION ALL SELECT id, 'recharge.refund_fail', amount_fen FROM recharge_refund
                      WHERE state = 'failed'),
        moved(business_id, kind, amount_fen) AS (
            SELECT t.business_id, t.kind, sum(e.amount_fen) FILTER (WHERE e.amount_fen > 0)
            FROM ledger_transfer t JOIN ledger_entry e ON e.transfer_id = t.id
            WHERE t.kind <> 'recharge.unknown'
            GROUP BY t.business_id, t.kind)
        SELECT coalesce(s.kind, m.kind) || ' ' || coalesce(s.business_id, m.business_id),
               coalesce(m.amount_fen, 0) - coalesce(s.amount_fen, 0)
        FROM said s FULL JOIN moved m USING (business_id, kind)
        WHERE s.amount_fen IS DISTINCT FROM m.amount_fen
        """,
    )


async def credits_are_proven(session: AsyncSession) -> list[Fault]:
    """I14: a recharge is credited if and only if an attempt of it was proven paid.

    A payment that came when the card was closed waits in suspense instead.
    """
    return await _faults(
        session,
        """
        SELECT 'recharge ' || r.id,
               (count(a.id) FILTER (WHERE a.state = 'paid') > 0)::int
                   - (r.credited_at IS NOT NULL)::int
        FROM recharge_recharge r
        JOIN cards_card c ON c.id = r.card_id
        LEFT JOIN channels_attempt a ON a.order_id = r.id
        GROUP BY r.id, c.id
        HAVING (r.credited_at IS NOT NULL AND count(a.id) FILTER (WHERE a.state = 'paid') = 0)
            OR (r.credited_at IS NULL AND count(a.id) FILTER (WHERE a.state = 'paid') > 0
                AND c.state NOT IN ('closing', 'closed'))
        """,
    )


async def clearing_is_what_providers_hold(session: AsyncSession) -> list[Fault]:
    """I15: a channel's clearing is every payment it proved, less what it paid back."""
    return await _faults(
        session,
        """
        WITH came(kind, amount_fen) AS (
            SELECT 'clearing.' || a.channel, sum(a.amount_fen)
            FROM request_number n JOIN channels_attempt a ON a.id = n.subject_id
            WHERE n.scope = 'channel.payment' GROUP BY 1),
        went(kind, amount_fen) AS (
            SELECT 'clearing.' || r.channel, sum(f.amount_fen)
            FROM recharge_refund f JOIN recharge_recharge r ON r.id = f.recharge_id
            WHERE f.state = 'succeeded' GROUP BY 1)
        SELECT a.kind, -a.balance_fen - coalesce(c.amount_fen, 0) + coalesce(w.amount_fen, 0)
        FROM ledger_account a LEFT JOIN came c USING (kind) LEFT JOIN went w USING (kind)
        WHERE a.kind LIKE 'clearing.%'
          AND -a.balance_fen <> coalesce(c.amount_fen, 0) - coalesce(w.amount_fen, 0)
        """,
    )


async def refunds_payable_are_under_way(session: AsyncSession) -> list[Fault]:
    """I16, in part: refund.payable is exactly what is on its way back."""
    return await _faults(
        session,
        """
        SELECT a.kind, a.balance_fen - coalesce(sum(f.amount_fen), 0)
        FROM ledger_account a LEFT JOIN recharge_refund f ON f.state = 'processing'
        WHERE a.kind = 'refund.payable'
        GROUP BY a.id HAVING a.balance_fen <> coalesce(sum(f.amount_fen), 0)
        """,
    )


async def stopped_cards_are_blocked(session: AsyncSession) -> list[Fault]:
    """I17: the money of a card is blocked exactly while the card is not active."""
    return await _faults(
        session,
        """
        SELECT 'card ' || c.id, coalesce(a.blocked, -1)
        FROM cards_card c LEFT JOIN ledger_account a
             ON a.owner_id = c.id AND a.kind = 'card.principal'
        WHERE a.blocked IS DISTINCT FROM
              CASE c.state WHEN 'active' THEN 0 WHEN 'lost' THEN 402 ELSE 404 END
           OR (c.state = 'closed' AND a.balance_fen <> 0)
        """,
    )


async def codes_are_used_once(session: AsyncSession) -> list[Fault]:
    """Each use is of an issued credential, and its highest slot is the credential's last."""
    return await _faults(
        session,
        """
        SELECT 'credential ' || encode(coalesce(i.cid, u.cid), 'hex'),
               coalesce(max(u.slot), -1) - coalesce(i.last_slot, -1)
        FROM codes_credential i FULL JOIN codes_use u ON u.cid = i.cid
        GROUP BY i.cid, u.cid, i.last_slot
        HAVING i.cid IS NULL OR i.last_slot <> coalesce(max(u.slot), -1)
        """,
    )


async def entries_are_counted(session: AsyncSession) -> list[Fault]:
    """A day's count of a pass at a park is the number of its admissions that stand."""
    return await _faults(
        session,
        """
        WITH stand(pass_id, park_id, used_on, entries) AS (
            SELECT pass_id, park_id, (decided_at AT TIME ZONE 'Asia/Shanghai')::date, count(*)
            FROM admission_admission
            WHERE pass_id IS NOT NULL AND state IN ('authorised', 'passed', 'tailgate', 'forced')
            GROUP BY 1, 2, 3)
        SELECT 'pass ' || pass_id || ' on ' || used_on,
               coalesce(d.entries, 0) - coalesce(s.entries, 0)
        FROM passes_park_day d FULL JOIN stand s USING (pass_id, park_id, used_on)
        WHERE coalesce(d.entries, 0) <> coalesce(s.entries, 0)
        """,
    )


async def records_are_guarded(session: AsyncSession) -> list[Fault]:
    """I13: the database itself refuses to change or delete a record."""
    return await _faults(
        session,
        """
        SELECT 'table ' || wanted, 1
        FROM unnest(ARRAY['ledger_transfer', 'ledger_entry', 'identity_audit', 'codes_use']) wanted
        WHERE NOT EXISTS (
            SELECT FROM pg_trigger g
            WHERE g.tgrelid = to_regclass(wanted) AND g.tgname = wanted || '_appended_only'
              AND g.tgenabled = 'O')
        """,
    )


INVARIANTS: tuple[Invariant, ...] = (
    Invariant("I1", "每笔转账的分录之和为零", transfers_sum_to_zero),
    Invariant("I2", "所有余额之和为零", balances_sum_to_zero),
    Invariant("I3", "余额等于分录之和，逐笔连续", balances_are_their_entries),
    Invariant("I4", "余额不低于下限", floors_hold),
    Invariant("I7", "退款不超过扣款", refunds_within_charges),
    Invariant("I8", "充值退款不超过充值", recharge_refunds_within_recharges),
    Invariant("I10", "业务单据与资金一一对应", business_rows_have_their_money),
    Invariant("I13", "账务记录不可更改", records_are_guarded),
    Invariant("I14", "入账必有渠道凭证", credits_are_proven),
    Invariant("I15", "渠道待清算与渠道账相符", clearing_is_what_providers_hold),
    Invariant("I16", "应付退款等于在途退款", refunds_payable_are_under_way),
    Invariant("I17", "停用的卡不可支出", stopped_cards_are_blocked),
    Invariant("codes", "动态码只用一次", codes_are_used_once),
    Invariant("entries", "入园次数与记录相符", entries_are_counted),
)


async def prove(db: Database, *, progress: Callable[[Proof], None] | None = None) -> list[Proof]:
    """Recompute every invariant over one snapshot, while the system may go on running."""
    proofs = []
    async with db.begin() as session:
        await session.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))
        # A proof over a large book takes longer than any request may.
        await session.execute(text("SET LOCAL statement_timeout = 0"))
        for invariant in INVARIANTS:
            proof = Proof(invariant, await invariant.check(session))
            proofs.append(proof)
            if progress:
                progress(proof)
    return proofs

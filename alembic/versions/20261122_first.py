"""The first schema: identity, wallet, ledger, jobs; pre-deploy, on an empty schema.

Revision: 0001, after nothing.
"""

import sqlalchemy as sa
from alembic import op
from procrastinate.schema import SchemaManager
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


APPENDED_ONLY = ("ledger_transfer", "ledger_entry", "identity_audit", "codes_use")
"""Records: whatever the code above does, the database changes and deletes none of them."""

REFUSE_CHANGE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is appended to, never changed', TG_TABLE_NAME USING ERRCODE = '42501';
END $$"""

CITY = "00000000-0000-0000-0000-000000000000"
CITY_ACCOUNTS = (
    ("clearing.wechat_pay", None),
    ("clearing.alipay", None),
    ("refund.payable", 0),
    ("suspense.unknown_in", 0),
)


def upgrade() -> None:
    _make_job_queue()
    op.create_table(
        "admission_park",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("opens_minute", sa.SmallInteger(), nullable=False),
        sa.Column("closes_minute", sa.SmallInteger(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "opens_minute BETWEEN 0 AND 1440 AND closes_minute BETWEEN 0 AND 1440",
            name=op.f("ck_admission_park_hours"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admission_park")),
    )
    op.create_table(
        "channels_attempt",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("out_trade_no", sa.Text(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("payer_open_id", sa.Text(), nullable=False),
        sa.Column("payer_user_id", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("pay", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("channel_txn_no", sa.Text(), nullable=True),
        sa.Column("paid_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("funding", sa.Text(), nullable=True),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("asked", sa.SmallInteger(), nullable=False),
        sa.Column("ask_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state = 'paid') = (channel_txn_no IS NOT NULL)", name=op.f("ck_channels_attempt_paid")
        ),
        sa.CheckConstraint(
            "state IN ('sent', 'paid', 'closed')", name=op.f("ck_channels_attempt_state")
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("ck_channels_attempt_amount")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels_attempt")),
        sa.UniqueConstraint("out_trade_no", name=op.f("uq_channels_attempt_out_trade_no")),
    )
    op.create_index(
        op.f("ix_channels_attempt_order_id"), "channels_attempt", ["order_id"], unique=False
    )
    op.create_index(
        "uq_channels_attempt_channel_txn",
        "channels_attempt",
        ["channel", "channel_txn_no"],
        unique=True,
    )
    op.create_table(
        "channels_notice",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("out_trade_no", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("raw_body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("problem", sa.Text(), nullable=True),
        sa.Column("received_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels_notice")),
    )
    op.create_index(
        op.f("ix_channels_notice_channel_notice_id"),
        "channels_notice",
        ["channel", "notice_id"],
        unique=True,
    )
    op.create_index(
        op.f("ix_channels_notice_out_trade_no"), "channels_notice", ["out_trade_no"], unique=False
    )
    op.create_table(
        "channels_quarantine",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("problem", sa.Text(), nullable=False),
        sa.Column("raw_body", sa.LargeBinary(), nullable=False),
        sa.Column("headers", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("received_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_channels_quarantine")),
    )
    op.create_index(
        op.f("ix_channels_quarantine_received_at"),
        "channels_quarantine",
        ["received_at"],
        unique=False,
    )
    op.create_table(
        "codes_use",
        sa.Column("cid", sa.LargeBinary(), nullable=False),
        sa.Column("slot", sa.Integer(), nullable=False),
        sa.Column("used_by", sa.Text(), nullable=False),
        sa.Column("used_by_id", sa.Uuid(), nullable=False),
        sa.Column("used_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("used_by IN ('charge', 'admission')", name=op.f("ck_codes_use_used_by")),
        sa.PrimaryKeyConstraint("cid", "slot", name=op.f("pk_codes_use")),
    )
    op.create_table(
        "devices_gate",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("site_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('active', 'retired')", name=op.f("ck_devices_gate_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices_gate")),
    )
    op.create_index(op.f("ix_devices_gate_site_id"), "devices_gate", ["site_id"], unique=False)
    op.create_table(
        "identity_audit",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Uuid(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column("facts", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_audit")),
    )
    op.create_index(
        op.f("ix_identity_audit_subject_id_at"),
        "identity_audit",
        ["subject_id", "at"],
        unique=False,
    )
    op.create_table(
        "identity_machine_key",
        sa.Column("keyid", sa.Text(), nullable=False),
        sa.Column("owner_kind", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "owner_kind IN ('merchant', 'gate')", name=op.f("ck_identity_machine_key_owner_kind")
        ),
        sa.CheckConstraint(
            "length(public_key) = 32", name=op.f("ck_identity_machine_key_public_key_length")
        ),
        sa.PrimaryKeyConstraint("keyid", name=op.f("pk_identity_machine_key")),
    )
    op.create_index(
        op.f("ix_identity_machine_key_owner_id"), "identity_machine_key", ["owner_id"], unique=False
    )
    op.create_table(
        "identity_token_family",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("revoked_why", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_identity_token_family")),
    )
    op.create_index(
        op.f("ix_identity_token_family_citizen_id"),
        "identity_token_family",
        ["citizen_id"],
        unique=False,
    )
    op.create_table(
        "ledger_account",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("balance_fen", sa.BigInteger(), nullable=False),
        sa.Column("floor_fen", sa.BigInteger(), nullable=True),
        sa.Column("blocked", sa.SmallInteger(), nullable=False),
        sa.Column("entry_count", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("balance_fen >= floor_fen", name=op.f("ck_ledger_account_above_floor")),
        sa.CheckConstraint("entry_count >= 0", name=op.f("ck_ledger_account_entry_count")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_account")),
        sa.UniqueConstraint("kind", "owner_id", name=op.f("uq_ledger_account_kind_owner_id")),
        postgresql_with={"fillfactor": "60"},
    )
    op.create_table(
        "ledger_transfer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("business_id", sa.Uuid(), nullable=False),
        sa.Column("posted_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_transfer")),
        sa.UniqueConstraint(
            "business_id", "kind", name=op.f("uq_ledger_transfer_business_id_kind")
        ),
    )
    op.create_table(
        "merchants_merchant",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_no", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('shop', 'hotel')", name=op.f("ck_merchants_merchant_kind")),
        sa.CheckConstraint(
            "state IN ('active', 'suspended')", name=op.f("ck_merchants_merchant_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_merchants_merchant")),
        sa.UniqueConstraint("merchant_no", name=op.f("uq_merchants_merchant_merchant_no")),
    )
    op.create_table(
        "passes_pass_type",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("name_en", sa.Text(), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("valid_days", sa.BigInteger(), nullable=False),
        sa.Column("park_ids", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("entries_per_park_and_day", sa.BigInteger(), nullable=False),
        sa.Column("group_bit", sa.SmallInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('on_sale', 'withdrawn')", name=op.f("ck_passes_pass_type_state")
        ),
        sa.CheckConstraint(
            "entries_per_park_and_day > 0", name=op.f("ck_passes_pass_type_entries")
        ),
        sa.CheckConstraint(
            "group_bit BETWEEN 0 AND 31", name=op.f("ck_passes_pass_type_group_bit")
        ),
        sa.CheckConstraint("price_fen >= 0", name=op.f("ck_passes_pass_type_price")),
        sa.CheckConstraint("valid_days > 0", name=op.f("ck_passes_pass_type_valid_days")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes_pass_type")),
    )
    op.create_table(
        "people_citizen",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("phone_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("phone_index", sa.LargeBinary(), nullable=True),
        sa.Column("pin_hash", sa.Text(), nullable=True),
        sa.Column("pin_wrong_count", sa.SmallInteger(), nullable=False),
        sa.Column("pin_locked_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_citizen")),
    )
    op.create_index(
        op.f("ix_people_citizen_phone_index"), "people_citizen", ["phone_index"], unique=False
    )
    op.create_table(
        "request_number",
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("owner_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("subject_id", sa.Uuid(), nullable=False),
        sa.Column(
            "outcome", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("scope", "owner_id", "number", name=op.f("pk_request_number")),
    )
    op.create_table(
        "staff_operator",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("login", sa.Text(), nullable=False),
        sa.Column("password_hash", sa.Text(), nullable=False),
        sa.Column("totp_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("totp_last_step", sa.BigInteger(), nullable=False),
        sa.Column("wrong_count", sa.SmallInteger(), nullable=False),
        sa.Column("locked_until", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_staff_operator")),
        sa.UniqueConstraint("login", name=op.f("uq_staff_operator_login")),
    )
    op.create_table(
        "cards_card",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("card_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("lost_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("closed_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('active', 'lost', 'closing', 'closed')", name=op.f("ck_cards_card_state")
        ),
        sa.ForeignKeyConstraint(
            ["citizen_id"], ["people_citizen.id"], name=op.f("fk_cards_card_citizen_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cards_card")),
    )
    op.create_index(op.f("ix_cards_card_citizen_id"), "cards_card", ["citizen_id"], unique=False)
    op.create_index(
        "uq_cards_card_holder",
        "cards_card",
        ["citizen_id", "card_type"],
        unique=True,
        postgresql_where="state <> 'closed'",
    )
    op.create_table(
        "identity_refresh_token",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("family_id", sa.Uuid(), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("used_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("successor_hash", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["family_id"],
            ["identity_token_family.id"],
            name=op.f("fk_identity_refresh_token_family_id"),
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_identity_refresh_token")),
    )
    op.create_index(
        op.f("ix_identity_refresh_token_family_id"),
        "identity_refresh_token",
        ["family_id"],
        unique=False,
    )
    op.create_table(
        "ledger_entry",
        sa.Column("account_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("transfer_id", sa.Uuid(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("balance_after_fen", sa.BigInteger(), nullable=False),
        sa.Column("posted_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("amount_fen <> 0", name=op.f("ck_ledger_entry_moves_something")),
        sa.ForeignKeyConstraint(
            ["account_id"], ["ledger_account.id"], name=op.f("fk_ledger_entry_account_id")
        ),
        sa.ForeignKeyConstraint(
            ["transfer_id"], ["ledger_transfer.id"], name=op.f("fk_ledger_entry_transfer_id")
        ),
        sa.PrimaryKeyConstraint("account_id", "number", name=op.f("pk_ledger_entry")),
    )
    op.create_index(
        op.f("ix_ledger_entry_transfer_id"), "ledger_entry", ["transfer_id"], unique=False
    )
    op.create_table(
        "people_real_name_case",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reasons", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("name_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("number_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("number_index", sa.LargeBinary(), nullable=False),
        sa.Column("name_masked", sa.Text(), nullable=False),
        sa.Column("number_masked", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("decided_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("decided_by", sa.Uuid(), nullable=True),
        sa.CheckConstraint(
            "state IN ('passed', 'in_review', 'rejected')",
            name=op.f("ck_people_real_name_case_state"),
        ),
        sa.ForeignKeyConstraint(
            ["citizen_id"], ["people_citizen.id"], name=op.f("fk_people_real_name_case_citizen_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_real_name_case")),
    )
    op.create_index(
        op.f("ix_people_real_name_case_citizen_id"),
        "people_real_name_case",
        ["citizen_id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_people_real_name_case_state"), "people_real_name_case", ["state"], unique=False
    )
    op.create_index(
        "uq_people_real_name_case_open",
        "people_real_name_case",
        ["citizen_id"],
        unique=True,
        postgresql_where="state <> 'rejected'",
    )
    op.create_index(
        "uq_people_real_name_case_person",
        "people_real_name_case",
        ["number_index"],
        unique=True,
        postgresql_where="state = 'passed'",
    )
    op.create_table(
        "people_sign_in",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("open_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "provider IN ('wechat', 'alipay')", name=op.f("ck_people_sign_in_provider")
        ),
        sa.ForeignKeyConstraint(
            ["citizen_id"], ["people_citizen.id"], name=op.f("fk_people_sign_in_citizen_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_sign_in")),
        sa.UniqueConstraint(
            "provider", "app_id", "open_id", name=op.f("uq_people_sign_in_provider_app_id_open_id")
        ),
    )
    op.create_index(
        op.f("ix_people_sign_in_citizen_id"), "people_sign_in", ["citizen_id"], unique=False
    )
    op.create_table(
        "people_step_up",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("sid", sa.Uuid(), nullable=False),
        sa.Column("way", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["citizen_id"], ["people_citizen.id"], name=op.f("fk_people_step_up_citizen_id")
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_people_step_up")),
    )
    op.create_index(
        op.f("ix_people_step_up_expires_at"), "people_step_up", ["expires_at"], unique=False
    )
    op.create_table(
        "staff_operator_session",
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("operator_id", sa.Uuid(), nullable=False),
        sa.Column("csrf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator_id"],
            ["staff_operator.id"],
            name=op.f("fk_staff_operator_session_operator_id"),
        ),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_staff_operator_session")),
    )
    op.create_table(
        "cards_medium",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("card_no", sa.Text(), nullable=False),
        sa.Column("handle", sa.LargeBinary(), nullable=False),
        sa.Column("gen", sa.SmallInteger(), nullable=False),
        sa.Column("device_id", sa.Text(), nullable=True),
        sa.Column("bound_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('active', 'replaced')", name=op.f("ck_cards_medium_state")),
        sa.CheckConstraint("gen BETWEEN 0 AND 254", name=op.f("ck_cards_medium_gen")),
        sa.CheckConstraint("length(handle) = 8", name=op.f("ck_cards_medium_handle_length")),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_cards_medium_card_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cards_medium")),
        sa.UniqueConstraint("card_no", name=op.f("uq_cards_medium_card_no")),
        sa.UniqueConstraint("handle", name=op.f("uq_cards_medium_handle")),
    )
    op.create_index(op.f("ix_cards_medium_card_id"), "cards_medium", ["card_id"], unique=False)
    op.create_index(
        "uq_cards_medium_active",
        "cards_medium",
        ["card_id"],
        unique=True,
        postgresql_where="state = 'active'",
    )
    op.create_table(
        "passes_pass",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pass_no", sa.Text(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("pass_type_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("pay_by", sa.Text(), nullable=False),
        sa.Column("price_fen", sa.BigInteger(), nullable=False),
        sa.Column("valid_from_on", sa.Date(), nullable=False),
        sa.Column("valid_until_on", sa.Date(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('active', 'refunded')", name=op.f("ck_passes_pass_state")),
        sa.CheckConstraint("valid_from_on <= valid_until_on", name=op.f("ck_passes_pass_validity")),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_passes_pass_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["pass_type_id"], ["passes_pass_type.id"], name=op.f("fk_passes_pass_pass_type_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes_pass")),
        sa.UniqueConstraint("pass_no", name=op.f("uq_passes_pass_pass_no")),
    )
    op.create_index(op.f("ix_passes_pass_card_id"), "passes_pass", ["card_id"], unique=False)
    op.create_table(
        "payments_charge",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("charge_no", sa.Text(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("order_no", sa.Text(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("terminal_no", sa.Text(), nullable=True),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(state = 'succeeded') = (reason = 0)", name=op.f("ck_payments_charge_reason")
        ),
        sa.CheckConstraint(
            "state IN ('succeeded', 'declined')", name=op.f("ck_payments_charge_state")
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("ck_payments_charge_amount")),
        sa.CheckConstraint(
            "refunded_fen BETWEEN 0 AND amount_fen", name=op.f("ck_payments_charge_refunded")
        ),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_payments_charge_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["merchant_id"], ["merchants_merchant.id"], name=op.f("fk_payments_charge_merchant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments_charge")),
        sa.UniqueConstraint("charge_no", name=op.f("uq_payments_charge_charge_no")),
        sa.UniqueConstraint("id", "merchant_id", name=op.f("uq_payments_charge_id_merchant_id")),
        sa.UniqueConstraint(
            "merchant_id", "order_no", name=op.f("uq_payments_charge_merchant_id_order_no")
        ),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index(
        op.f("ix_payments_charge_card_id_created_at"),
        "payments_charge",
        ["card_id", "created_at"],
        unique=False,
    )
    op.create_table(
        "people_real_name_picture",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("case_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["case_id"],
            ["people_real_name_case.id"],
            name=op.f("fk_people_real_name_picture_case_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people_real_name_picture")),
        sa.UniqueConstraint(
            "case_id", "kind", name=op.f("uq_people_real_name_picture_case_id_kind")
        ),
    )
    op.create_table(
        "recharge_recharge",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("recharge_no", sa.Text(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("citizen_id", sa.Uuid(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("credited_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "state IN ('paying', 'succeeded', 'closed', 'partly_refunded', 'refunded')",
            name=op.f("ck_recharge_recharge_state"),
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("ck_recharge_recharge_amount")),
        sa.CheckConstraint(
            "refunded_fen BETWEEN 0 AND amount_fen", name=op.f("ck_recharge_recharge_refunded")
        ),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_recharge_recharge_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["citizen_id"], ["people_citizen.id"], name=op.f("fk_recharge_recharge_citizen_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recharge_recharge")),
        sa.UniqueConstraint("recharge_no", name=op.f("uq_recharge_recharge_recharge_no")),
    )
    op.create_index(
        op.f("ix_recharge_recharge_card_id"), "recharge_recharge", ["card_id"], unique=False
    )
    op.create_table(
        "admission_admission",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("gate_id", sa.Uuid(), nullable=False),
        sa.Column("park_id", sa.Uuid(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=True),
        sa.Column("pass_id", sa.Uuid(), nullable=True),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.SmallInteger(), nullable=False),
        sa.Column("entries_left", sa.BigInteger(), nullable=True),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=True),
        sa.Column("scanned_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("decided_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("result_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'denied') = (reason <> 0)", name=op.f("ck_admission_admission_reason")
        ),
        sa.CheckConstraint(
            "state IN ('denied', 'authorised', 'passed', 'not_passed', 'tailgate', 'forced',"
            " 'voided')",
            name=op.f("ck_admission_admission_state"),
        ),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_admission_admission_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["gate_id"], ["devices_gate.id"], name=op.f("fk_admission_admission_gate_id")
        ),
        sa.ForeignKeyConstraint(
            ["park_id"], ["admission_park.id"], name=op.f("fk_admission_admission_park_id")
        ),
        sa.ForeignKeyConstraint(
            ["pass_id"], ["passes_pass.id"], name=op.f("fk_admission_admission_pass_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admission_admission")),
    )
    op.create_index(
        op.f("ix_admission_admission_card_id_decided_at"),
        "admission_admission",
        ["card_id", "decided_at"],
        unique=False,
    )
    op.create_index(
        "ix_admission_admission_waiting",
        "admission_admission",
        ["decided_at"],
        unique=False,
        postgresql_where="state = 'authorised'",
    )
    op.create_table(
        "cards_phone_binding",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("medium_id", sa.Uuid(), nullable=False),
        sa.Column("gen", sa.SmallInteger(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("bound_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_cards_phone_binding_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["medium_id"], ["cards_medium.id"], name=op.f("fk_cards_phone_binding_medium_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_cards_phone_binding")),
    )
    op.create_index(
        op.f("ix_cards_phone_binding_card_id"), "cards_phone_binding", ["card_id"], unique=False
    )
    op.create_table(
        "codes_credential",
        sa.Column("cid", sa.LargeBinary(), nullable=False),
        sa.Column("medium_id", sa.Uuid(), nullable=False),
        sa.Column("anchor", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.Column("last_slot", sa.Integer(), nullable=False),
        sa.Column("issued_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("last_slot >= -1", name=op.f("ck_codes_credential_last_slot")),
        sa.CheckConstraint("length(cid) = 17", name=op.f("ck_codes_credential_cid_length")),
        sa.ForeignKeyConstraint(
            ["medium_id"], ["cards_medium.id"], name=op.f("fk_codes_credential_medium_id")
        ),
        sa.PrimaryKeyConstraint("cid", name=op.f("pk_codes_credential")),
        postgresql_with={"fillfactor": "80"},
    )
    op.create_index(
        op.f("ix_codes_credential_medium_id"), "codes_credential", ["medium_id"], unique=False
    )
    op.create_table(
        "passes_park_day",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("pass_id", sa.Uuid(), nullable=False),
        sa.Column("park_id", sa.Uuid(), nullable=False),
        sa.Column("used_on", sa.Date(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("entries >= 0", name=op.f("ck_passes_park_day_entries")),
        sa.ForeignKeyConstraint(
            ["pass_id"], ["passes_pass.id"], name=op.f("fk_passes_park_day_pass_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_passes_park_day")),
        sa.UniqueConstraint(
            "pass_id", "park_id", "used_on", name=op.f("uq_passes_park_day_pass_id_park_id_used_on")
        ),
    )
    op.create_table(
        "payments_refund",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("merchant_id", sa.Uuid(), nullable=False),
        sa.Column("charge_id", sa.Uuid(), nullable=False),
        sa.Column("refund_no", sa.Text(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("refunded_fen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint("amount_fen > 0", name=op.f("ck_payments_refund_amount")),
        sa.CheckConstraint("refunded_fen >= amount_fen", name=op.f("ck_payments_refund_refunded")),
        sa.ForeignKeyConstraint(
            ["charge_id", "merchant_id"],
            ["payments_charge.id", "payments_charge.merchant_id"],
            name=op.f("fk_payments_refund_charge_id_merchant_id"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payments_refund")),
        sa.UniqueConstraint(
            "merchant_id", "refund_no", name=op.f("uq_payments_refund_merchant_id_refund_no")
        ),
    )
    op.create_index(
        op.f("ix_payments_refund_charge_id"), "payments_refund", ["charge_id"], unique=False
    )
    op.create_table(
        "recharge_refund",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("refund_no", sa.Text(), nullable=False),
        sa.Column("recharge_id", sa.Uuid(), nullable=False),
        sa.Column("card_id", sa.Uuid(), nullable=False),
        sa.Column("amount_fen", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("finished_at", sa.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("asked", sa.SmallInteger(), nullable=False),
        sa.Column("ask_at", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('processing', 'succeeded', 'failed')", name=op.f("ck_recharge_refund_state")
        ),
        sa.CheckConstraint("amount_fen > 0", name=op.f("ck_recharge_refund_amount")),
        sa.ForeignKeyConstraint(
            ["card_id"], ["cards_card.id"], name=op.f("fk_recharge_refund_card_id")
        ),
        sa.ForeignKeyConstraint(
            ["recharge_id"], ["recharge_recharge.id"], name=op.f("fk_recharge_refund_recharge_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recharge_refund")),
        sa.UniqueConstraint("refund_no", name=op.f("uq_recharge_refund_refund_no")),
    )
    op.create_index(
        op.f("ix_recharge_refund_card_id"), "recharge_refund", ["card_id"], unique=False
    )
    op.create_index(
        op.f("ix_recharge_refund_recharge_id"), "recharge_refund", ["recharge_id"], unique=False
    )

    op.create_index(
        "ix_channels_attempt_due",
        "channels_attempt",
        ["ask_at"],
        unique=False,
        postgresql_where="state = 'sent'",
    )
    op.create_index(
        "ix_recharge_refund_due",
        "recharge_refund",
        ["ask_at"],
        unique=False,
        postgresql_where="state = 'processing'",
    )
    account = sa.table(
        "ledger_account",
        *map(
            sa.column,
            ("kind", "owner_id", "balance_fen", "floor_fen", "blocked", "entry_count"),
        ),
    )
    for kind, floor_fen in CITY_ACCOUNTS:
        op.execute(
            account.insert().values(
                kind=kind,
                owner_id=sa.cast(CITY, sa.Uuid),
                balance_fen=0,
                floor_fen=floor_fen,
                blocked=0,
                entry_count=0,
            )
        )

    op.execute(REFUSE_CHANGE)
    for table in APPENDED_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_appended_only BEFORE UPDATE OR DELETE ON {table}"
            " FOR EACH ROW EXECUTE FUNCTION refuse_change()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_never_emptied BEFORE TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )


def _make_job_queue() -> None:
    # The library's whole schema, not its migrations one by one: PostgreSQL 15 refuses to use, in
    # one transaction, the enum values that they add. Its later migrations come by ours.
    op.get_bind().exec_driver_sql(SchemaManager.get_schema().replace("%", "%%"))


def downgrade() -> None:
    raise RuntimeError("below the first schema lies nothing: drop the schema instead")

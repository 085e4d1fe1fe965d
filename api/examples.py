"""One example of each body, by the name of its Struct: what the documentation shows (示例).

A test holds every one of them against its schema, and misses none.
"""

from typing import Any

CITIZEN = "019aa3f0-1c00-7a10-8000-000000000001"
CARD = "019aa3f0-1c00-7a10-8000-000000000002"
SEASON = "019aa3f0-1c00-7a10-8000-000000000003"
PARK = "019aa3f0-1c00-7a10-8000-000000000004"
ROW = "019aa3f0-1c00-7a10-8000-000000000005"
NUMBER = "01KAHZ0700F888000000000002"
AT = "2026-11-22T03:30:02Z"
CODE = "WUXI-EXAMPLE-CODE"
ANCHOR = "AAECAwQFBgcICQoLDA0ODw"

_PASS = {
    "id": ROW,
    "pass_no": f"PS{NUMBER}",
    "pass_type_id": SEASON,
    "state": "active",
    "price_fen": 12_000,
    "valid_from_on": "2026-11-22",
    "valid_until_on": "2027-11-21",
}
_CARD = {
    "id": CARD,
    "card_no": "3202000000000018",
    "state": "active",
    "balance_fen": 20_000,
    "held_fen": 0,
    "bonus_fen": 0,
    "available_fen": 20_000,
    "passes": [_PASS],
}
_REAL_NAME = {
    "state": "passed",
    "name_masked": "王**",
    "id_number_masked": "320***********0018",
    "reasons": [],
}
_CHARGE = {
    "id": ROW,
    "charge_no": f"CH{NUMBER}",
    "order_no": "TEA20261122001",
    "state": "succeeded",
    "reason": 0,
    "reason_text": "成功",
    "amount_fen": 3_600,
    "refunded_fen": 0,
    "created_at": AT,
}
_CASE = {
    "id": ROW,
    "state": "in_review",
    "reasons": ["id-front-blurred"],
    "name_masked": "王**",
    "number_masked": "320***********0018",
    "created_at": AT,
}
_WANTED = {"nbf": 1_795_317_600, "slen": 15, "nsl": 1560, "anchor": ANCHOR}

EXAMPLES: dict[str, dict[str, Any]] = {
    "AdmissionRequest": {
        "scan_id": "EAST-20261122-000017",
        "direction": "in",
        "credential": {"kind": "code", "value": CODE},
        "scanned_at": AT,
        "lane": "2",
    },
    "AdmissionView": {
        "decision": "allow",
        "reason": 0,
        "reason_text": "请通行",
        "admission_id": ROW,
        "open_seconds": 5,
        "display_name": "王**",
        "left": 19,
        "server_time_at": AT,
    },
    "CancelRequest": {"order_no": "TEA20261122001"},
    "CancelledView": {"order_no": "TEA20261122001", "state": "cancelled"},
    "CardRequest": {"card_type": "standard"},
    "CardView": _CARD,
    "CaseLine": _CASE,
    "CaseView": {
        "id": ROW,
        "state": "in_review",
        "reasons": ["id-front-blurred"],
        "name": "王小明",
        "id_number": "320299199001010018",
        "pictures": ["id_back", "id_front", "selfie"],
        "created_at": AT,
    },
    "ChargeRequest": {
        "order_no": "TEA20261122001",
        "code": CODE,
        "amount_fen": 3_600,
        "description": "龙井一壶",
        "terminal_no": "till-2",
    },
    "ChargeView": _CHARGE,
    "CredentialsRequest": {"credentials": [_WANTED]},
    "CredentialsView": {
        "items": [{"nbf": 1_795_317_600, "body": "AQID", "sig": "BAUG"}],
        "next_at": "2026-11-22T08:00:00Z",
    },
    "DecisionRequest": {"decision": "passed", "reasons": []},
    "EntryView": {
        "id": "019aa3f01c007a108000000000000002-7",
        "at": AT,
        "kind": "charge.take",
        "title": "消费",
        "amount_fen": -3_600,
        "balance_after_fen": 16_400,
        "related_no": ROW,
    },
    "MeView": {
        "id": CITIZEN,
        "phone_masked": "138****0018",
        "has_payment_pin": True,
        "real_name": _REAL_NAME,
    },
    "Nothing": {},
    "OperatorSignInRequest": {"login": "alice", "password": "a long pass phrase", "totp": "204816"},
    "OperatorSignInView": {"csrf_token": "mJ0c0n1uNlZ0bDkzTm9QcVJzVHVWd1h5"},
    "ParkView": {
        "id": PARK,
        "name": "锡惠公园",
        "name_en": "Xihui Park",
        "opens_minute": 0,
        "closes_minute": 1440,
        "is_open": True,
    },
    "PassRequest": {"card_id": CARD, "pass_type_id": SEASON, "pay_by": "balance"},
    "PassTypeView": {
        "id": SEASON,
        "name": "园林年票",
        "name_en": "Garden pass",
        "price_fen": 12_000,
        "valid_days": 365,
        "park_ids": [PARK],
        "entries_per_park_and_day": 20,
    },
    "PassView": _PASS,
    "PhoneBindingRequest": {"device_id": "9f86d081884c7d659a2feaa0c55ad015", "model": "Pura 80"},
    "PhoneBindingView": {
        "gen": 1,
        "device_key": ANCHOR,
        "issuer": 32_020_001,
        "suite": 1,
        "server_time_at": AT,
        "card_handle": "AAECAwQFBgc",
    },
    "PhoneRequest": {"provider": "wechat", "code": "sim:wang"},
    "PhoneView": {"phone_masked": "138****0018"},
    "PinRequest": {"pin": "204816", "old_pin": "815263"},
    "RealNameState": _REAL_NAME,
    "RealNameSubmission": {
        "name": "王小明",
        "id_number": "320299199001010018",
        "id_front": "(JPEG)",
        "id_back": "(JPEG)",
        "selfie": "(JPEG)",
    },
    "RealNameView": {"state": "passed", "reasons": []},
    "RechargeRefundRequest": {"reason": "暂时不用", "amount_fen": 5_000},
    "RechargeRefundView": {
        "id": ROW,
        "refund_no": f"RR{NUMBER}",
        "recharge_id": ROW,
        "amount_fen": 5_000,
        "state": "processing",
        "created_at": AT,
    },
    "RechargeRequest": {"card_id": CARD, "amount_fen": 20_000, "channel": "wechat_pay"},
    "RechargeView": {
        "id": ROW,
        "recharge_no": f"RC{NUMBER}",
        "out_trade_no": f"RC{NUMBER}",
        "card_id": CARD,
        "channel": "wechat_pay",
        "amount_fen": 20_000,
        "refunded_fen": 0,
        "state": "paying",
        "pay": {
            "timeStamp": "1795318202",
            "nonceStr": "b9d1c5b0f7a14f3c",
            "package": "prepay_id=wx22113002000000",
            "signType": "RSA",
            "paySign": "c2lnbmF0dXJl",
        },
        "created_at": AT,
    },
    "RefreshRequest": {"refresh_token": "mJ0c0n1uNlZ0bDkzTm9QcVJzVHVWd1h5"},
    "RefundRequest": {"refund_no": "TEA20261122001R1", "amount_fen": 1_600, "reason": "退一份茶点"},
    "RefundView": {
        "id": ROW,
        "refund_no": "TEA20261122001R1",
        "state": "succeeded",
        "amount_fen": 1_600,
        "refunded_fen": 1_600,
        "created_at": AT,
    },
    "ResultRequest": {"result": "passed", "at": AT},
    "ResultView": {"admission_id": ROW, "state": "passed"},
    "SignInRequest": {"provider": "wechat", "code": "sim:wang"},
    "SignInView": {
        "access_token": "eyJhbGciOiJFZERTQSJ9.e30.c2ln",
        "expires_in": 600,
        "refresh_token": "mJ0c0n1uNlZ0bDkzTm9QcVJzVHVWd1h5",
        "citizen": {"id": CITIZEN, "is_new": True},
    },
    "StepUpRequest": {"pin": "204816"},
    "StepUpView": {"step_up_token": "mJ0c0n1uNlZ0bDkzTm9QcVJzVHVWd1h5", "expires_in": 300},
    "VisitView": {
        "id": ROW,
        "at": AT,
        "park_id": PARK,
        "direction": "in",
        "state": "passed",
        "reason": 0,
    },
}

"""The people who sign in: `sim:<name>` is always the same person, and no other code is good.

Everything about a person follows from the name by hash, so nobody has to be registered and a
person outlives every restart. Ids of one app share their beginning, as the real ones do.
"""

import re
from hashlib import sha256

CODE_PREFIX = "sim:"
NAME_LENGTH_MAX = 100
WECHAT_OPEN_ID_LENGTH = 28
USER_ID_ENDING = "+uid"
"""Alipay gives a `user_id` beside the `open_id` only where an app is old enough to have it."""


def name_in(code: str) -> str | None:
    """Return whose code this is, or None where it is nobody's."""
    name = code.removeprefix(CODE_PREFIX)
    return name if name and name != code and len(name) <= NAME_LENGTH_MAX else None


def wechat_open_id(app_id: str, name: str) -> str:
    """Return the person's `openid` at one mini-program: 28 characters, beginning with `o`."""
    return f"{_wechat_beginning(app_id)}{_hex('wechat', app_id, name)[: WECHAT_OPEN_ID_LENGTH - 7]}"


def is_wechat_open_id(app_id: str, open_id: str) -> bool:
    """Tell whether an `openid` can be one of this mini-program's."""
    is_as_long = len(open_id) == WECHAT_OPEN_ID_LENGTH
    return is_as_long and open_id.startswith(_wechat_beginning(app_id))


def alipay_open_id(app_id: str, name: str) -> str:
    """Return the person's `open_id` at one Alipay app; it never looks like a user id."""
    return f"{_alipay_beginning(app_id)}{_hex('alipay', app_id, name)[:28]}"


def alipay_user_id(name: str) -> str | None:
    """Return the person's 2088 number, or None for those whose apps get none."""
    if not name.endswith(USER_ID_ENDING):
        return None
    return f"2088{_number('alipay-user', name) % 10**12:012d}"


def is_alipay_buyer(app_id: str, buyer: str) -> bool:
    """Tell whether this can be the `open_id` or the `user_id` of somebody who uses the app."""
    is_user_id = re.fullmatch("2088[0-9]{12}", buyer) is not None
    return is_user_id or buyer.startswith(_alipay_beginning(app_id))


def phone(name: str) -> str:
    """Return the person's made-up mainland number, the same at both providers."""
    return f"139{_number('phone', name) % 10**8:08d}"


def _wechat_beginning(app_id: str) -> str:
    return f"o{_hex('wechat', app_id)[:6]}"


def _alipay_beginning(app_id: str) -> str:
    return f"0{_hex('alipay', app_id)[:6]}"


def _hex(*parts: str) -> str:
    return sha256("\n".join(parts).encode()).hexdigest()


def _number(*parts: str) -> int:
    return int(_hex(*parts), 16)

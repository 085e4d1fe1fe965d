"""What every audience's answers have in common: made or repeated, pages, keys of requests."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Annotated, Any, Generic, TypeVar

import msgspec
from litestar import Request, Response
from litestar.params import HeaderParameter, QueryParameter

from identity.kernel import Refusal, Said

View = TypeVar("View")
Key = TypeVar("Key")

NUMBER_DIGITS_MAX = 18
"""So that a number is below 2⁶³."""

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Fen = Annotated[int, msgspec.Meta(ge=1, le=10_000_000, description="金额（分）")]

# `\Z` and not `$`, which in Python also stands before a final line feed; the document says `$`.
ORDER_NO_PATTERN = r"^[0-9A-Za-z_-]{1,64}\Z"
OrderNo = Annotated[str, msgspec.Meta(pattern=ORDER_NO_PATTERN, description="商户侧单号")]
OrderNoQuery = Annotated[str, QueryParameter(pattern=ORDER_NO_PATTERN, description="商户侧单号")]

Limit = Annotated[int, QueryParameter(ge=1, le=200, description="每页条数")]
Cursor = Annotated[
    str | None, QueryParameter(max_length=200, description="上一页答复中的 `next_cursor`")
]

IDEMPOTENCY_KEY_PATTERN = r"^[!-~]{16,64}\Z"
IdempotencyKey = Annotated[
    str,
    HeaderParameter(
        name="Idempotency-Key",
        pattern=IDEMPOTENCY_KEY_PATTERN,
        description="请求号：16–64 个可见字符；重试用同一个",
    ),
]


class CursorRefused(Refusal):
    """The cursor is not one that we gave out."""

    code, status = "cursor-invalid", 400
    title = Said("翻页游标不正确", "The cursor is not valid")
    next_step = Said("请从第一页重新开始。", "Start again from the first page.")


class Page(msgspec.Struct, Generic[View], frozen=True):
    """Part of a list, newest first; `next_cursor` is null on the last page."""

    items: list[View]
    next_cursor: str | None


def made(view: View, *, is_new: bool) -> Response[View]:
    """Answer a write: 201 the first time, 200 and `Idempotency-Replayed` when repeated."""
    if is_new:
        return Response(view, status_code=201)
    return Response(view, status_code=200, headers={"Idempotency-Replayed": "true"})


def page_of(rows: list[Any], views: list[View], limit: int, *, key: str) -> Page[View]:
    """Return a page whose cursor continues after its last row.

    `rows` holds one more than `limit` where there is a next page; `key` names the member of a
    row that the list is ordered by.
    """
    if len(rows) <= limit:
        return Page(views, None)
    last = str(getattr(rows[limit - 1], key))
    return Page(views[:limit], urlsafe_b64encode(last.encode()).rstrip(b"=").decode())


def read_cursor(cursor: str | None, read: Callable[[str], Key]) -> Key | None:
    """Return what a cursor of ours stands for, as `read` reads it.

    Raises:
        CursorRefused: it is not one.
    """
    if cursor is None:
        return None
    try:
        return read(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii"))
    except ValueError as problem:
        raise CursorRefused from problem


def number_of_entry(text: str) -> int:
    """Return the number that a cursor of numbered lines stands for.

    Raises:
        ValueError: it is none that a column can hold.
    """
    if not text.isdigit() or len(text) > NUMBER_DIGITS_MAX:
        raise ValueError("not a number of an entry")
    return int(text)


def b64(data: bytes) -> str:
    """Return bytes as api.md writes them: base64url without padding."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """Return the bytes of base64url without padding.

    Raises:
        ValueError: it is not that.
    """
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


AnyRequest = Request[Any, Any, Any]

"""Logs (日志): one JSON line per event; ids yes; names, phones, numbers and keys never.

Only the fields listed here are written: whatever else an event carries is dropped, so that a
careless line cannot leak.
"""

import logging
from typing import Any

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

ALLOWED = frozenset(
    {
        "asked",
        "attempt_id",
        "cause",
        "channel",
        "event",
        "fault",
        "fault_at",
        "job",
        "level",
        "method",
        "path",
        "problem",
        "refund_id",
        "request_id",
        "route",
        "status",
        "timestamp",
    }
)


def configure_logs() -> None:
    """Write events as JSON lines on standard error."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _place_of_fault,
            _keep_allowed,
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=True,
    )


def _place_of_fault(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Say where a fault was raised; its text may quote what somebody sent, so it is left out."""
    fault = event.pop("exc_info", None)
    if isinstance(fault, BaseException):
        ours, at = [], ""
        trace = fault.__traceback__
        while trace:
            file = trace.tb_frame.f_code.co_filename
            at = f"{file.rpartition('/')[2]}:{trace.tb_lineno}"
            if "site-packages" not in file:
                ours.append(at)
            trace = trace.tb_next
        # Where libraries pass it on is of no use, but for the very place where it was raised.
        event["fault_at"] = " ".join(dict.fromkeys([*ours[-7:], at]))
    return event


def _keep_allowed(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    return {name: value for name, value in event.items() if name in ALLOWED}


def _dumps(event: Any, **_: Any) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()

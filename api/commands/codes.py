"""`yuanka code check | make`: a conformance tool for whoever accepts codes or shows them.

It needs no server, no database and no network: what it knows is in the files and options given.
`check` prints one JSON line per code and exits 0 once it has judged, whatever the verdict, which
is `reason` in the line (0 = OK). Exit 1: a case of `--cases` carries a `reason` and differs.
Exit 2: bad usage, or a file that cannot be read. Rule: code format; api.md, "Command line".
"""

import argparse
import json
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import segno
from msgspec import Struct

from wallet.codes import suites, verifier, wire
from wallet.codes.chains import LINK_BYTES, Chain, make_code
from wallet.codes.denials import parse_deny_list
from wallet.codes.reasons import Reason, Refused
from wallet.codes.trust import Trust, TrustedKey, parse_trust
from wallet.codes.wire import Code, Credential, Flag, Kind

FOR_EVER_UNIX = 0xFFFF_FFFF
_NANOSECONDS = 1_000_000_000
_QR_VERSIONS = {Kind.STATIC: 6, Kind.CHAIN: 8}
_QR_PIXELS_PER_MODULE = 8
_NOT_SHOWN = ("kind", "flags", "card", "anchor", "signature", "proof", "tag")


class Case(Struct, frozen=True):
    """One code of a case file, and the circumstances it is judged in."""

    name: str
    code: str
    now: int
    with_device_key: bool = False
    deny: list[tuple[str, int]] = []
    last_slot: int | None = None
    verify_until: int = FOR_EVER_UNIX
    key_types: frozenset[int] = frozenset(Kind)
    reason: int | None = None


class CaseGroup(Struct, frozen=True):
    """The cases of one suite; issuer and key id that are trusted are those of `header`."""

    suite: str
    header: str
    issuer_public: str
    device_key: str
    cases: list[Case]


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `code check` and `code make` to the command line."""
    code = subparsers.add_parser("code", help="check or make a code, without a server")
    verbs = code.add_subparsers(required=True, metavar="check|make")
    _add_check(verbs.add_parser("check", help="judge a code, or a file of cases"))
    _add_make(verbs.add_parser("make", help="make a code of test keys, and its QR picture"))


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda args: _guarded(run_check, args))
    add = parser.add_argument
    add("code", nargs="?", metavar="CODE", help="what the scanner read")
    add("--trust", type=Path, metavar="FILE", help="trust list, JSON")
    add("--deny", type=Path, metavar="FILE", help="deny list, signed or bare JSON")
    add("--now", type=int, metavar="UNIX", help="judge at this second instead of now")
    add("--device-key", type=_hex(suites.DEVICE_KEY_BYTES), metavar="HEX", help="Kd: check TAG")
    add("--last-slot", type=int, metavar="N", help="last slot used of this credential")
    add("--offline", action="store_true", help="the windows of an offline gate")
    add("--accept-test", action="store_true", help="do not refuse codes with the TEST flag")
    add("--cases", type=Path, metavar="FILE", help="judge a file of cases; no other option")


def _add_make(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=lambda args: _guarded(run_make, args))
    add = parser.add_argument
    add("--issuer-private", type=_hex(32), required=True, metavar="HEX", help="a test key only")
    add("--header", type=_hex(29), metavar="HEX", help="bytes 0…28, instead of the fields below")
    add("--suite", type=int, choices=sorted(suites.SUITES), default=1)
    add("--static", action="store_true", help="a printed card's code: no chain, --nsl in days")
    add("--flags", type=_flags, default=Flag.PAY | Flag.GATE, metavar="PAY,GATE,…")
    add("--iss", type=int, default=32020001, help="issuer number")
    add("--kid", type=int, default=7, help="issuer key id")
    add("--card", type=_hex(8), default=bytes(8), metavar="HEX", help="card handle")
    add("--gen", type=int, default=1, help="phone generation")
    add("--cls", type=int, default=0, help="holder class")
    add("--ent", type=int, default=0, help="bitmap of pass groups")
    add("--cap", type=int, default=0, help="offline spending cap, yuan")
    add("--nbf", type=int, metavar="UNIX", help="start of slot 0; the current second if absent")
    add("--slen", type=int, default=15, help="seconds per slot")
    add("--nsl", type=int, default=1560, help="slots, of a static code days")
    add("--seed", type=_hex(LINK_BYTES), metavar="HEX", help="last link of the chain")
    add("--device-key", type=_hex(suites.DEVICE_KEY_BYTES), metavar="HEX", help="Kd")
    add("--slot", type=int, default=0, metavar="N")
    add("--qr", type=Path, metavar="FILE.png", help="also draw the QR picture, error level M")


def run_check(args: argparse.Namespace) -> int:
    """Judge one code, or a file of cases."""
    if args.cases is not None:
        return check_cases(args.cases)
    if args.code is None or args.trust is None:
        raise ValueError("needs --trust FILE and a CODE, or --cases FILE")
    now_unix = _now_unix() if args.now is None else args.now
    trust = parse_trust(args.trust.read_bytes())
    deny_list = None
    if args.deny is not None:
        deny_list = parse_deny_list(args.deny.read_bytes(), trust=trust, now_unix=now_unix)
    tolerance_slots = verifier.OFFLINE_SLOTS if args.offline else verifier.ONLINE_SLOTS
    try:
        verified = verifier.judge(
            args.code,
            trust,
            now_unix=now_unix,
            deny_list=deny_list,
            last_slot=args.last_slot,
            tolerance_slots=tolerance_slots,
            device_key=args.device_key,
            accepts_test=args.accept_test,
        )
    except Refused as refusal:
        print(json.dumps(_answer(refusal.reason) | refusal.facts))
        return 0
    facts = {"slots_off": verified.slots_off, "code": _facts(verified.code)}
    print(json.dumps(_answer(Reason.OK) | facts))
    return 0


def check_cases(path: Path) -> int:
    """Judge every case of a file; 1 if one carries a reason and got another."""
    groups = msgspec.json.decode(path.read_bytes(), type=list[CaseGroup])
    differing = 0
    for group in groups:
        for case in group.cases:
            reason = judge_case(group, case)
            print(json.dumps({"suite": group.suite, "name": case.name, "reason": reason.value}))
            differing += case.reason not in (None, reason.value)
    return 1 if differing else 0


def judge_case(group: CaseGroup, case: Case) -> Reason:
    """Return the reason an online acceptor gives in the circumstances of a case."""
    trust = _trust_of(group, case)
    deny_list = parse_deny_list(msgspec.json.encode(case.deny), trust=trust, now_unix=case.now)
    try:
        verifier.judge(
            case.code,
            trust,
            now_unix=case.now,
            deny_list=deny_list,
            last_slot=case.last_slot,
            device_key=bytes.fromhex(group.device_key) if case.with_device_key else None,
        )
    except Refused as refusal:
        return refusal.reason
    return Reason.OK


def run_make(args: argparse.Namespace) -> int:
    """Print a code, and draw it where asked."""
    unsigned = _unsigned(args)
    suite = suites.SUITES[unsigned.suite]
    proof = b""
    if unsigned.kind is Kind.CHAIN:
        if args.seed is None or args.device_key is None:
            raise ValueError("a chain code needs --seed and --device-key")
        chain = Chain(suite, cid=unsigned.cid, seed=args.seed, slot_count=unsigned.span)
        proof = chain.proof(args.slot)
        unsigned = msgspec.structs.replace(unsigned, anchor=chain.anchor)
    signature = suite.sign(args.issuer_private, unsigned.signed_message)
    code = make_code(unsigned, signature, slot=args.slot, proof=proof, key=args.device_key or b"")
    text = wire.encode(code)
    if args.qr is not None:
        draw_qr(text, code.kind, args.qr)
    print(text)
    return 0


def draw_qr(text: str, kind: Kind, path: Path) -> None:
    """Write the picture a phone would show: version 8 (static 6), level M, alphanumeric mode."""
    picture = segno.make_qr(
        text, error="m", version=_QR_VERSIONS[kind], mode="alphanumeric", boost_error=False
    )
    picture.save(str(path), kind="png", scale=_QR_PIXELS_PER_MODULE)


def _guarded(run: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Run a command once the algorithms are proven; bad files and numbers are bad usage."""
    suites.self_test()
    try:
        return run(args)
    except (OSError, ValueError, struct.error) as error:
        print(f"yuanka code: {error}", file=sys.stderr)
        return 2


def _unsigned(args: argparse.Namespace) -> Credential:
    if args.header is not None:
        return wire.parse_body(args.header)
    return Credential(
        suite=args.suite,
        kind=Kind.STATIC if args.static else Kind.CHAIN,
        flags=args.flags,
        issuer=args.iss,
        key_id=args.kid,
        card=args.card,
        gen=args.gen,
        holder_class=args.cls,
        groups=args.ent,
        cap_yuan=args.cap,
        starts_unix=_now_unix() if args.nbf is None else args.nbf,
        slot_seconds=0 if args.static else args.slen,
        span=args.nsl,
    )


def _trust_of(group: CaseGroup, case: Case) -> Trust:
    header = wire.parse_body(bytes.fromhex(group.header))
    key = TrustedKey(
        issuer=header.issuer,
        key_id=header.key_id,
        suite=header.suite,
        public_key=bytes.fromhex(group.issuer_public),
        kinds=case.key_types,
        verify_from_unix=0,
        verify_until_unix=case.verify_until,
        is_revoked=False,
    )
    return Trust({key.issuer: {key.key_id: key}})


def _answer(reason: Reason) -> dict[str, object]:
    return {
        "reason": reason.value,
        "name": reason.name,
        "zh": reason.zh._asdict(),
        "en": reason.en._asdict(),
        "is_security_event": reason.is_security_event,
    }


def _facts(code: Code) -> dict[str, object]:
    """What a verified code says, without the bytes that prove it."""
    plain = {k: v for k, v in msgspec.structs.asdict(code).items() if k not in _NOT_SHOWN}
    flags = [flag.name for flag in Flag if flag in code.flags]
    named = {"type": code.kind.name.lower(), "flags": flags, "card": code.card.hex()}
    return plain | named | {"cid": code.cid.hex(), "ends_unix": code.ends_unix}


def _hex(byte_count: int) -> Callable[[str], bytes]:
    def hex_bytes(text: str) -> bytes:
        value = bytes.fromhex(text)
        if len(value) != byte_count:
            raise argparse.ArgumentTypeError(f"needs {byte_count} bytes in hex")
        return value

    return hex_bytes


def _flags(text: str) -> Flag:
    flags = Flag(0)
    for name in filter(None, text.split(",")):
        if name not in Flag.__members__:
            raise argparse.ArgumentTypeError(f"flags are {', '.join(Flag.__members__)}")
        flags |= Flag[name]
    return flags


def _now_unix() -> int:
    """The clock, read in this one place."""
    return time.time_ns() // _NANOSECONDS

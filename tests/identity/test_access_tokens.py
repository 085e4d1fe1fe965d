"""Access tokens: what the library would let through, and we do not."""

import ast
import hmac
import json
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from identity import access_tokens, sealing
from identity.access_tokens import Claims, TokenKeys, TokenProblem, TokenRefused

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
NOW_UNIX = int(NOW.timestamp())
SUBJECT = UUID("019cd000-0000-7000-8000-000000000001")
SESSION = UUID("019cd000-0000-7000-8000-000000000002")
RING = sealing.parse_ring(sealing.make_development_ring(now=NOW), is_production=False)
KEYS = access_tokens.keys_of(RING)
ROOT = Path(__file__).parents[2]

HEADER: dict[str, Any] = {"alg": "EdDSA", "typ": "at+jwt", "kid": KEYS.active_kid}
PAYLOAD: dict[str, Any] = {
    "iss": "yuanka",
    "aud": "citizen",
    "sub": str(SUBJECT),
    "sid": str(SESSION),
    "iat": NOW_UNIX,
    "exp": NOW_UNIX + 600,
}


def issue(*, lifetime_seconds: int = 600, keys: TokenKeys = KEYS) -> str:
    return access_tokens.issue(
        keys,
        audience="citizen",
        subject=SUBJECT,
        session_id=SESSION,
        now=NOW,
        lifetime_seconds=lifetime_seconds,
    )


def read(token: str, *, now: datetime = NOW, keys: TokenKeys = KEYS) -> Claims:
    return access_tokens.read(token, keys, audience="citizen", now=now)


def problem(token: str, *, now: datetime = NOW, keys: TokenKeys = KEYS) -> TokenProblem:
    with pytest.raises(TokenRefused) as refused:
        read(token, now=now, keys=keys)
    return refused.value.problem


def encode(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")


def unsigned(header: dict[str, Any], payload: Any) -> bytes:
    parts = (header, payload)
    return b".".join(encode(json.dumps(part).encode()) for part in parts)


def forge(header: dict[str, Any], payload: Any) -> str:
    """Return a token truly signed by our key, whatever its parts say."""
    text = unsigned(header, payload)
    return (text + b"." + encode(KEYS.private_key.sign(text))).decode()


def forge_hmac(header: dict[str, Any], secret: bytes) -> str:
    text = unsigned(header, PAYLOAD)
    return (text + b"." + encode(hmac.digest(secret, text, "sha256"))).decode()


def test_a_token_says_whom_it_speaks_for() -> None:
    assert read(issue()) == Claims(
        subject=SUBJECT,
        session_id=SESSION,
        audience="citizen",
        issued_at=NOW,
        expires_at=NOW + timedelta(seconds=600),
    )
    assert read(forge(HEADER, PAYLOAD)) == read(issue())


@pytest.mark.parametrize("lifetime_seconds", [0, -1, 601])
def test_no_token_is_issued_for_longer_than_ten_minutes(lifetime_seconds: int) -> None:
    with pytest.raises(AssertionError):
        issue(lifetime_seconds=lifetime_seconds)


def test_a_token_ends_at_its_last_second_exactly() -> None:
    token = issue(lifetime_seconds=60)
    ends = NOW + timedelta(seconds=60)
    assert read(token, now=ends - timedelta(microseconds=1)).expires_at == ends
    assert problem(token, now=ends) is TokenProblem.EXPIRED
    assert problem(token, now=ends + timedelta(seconds=1)) is TokenProblem.EXPIRED


def test_a_token_of_the_future_is_refused_but_for_our_own_clocks() -> None:
    token = issue()
    assert read(token, now=NOW - timedelta(seconds=5)).issued_at == NOW
    assert problem(token, now=NOW - timedelta(seconds=6)) is TokenProblem.NOT_YET


@pytest.mark.parametrize("claim", sorted(PAYLOAD))
def test_every_claim_is_required(claim: str) -> None:
    payload = {name: value for name, value in PAYLOAD.items() if name != claim}
    expected = TokenProblem.WRONG_CLAIMS
    assert problem(forge(HEADER, payload)) is expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"aud": "merchant"}, TokenProblem.WRONG_AUDIENCE),
        ({"aud": ["citizen"]}, TokenProblem.WRONG_AUDIENCE),
        ({"aud": ["citizen", "merchant"]}, TokenProblem.WRONG_AUDIENCE),
        ({"iss": "other"}, TokenProblem.WRONG_CLAIMS),
        ({"sub": "somebody"}, TokenProblem.WRONG_CLAIMS),
        ({"sid": 7}, TokenProblem.WRONG_CLAIMS),
        ({"iat": str(NOW_UNIX)}, TokenProblem.WRONG_CLAIMS),
        ({"iat": True}, TokenProblem.WRONG_CLAIMS),
        ({"exp": NOW_UNIX + 0.5}, TokenProblem.WRONG_CLAIMS),
        ({"exp": None}, TokenProblem.WRONG_CLAIMS),
        ({"exp": 10**30}, TokenProblem.TOO_LONG_LIVED),
        ({"nbf": NOW_UNIX + 60}, TokenProblem.WRONG_CLAIMS),
        ({"admin": True}, TokenProblem.WRONG_CLAIMS),
        ({"exp": NOW_UNIX + 601}, TokenProblem.TOO_LONG_LIVED),
        ({"exp": NOW_UNIX}, TokenProblem.TOO_LONG_LIVED),
        ({"exp": NOW_UNIX - 1}, TokenProblem.TOO_LONG_LIVED),
        ({"iat": NOW_UNIX + 60, "exp": NOW_UNIX + 120}, TokenProblem.NOT_YET),
        ({"iat": 10**30, "exp": 10**30 + 60}, TokenProblem.NOT_YET),
        ({"iat": -60, "exp": 0}, TokenProblem.EXPIRED),
        ({"iat": NOW_UNIX - 601, "exp": NOW_UNIX - 1}, TokenProblem.EXPIRED),
    ],
)
def test_claims_are_exactly_ours(claims: dict[str, Any], expected: TokenProblem) -> None:
    assert problem(forge(HEADER, PAYLOAD | claims)) is expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({"typ": "JWT"}, TokenProblem.WRONG_TYPE),
        ({"typ": "AT+JWT"}, TokenProblem.WRONG_TYPE),
        ({"typ": "application/at+jwt"}, TokenProblem.WRONG_TYPE),
        ({"typ": None}, TokenProblem.WRONG_TYPE),
        ({"kid": "other"}, TokenProblem.UNKNOWN_KEY),
        ({"kid": 7}, TokenProblem.MALFORMED),
        ({"alg": "none"}, TokenProblem.MALFORMED),
        ({"alg": "HS256"}, TokenProblem.MALFORMED),
        ({"alg": "Ed25519"}, TokenProblem.MALFORMED),
        ({"crit": ["exp"]}, TokenProblem.MALFORMED),
        ({"crit": ["unknown"], "unknown": 1}, TokenProblem.MALFORMED),
        ({"jku": "https://evil.example/keys"}, TokenProblem.MALFORMED),
        ({"b64": False}, TokenProblem.MALFORMED),
    ],
)
def test_the_header_is_exactly_ours(header: dict[str, Any], expected: TokenProblem) -> None:
    assert problem(forge(HEADER | header, PAYLOAD)) is expected


@pytest.mark.parametrize("member", ["alg", "typ", "kid"])
def test_every_member_of_the_header_is_required(member: str) -> None:
    header = {name: value for name, value in HEADER.items() if name != member}
    assert problem(forge(header, PAYLOAD)) is TokenProblem.MALFORMED


def test_no_algorithm_but_ours_is_taken() -> None:
    none = unsigned(HEADER | {"alg": "none"}, PAYLOAD).decode() + "."
    public_key = KEYS.public_keys[KEYS.active_kid]
    pem = public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    assert problem(none) is TokenProblem.MALFORMED
    assert problem(forge_hmac(HEADER | {"alg": "HS256"}, pem)) is TokenProblem.MALFORMED
    assert problem(forge_hmac(HEADER | {"alg": "HS256"}, b"12345")) is TokenProblem.MALFORMED
    # The header may lie: the algorithm named there is ours, the signature is not.
    assert problem(forge_hmac(HEADER, pem)) is TokenProblem.BAD_SIGNATURE


def test_another_key_does_not_sign_for_us() -> None:
    other = TokenKeys(KEYS.active_kid, Ed25519PrivateKey.generate(), {})
    assert problem(issue(keys=other)) is TokenProblem.BAD_SIGNATURE


def test_an_old_key_still_verifies_and_a_removed_one_does_not() -> None:
    new = Ed25519PrivateKey.generate()
    both = TokenKeys("new", new, {"new": new.public_key(), **KEYS.public_keys})
    only = TokenKeys("new", new, {"new": new.public_key()})
    assert read(issue(), keys=both).subject == SUBJECT
    assert read(issue(keys=both), keys=both).subject == SUBJECT
    assert problem(issue(), keys=only) is TokenProblem.UNKNOWN_KEY


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "e30.e30.",
        "园.卡.",
        "\ud800.a.b",
        "A" * 2_049,
        "e30.e30.e30.e30",
    ],
)
def test_what_is_no_token_is_malformed(token: str) -> None:
    assert problem(token) is TokenProblem.MALFORMED


@pytest.mark.parametrize("payload", [[], "text", 7, None])
def test_a_payload_that_is_no_object_is_refused(payload: Any) -> None:
    assert problem(forge(HEADER, payload)) is TokenProblem.WRONG_CLAIMS


def test_no_changed_character_is_ever_accepted() -> None:
    token = issue()
    for at, character in enumerate(token):
        for other in "AQgwB-_.=~":
            if other != character:
                with pytest.raises(TokenRefused):
                    read(token[:at] + other + token[at + 1 :])


def test_deeply_nested_parts_are_refused() -> None:
    nested = encode(b"[" * 1_000).decode()
    assert problem(f"{nested}.e30.") is TokenProblem.MALFORMED
    text = encode(json.dumps(HEADER).encode()) + b"." + encode(b"[" * 1_000)
    signed = text + b"." + encode(KEYS.private_key.sign(text))
    assert problem(signed.decode()) is TokenProblem.WRONG_CLAIMS


def test_the_keys_do_not_print() -> None:
    text = repr(KEYS)
    for key in RING.access_token_keys:
        assert key.private_key.reveal().hex() not in text
        assert repr(key.private_key.reveal()) not in text


def sources() -> list[Path]:
    return [path for top in ("api", "wallet", "identity") for path in (ROOT / top).rglob("*.py")]


def imports_jwt(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] == "jwt" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jwt"


def test_tokens_are_decoded_in_one_place_only() -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in sources()
        if any(imports_jwt(node) for node in ast.walk(ast.parse(path.read_bytes())))
    }
    assert importers == {"identity/access_tokens.py"}
    tree = ast.parse((ROOT / "identity/access_tokens.py").read_bytes())
    decoders = [
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith(("decode", "PyJW"))
    ]
    assert decoders == ["jwt.decode"]

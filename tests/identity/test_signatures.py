"""The profile yuanka-v1: what we sign, what we accept, and all that we do not."""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_public_key,
)
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    HTTPSignatureKeyResolver,
    algorithms,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from nacl.bindings import crypto_core_ed25519_add

from identity import signatures
from identity.signatures import SignatureProblem, SignatureRefused, WeakPublicKey

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
AUTHORITY = "api.example:8000"
KEYID = "till-0A.b_c:d"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = signatures.raw_public_key(KEY)
COVERED = ("@method", "@authority", "@path", "@query", "content-digest")

# RFC 9421, appendix B.1.4 (the key) and B.2.6 (the request).
RFC_PRIVATE_PEM = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF
-----END PRIVATE KEY-----
"""
RFC_PUBLIC_PEM = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
"""
RFC_INPUT = (
    '("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
RFC_BASE = (
    '"date": Tue, 20 Apr 2021 02:07:55 GMT\n"@method": POST\n"@path": /foo\n'
    '"@authority": example.com\n"content-type": application/json\n"content-length": 18\n'
    f'"@signature-params": {RFC_INPUT}'
).encode()
RFC_SIGNATURE = (
    "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
)


@dataclass(frozen=True)
class Sent:
    """One request as it reaches the server."""

    headers: tuple[tuple[bytes, bytes], ...]
    method: str
    authority: str
    path: bytes
    query: bytes
    body: bytes

    def check(self, *, now: datetime = NOW, keys: dict[str, bytes] | None = None) -> str:
        signed = signatures.verify(
            self.headers,
            method=self.method,
            authority=self.authority,
            path=self.path,
            query=self.query,
            body=self.body,
            now=now,
            public_key_of=({KEYID: PUBLIC_KEY} if keys is None else keys).get,
        )
        return signed.keyid

    def problem(self, *, now: datetime = NOW, keys: dict[str, bytes] | None = None) -> str:
        with pytest.raises(SignatureRefused) as refused:
            self.check(now=now, keys=keys)
        return refused.value.problem


def as_scope(headers: dict[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.lower().encode(), value.encode()) for name, value in headers.items())


def send(
    *,
    method: str = "POST",
    path: str = "/v1/merchant/charges",
    query: str = "a=1&b=%E5%9B%AD",
    body: bytes = b'{"amount_fen": 100}',
    now: datetime = NOW,
) -> Sent:
    headers = signatures.sign(
        KEY,
        keyid=KEYID,
        method=method,
        authority=AUTHORITY,
        path=path,
        query=query,
        body=body,
        now=now,
    )
    return Sent(as_scope(headers), method, AUTHORITY, path.encode(), query.encode(), body)


def with_header(sent: Sent, name: bytes, change: Callable[[bytes], bytes]) -> Sent:
    changed = tuple((n, change(v) if n == name else v) for n, v in sent.headers)
    assert changed != sent.headers
    return replace(sent, headers=changed)


def signed_over(params: str, *, base: str | None = None, label: str = "sig1") -> Sent:
    """Return a request truly signed by our key, but with other words in Signature-Input."""
    sent = send()
    digest = dict(sent.headers)[b"content-digest"].decode()
    if base is None:
        base = (
            f'"@method": POST\n"@authority": {AUTHORITY}\n"@path": {sent.path.decode()}\n'
            f'"@query": ?{sent.query.decode()}\n"content-digest": {digest}\n'
            f'"@signature-params": {params}'
        )
    signature = b64encode(KEY.sign(base.encode())).decode()
    headers = {
        "content-digest": digest,
        "signature-input": f"{label}={params}",
        "signature": f"{label}=:{signature}:",
    }
    return replace(sent, headers=as_scope(headers))


COVERED_TEXT = "(" + " ".join(f'"{name}"' for name in COVERED) + ")"
CREATED = f"created={int(NOW.timestamp())}"
NONCE = 'nonce="AAAAAAAAAAAAAAAAAAAAAA"'
REST = f'{CREATED};keyid="{KEYID}";{NONCE};tag="yuanka-v1"'


def test_what_we_sign_we_accept() -> None:
    assert send().check() == KEYID


def test_a_get_without_a_query_signs_the_digest_of_zero_bytes_and_a_question_mark() -> None:
    sent = send(method="GET", query="", body=b"")
    digest = dict(sent.headers)[b"content-digest"]
    assert digest == b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"
    assert sent.check() == KEYID
    params = f"{COVERED_TEXT};{REST}"
    base = (
        f'"@method": GET\n"@authority": {AUTHORITY}\n"@path": /v1/merchant/charges\n"@query": ?\n'
        f'"content-digest": {digest.decode()}\n"@signature-params": {params}'
    )
    signature = b64encode(KEY.sign(base.encode()))
    by_hand = (
        (b"content-digest", digest),
        (b"signature-input", b"sig1=" + params.encode()),
        (b"signature", b"sig1=:" + signature + b":"),
    )
    assert replace(sent, headers=by_hand).check() == KEYID


def test_two_signatures_of_one_request_differ() -> None:
    assert send().headers != send().headers


class Keys(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        assert key_id == KEYID
        return KEY.public_key()

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        assert key_id == KEYID
        return KEY


class RfcKeys(HTTPSignatureKeyResolver):
    def resolve_public_key(self, key_id: str) -> bytes:
        assert key_id == "test-key-ed25519"
        return RFC_PUBLIC_PEM


@dataclass
class Message:
    """What the library takes for a request."""

    method: str
    url: str
    headers: dict[str, str]


class PatientVerifier(HTTPMessageVerifier):
    """The library reads the clock itself; here time is an argument, so its clock may be off."""

    max_clock_skew = timedelta(days=20_000)


def test_the_rfc_vector_holds_in_the_library_and_for_our_keys() -> None:
    headers = {
        "Date": "Tue, 20 Apr 2021 02:07:55 GMT",
        "Content-Type": "application/json",
        "Content-Length": "18",
        "Signature-Input": f"sig-b26={RFC_INPUT}",
        "Signature": f"sig-b26=:{RFC_SIGNATURE}:",
    }
    request = Message("POST", "http://example.com/foo?param=Value&Pet=dog", headers)
    oracle = PatientVerifier(signature_algorithm=algorithms.ED25519, key_resolver=RfcKeys())
    assert len(oracle.verify(request, max_age=None)) == 1

    key = signatures.load_private_key(RFC_PRIVATE_PEM)
    public_key = load_pem_public_key(RFC_PUBLIC_PEM)
    assert isinstance(public_key, Ed25519PublicKey)
    assert signatures.raw_public_key(key) == public_key.public_bytes_raw()
    assert b64encode(key.sign(RFC_BASE)).decode() == RFC_SIGNATURE
    signatures._check_ed25519(public_key.public_bytes_raw(), b64decode(RFC_SIGNATURE), RFC_BASE)


PATH_TEXT = "abzAZ019-._~!$&'()*+,;=:@/"
escapes = st.binary(min_size=1, max_size=1).map(lambda byte: f"%{byte[0]:02X}")
path_parts = st.sampled_from(PATH_TEXT) | escapes
paths = st.lists(path_parts, max_size=30).map(lambda parts: "/" + "".join(parts))
queries = st.lists(path_parts | st.just("?"), max_size=30).map("".join)
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "QUERY"])
moments = st.integers(1_000_000_000, 2_900_000_000).map(lambda at: datetime.fromtimestamp(at, UTC))


class Asked(NamedTuple):
    """A request before it is signed."""

    method: str
    path: str
    query: str
    body: bytes
    now: datetime


requests = st.builds(Asked, methods, paths, queries, st.binary(max_size=200), moments)


@settings(max_examples=200, deadline=None)
@given(requests)
def test_the_library_accepts_what_we_sign(asked: Asked) -> None:
    method, path, query, body, now = asked
    headers = signatures.sign(
        KEY,
        keyid=KEYID,
        method=method,
        authority=AUTHORITY,
        path=path,
        query=query,
        body=body,
        now=now,
    )
    suffix = f"?{query}" if query else ""
    message = Message(method, f"http://{AUTHORITY}{path}{suffix}", headers)
    oracle = PatientVerifier(signature_algorithm=algorithms.ED25519, key_resolver=Keys())
    (verified,) = oracle.verify(
        message,
        max_age=None,
        expect_tag="yuanka-v1",
        expect_label="sig1",
        require_components=COVERED,
        body=body,
    )
    assert list(verified.covered_components)[:-1] == [f'"{name}"' for name in COVERED]


@settings(max_examples=200, deadline=None)
@given(requests, st.binary(min_size=16, max_size=16))
@example(Asked("GET", "/", "", b"", NOW), bytes(16))
def test_we_accept_what_the_library_signs(asked: Asked, nonce: bytes) -> None:
    method, path, query, body, now = asked
    suffix = f"?{query}" if query else ""
    message = Message(method, f"http://{AUTHORITY}{path}{suffix}", {})
    signer = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=Keys())
    signer.sign(
        message,
        key_id=KEYID,
        created=now,
        nonce=b64encode(nonce, b"-_").decode().rstrip("="),
        label="sig1",
        tag="yuanka-v1",
        include_alg=False,
        covered_component_ids=COVERED,
        body=body,
    )
    headers = as_scope(message.headers)
    sent = Sent(headers, method, AUTHORITY, path.encode(), query.encode(), body)
    assert sent.check(now=now) == KEYID


def flips(value: bytes) -> Iterable[bytes]:
    for at in range(len(value)):
        for bit in range(8):
            yield value[:at] + bytes([value[at] ^ (1 << bit)]) + value[at + 1 :]


def all_flips(sent: Sent) -> Iterable[Sent]:
    for method in flips(sent.method.encode()):
        yield replace(sent, method=method.decode("latin-1"))
    for authority in flips(sent.authority.encode()):
        yield replace(sent, authority=authority.decode("latin-1"))
    yield from (replace(sent, path=path) for path in flips(sent.path))
    yield from (replace(sent, query=query) for query in flips(sent.query))
    yield from (replace(sent, body=body) for body in flips(sent.body))
    for at, (name, value) in enumerate(sent.headers):
        for other in [(n, value) for n in flips(name)] + [(name, v) for v in flips(value)]:
            yield replace(sent, headers=(*sent.headers[:at], other, *sent.headers[at + 1 :]))


def test_no_flipped_bit_is_ever_accepted() -> None:
    sent = send()
    # With any key id known, so that a flipped key id meets the signature and not the lookup.
    flipped = 0
    for forged in all_flips(sent):
        flipped += 1
        with pytest.raises(SignatureRefused):
            signatures.verify(
                forged.headers,
                method=forged.method,
                authority=forged.authority,
                path=forged.path,
                query=forged.query,
                body=forged.body,
                now=NOW,
                public_key_of=lambda _: PUBLIC_KEY,
            )
    assert flipped > 3_000


@pytest.mark.parametrize("last", "ABEIMQUYcgkosw048/+_-")
def test_only_one_spelling_of_a_signature_is_accepted(last: str) -> None:
    sent = send()
    signature = dict(sent.headers)[b"signature"]
    other = signature[:-4] + last.encode() + b"==:"
    if other != signature:
        with_other = with_header(sent, b"signature", lambda _: other)
        assert with_other.problem() in ("malformed", "bad-signature")


@pytest.mark.parametrize(
    ("seconds", "is_taken"),
    [(0, True), (60, True), (-60, True), (60.001, False), (61, False), (-61, False), (3600, False)],
)
def test_the_window_is_sixty_seconds_either_way(seconds: float, is_taken: bool) -> None:
    sent = send()
    then = NOW + timedelta(seconds=seconds)
    if is_taken:
        assert sent.check(now=then) == KEYID
    else:
        assert sent.problem(now=then) == "clock-skew"


@pytest.mark.parametrize("name", [b"content-digest", b"signature-input", b"signature"])
def test_each_header_is_there_once(name: bytes) -> None:
    sent = send()
    alone = tuple(pair for pair in sent.headers if pair[0] == name)
    without = tuple(pair for pair in sent.headers if pair[0] != name)
    assert replace(sent, headers=without).problem() == "missing"
    assert replace(sent, headers=sent.headers + alone).problem() == "malformed"
    other = ((name, b"sig1=:AAAA:"),)
    assert replace(sent, headers=other + sent.headers).problem() == "malformed"


def test_other_headers_may_repeat_and_nothing_at_all_is_missing() -> None:
    sent = send()
    extra = ((b"accept", b"*/*"), (b"accept", b"text/plain"))
    assert replace(sent, headers=extra + sent.headers).check() == KEYID
    assert replace(sent, headers=()).problem() == "missing"


def test_the_helper_below_signs_what_would_be_accepted() -> None:
    assert signed_over(f"{COVERED_TEXT};{REST}").check() == KEYID


@pytest.mark.parametrize(
    "params",
    [
        pytest.param(f'("@method" "@authority" "@path" "@query");{REST}', id="no digest"),
        pytest.param(f'("@method");{REST}', id="method alone"),
        pytest.param(f"();{REST}", id="nothing"),
        pytest.param(
            f'("@authority" "@method" "@path" "@query" "content-digest");{REST}', id="other order"
        ),
        pytest.param(
            f'("@method" "@authority" "@path" "@query" "content-digest" "date");{REST}',
            id="one more",
        ),
        pytest.param(
            f'("@method" "@method" "@authority" "@path" "@query" "content-digest");{REST}',
            id="one twice",
        ),
        pytest.param(f"{COVERED_TEXT.replace('@query', '@query-param')};{REST}", id="query-param"),
        pytest.param(f"{COVERED_TEXT[:-1]};req);{REST}", id="parameter of a component"),
        pytest.param(f"{COVERED_TEXT};{REST.replace('v1', 'v2')}", id="other tag"),
        pytest.param(f'{COVERED_TEXT};{CREATED};keyid="{KEYID}";{NONCE}', id="no tag"),
        pytest.param(f'{COVERED_TEXT};{REST};alg="ed25519"', id="alg"),
        pytest.param(
            f'{COVERED_TEXT};{CREATED};keyid="{KEYID}";alg="ed25519";{NONCE};tag="yuanka-v1"',
            id="alg inside",
        ),
        pytest.param(f"{COVERED_TEXT};{REST};expires=9999999999", id="expires"),
        pytest.param(f'{COVERED_TEXT};{CREATED};keyid="{KEYID}";tag="yuanka-v1"', id="no nonce"),
        pytest.param(
            f"{COVERED_TEXT};{REST.replace(NONCE, NONCE[:-2] + chr(34))}", id="short nonce"
        ),
        pytest.param(f"{COVERED_TEXT};{REST.replace('AAA', '+++')}", id="nonce not url-safe"),
        pytest.param(f"{COVERED_TEXT};{REST.split(';', 1)[1]}", id="no created"),
        pytest.param(f"{COVERED_TEXT};{REST.replace('created=', 'created=0')}", id="11 digits"),
        pytest.param(f"{COVERED_TEXT};{REST.replace('created=1', 'created=0')}", id="leading zero"),
        pytest.param(f"{COVERED_TEXT};{REST.replace('created=', 'created=-')}", id="minus"),
        pytest.param(
            f"{COVERED_TEXT};{CREATED};{CREATED};{REST.split(';', 1)[1]}", id="created twice"
        ),
        pytest.param(f"{COVERED_TEXT};{REST.replace(KEYID, '')}", id="empty key id"),
        pytest.param(f"{COVERED_TEXT};{REST.replace(KEYID, 'k' * 65)}", id="long key id"),
        pytest.param(f"{COVERED_TEXT};{REST.replace(KEYID, '园')}", id="key id not ASCII"),
        pytest.param(f"{COVERED_TEXT}; {REST}", id="a space"),
        pytest.param(f" {COVERED_TEXT};{REST}", id="a space in front"),
        pytest.param(f"{COVERED_TEXT};{REST}\n", id="a line feed behind"),
        pytest.param(f"{COVERED_TEXT};{REST}, sig2=();created=1", id="a second signature"),
        pytest.param(f"{COVERED_TEXT};{REST.replace('keyid', 'KeyId')}", id="upper case"),
    ],
)
def test_any_other_wording_is_malformed_though_truly_signed(params: str) -> None:
    assert signed_over(params).problem() == "malformed"


def test_another_label_and_a_second_signature_are_malformed() -> None:
    assert signed_over(f"{COVERED_TEXT};{REST}", label="sig2").problem() == "malformed"
    sent = send()
    double = with_header(sent, b"signature", lambda value: value + b", " + value)
    assert double.problem() == "malformed"


@pytest.mark.parametrize(
    "digest",
    [
        b"sha-512=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
        b"sha-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        b"sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=:",
        b"sha-256=::",
        b"",
    ],
)
def test_another_digest_is_malformed(digest: bytes) -> None:
    assert with_header(send(), b"content-digest", lambda _: digest).problem() == "malformed"


def test_problems_come_in_their_order() -> None:
    late = NOW + timedelta(hours=1)
    sent = send()
    other_body = replace(sent, body=b"{}")
    assert other_body.problem(now=late, keys={}) == "digest-mismatch"
    assert sent.problem(now=late, keys={}) == "clock-skew"
    assert sent.problem(keys={}) == "unknown-key"
    other_key = signatures.raw_public_key(Ed25519PrivateKey.generate())
    assert sent.problem(keys={KEYID: other_key}) == "bad-signature"
    assert sent.problem(keys={KEYID: b"short"}) == "bad-signature"


@pytest.mark.parametrize("path", [b"/\xe5\x9b\xad", b"/a\nb", b"/a b", b"/a\x00"])
def test_a_path_that_is_not_printable_ascii_is_malformed(path: bytes) -> None:
    assert replace(send(), path=path).problem() == "malformed"
    with pytest.raises(ValueError, match="printable ASCII"):
        send(path=path.decode())


def test_parts_do_not_run_into_each_other() -> None:
    moved = replace(send(path="/a", query="b=1"), path=b"/a?b=1", query=b"")
    assert moved.problem() == "bad-signature"


@pytest.mark.parametrize("keyid", ["", "k" * 65, 'k"', "k;x", "园", "k\n"])
def test_a_key_id_that_cannot_be_written_is_not_signed(keyid: str) -> None:
    with pytest.raises(ValueError, match="keyid"):
        signatures.sign(
            KEY,
            keyid=keyid,
            method="GET",
            authority=AUTHORITY,
            path="/",
            query="",
            body=b"",
            now=NOW,
        )


def test_the_problems_are_a_closed_set() -> None:
    assert {problem.value for problem in SignatureProblem} == {
        "missing",
        "malformed",
        "digest-mismatch",
        "clock-skew",
        "unknown-key",
        "bad-signature",
    }


FIELD = 2**255 - 19
ORDER_TWO = (FIELD - 1).to_bytes(32, "little")
# The eight points of the torsion group and the known encodings of them that are not canonical.
WEAK = [
    (1).to_bytes(32, "little"),
    ORDER_TWO,
    bytes(32),
    bytes(31) + b"\x80",
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa"),
    (FIELD + 1).to_bytes(32, "little"),
    FIELD.to_bytes(32, "little"),
    b"\x01" + bytes(30) + b"\x80",
    b"\xff" * 32,
    (2).to_bytes(32, "little"),
    PUBLIC_KEY[:31],
    PUBLIC_KEY + b"\x00",
    b"",
]


@pytest.mark.parametrize("public_key", WEAK, ids=lambda key: key.hex()[:8])
def test_weak_and_malformed_public_keys_are_refused(public_key: bytes) -> None:
    with pytest.raises(WeakPublicKey):
        signatures.reject_small_order(public_key)
    with pytest.raises(WeakPublicKey):
        signatures.check_enrolment("0123456789ABC", public_key, bytes(64))


def test_a_key_with_a_small_order_part_is_refused() -> None:
    signatures.reject_small_order(PUBLIC_KEY)
    mixed = crypto_core_ed25519_add(PUBLIC_KEY, ORDER_TWO)
    with pytest.raises(WeakPublicKey):
        signatures.reject_small_order(mixed)


def test_the_signature_forged_under_the_identity_point_is_refused() -> None:
    identity = (1).to_bytes(32, "little")
    sent = send()
    forged = b"sig1=:" + b64encode(identity + bytes(32)) + b":"
    # OpenSSL takes it for any message, which is why the keys are looked at and libsodium verifies.
    Ed25519PublicKey.from_public_bytes(identity).verify(identity + bytes(32), b"any")
    with_forged = with_header(sent, b"signature", lambda _: forged)
    assert with_forged.problem(keys={KEYID: identity}) == "bad-signature"


def test_an_enrolment_is_proved_by_the_key_over_code_and_key() -> None:
    code = "0123456789ABC"
    proof = signatures.prove_enrolment(KEY, code)
    assert proof == KEY.sign(b"YK1E" + code.encode() + PUBLIC_KEY)
    signatures.check_enrolment(code, PUBLIC_KEY, proof)
    other = signatures.raw_public_key(Ed25519PrivateKey.generate())
    wrong = [
        ("0123456789ABD", PUBLIC_KEY, proof),
        (code, other, proof),
        (code, PUBLIC_KEY, proof[:63]),
        (code, PUBLIC_KEY, b""),
        *[(code, PUBLIC_KEY, forged) for forged in flips(proof)],
    ]
    for given_code, public_key, given_proof in wrong:
        with pytest.raises(SignatureRefused) as refused:
            signatures.check_enrolment(given_code, public_key, given_proof)
        assert refused.value.problem is SignatureProblem.BAD_SIGNATURE


def test_private_keys_survive_their_pem() -> None:
    pem = signatures.dump_private_key(KEY)
    assert pem.startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert signatures.raw_public_key(signatures.load_private_key(pem)) == PUBLIC_KEY


def test_other_pems_are_not_loaded() -> None:
    curve = generate_private_key(SECP256R1())
    other = curve.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    locked = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x"))
    with pytest.raises(ValueError, match="Ed25519"):
        signatures.load_private_key(other)
    with pytest.raises(TypeError):
        signatures.load_private_key(locked)
    with pytest.raises(ValueError, match=r"."):
        signatures.load_private_key(b"not a PEM")

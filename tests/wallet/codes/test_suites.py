from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.wallet.codes.issuing import Issuer, flip
from wallet.codes.suites import (
    SM2_SM3,
    STANDARD_VECTORS,
    SUITES,
    SelfTestFailed,
    StandardVector,
    Suite,
    self_test,
)

SM2_ORDER = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123


def test_the_libraries_compute_the_published_vectors() -> None:
    assert {vector.suite.number for vector in STANDARD_VECTORS} == set(SUITES)
    self_test()


@pytest.mark.parametrize(
    "part", ["private_key", "public_key", "message", "signature", "abc_digest"]
)
@pytest.mark.parametrize("vector", STANDARD_VECTORS, ids=lambda vector: vector.suite.name)
def test_a_wrong_vector_keeps_the_program_from_starting(vector: StandardVector, part: str) -> None:
    wrong = structs.replace(vector, **{part: flip(getattr(vector, part), bit=5)})
    with pytest.raises(SelfTestFailed, match=vector.suite.name):
        self_test((wrong,))


def test_a_suite_that_accepts_everything_fails_its_self_test() -> None:
    vector = STANDARD_VECTORS[0]
    gullible = structs.replace(vector.suite, verify=lambda *_: True)
    with pytest.raises(SelfTestFailed, match="alteration"):
        self_test((structs.replace(vector, suite=gullible),))


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
@given(data=st.data())
def test_no_bytes_make_verification_raise(suite: Suite, data: st.DataObject) -> None:
    lengths = st.sampled_from([0, 31, 32, 33, 63, 64, 65, 72])
    draw = lengths.flatmap(lambda n: st.binary(min_size=n, max_size=n))
    assert not suite.verify(data.draw(draw), data.draw(st.binary()), data.draw(draw))


def test_altered_signatures_are_refused_without_a_word(
    issuer: Issuer, capfd: pytest.CaptureFixture[str]
) -> None:
    public_key = issuer.suite.public_key(issuer.private_key)
    signature = issuer.suite.sign(issuer.private_key, b"message")
    assert issuer.suite.verify(public_key, b"message", signature)
    for bit in range(512):
        assert not issuer.suite.verify(public_key, b"message", flip(signature, bit))
    assert capfd.readouterr() == ("", "")


def test_threads_do_not_disturb_each_other(issuer: Issuer) -> None:
    public_key = issuer.suite.public_key(issuer.private_key)
    signature = issuer.suite.sign(issuer.private_key, b"message")
    shown = [signature, flip(signature)] * 50
    with ThreadPoolExecutor(max_workers=4) as pool:
        verdicts = pool.map(lambda each: issuer.suite.verify(public_key, b"message", each), shown)
    assert list(verdicts) == [True, False] * 50


def test_a_key_of_small_order_signs_nothing() -> None:
    neutral = b"\x01" + bytes(31)
    assert not SUITES[1].verify(neutral, b"message", neutral + bytes(32))


@pytest.mark.parametrize("out_of_range", [0, SM2_ORDER, SM2_ORDER + 1, 2**256 - 1])
def test_sm2_numbers_outside_the_group_are_refused(out_of_range: int) -> None:
    public_key = SM2_SM3.public_key(b"\x01" * 32)
    signature = SM2_SM3.sign(b"\x01" * 32, b"message")
    odd = out_of_range.to_bytes(32, "big")
    assert not SM2_SM3.verify(public_key, b"message", odd + signature[32:])
    assert not SM2_SM3.verify(public_key, b"message", signature[:32] + odd)


def test_a_point_off_the_curve_is_no_key() -> None:
    signature = SM2_SM3.sign(b"\x01" * 32, b"message")
    off_curve = flip(SM2_SM3.public_key(b"\x01" * 32))
    assert not SM2_SM3.verify(off_curve, b"message", signature)


def test_der_is_never_taken_for_raw() -> None:
    public_key = SM2_SM3.public_key(b"\x01" * 32)
    signature = SM2_SM3.sign(b"\x01" * 32, b"message")
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    der = encode_dss_signature(r, s)
    assert not SM2_SM3.verify(public_key, b"message", der)
    assert not SM2_SM3.verify(public_key, b"message", der[:64])
    assert not SM2_SM3.verify(public_key, b"message", der[-64:])

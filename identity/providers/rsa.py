"""RSA as WeChat and Alipay both sign: PKCS#1 v1.5 over SHA-256, in base64; keys are PEM texts.

A signature takes about 5 ms, a check 0.2 ms: both are done where they are needed, on the loop.
"""

from base64 import b64decode, b64encode

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key


def signature_of(private_key: RSAPrivateKey, message: bytes) -> str:
    """Return the signature of `message`."""
    return b64encode(private_key.sign(message, PKCS1v15(), SHA256())).decode()


def is_signed(public_key: RSAPublicKey, message: bytes, signature: str) -> bool:
    """Tell whether `signature` is the key holder's, of exactly `message`."""
    try:
        public_key.verify(b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, ValueError):
        return False
    return True


def load_private_key(pem: str) -> RSAPrivateKey:
    """Return the private key that a PEM text holds.

    Raises:
        ValueError: the text holds no key.
    """
    key = load_pem_private_key(pem.encode(), password=None)
    assert isinstance(key, RSAPrivateKey), "the private key is not an RSA key"
    return key


def load_public_key(pem: str) -> RSAPublicKey:
    """Return the public key that a PEM text holds.

    Raises:
        ValueError: the text holds no key.
    """
    key = load_pem_public_key(pem.encode())
    assert isinstance(key, RSAPublicKey), "the public key is not an RSA key"
    return key

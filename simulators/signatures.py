"""The cryptography both providers share: RSA-SHA256 (PKCS#1 v1.5) signatures, AES-GCM, AES-CBC."""

from base64 import b64decode, b64encode
from binascii import Error as Base64Error

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7


def sign(key: RSAPrivateKey, message: bytes) -> str:
    """Return the base64 signature of `message`."""
    return b64encode(key.sign(message, PKCS1v15(), SHA256())).decode()


def is_signed(key: RSAPublicKey, message: bytes, signature: str) -> bool:
    """Tell whether `signature` (base64) is the key holder's over `message`."""
    try:
        key.verify(b64decode(signature, validate=True), message, PKCS1v15(), SHA256())
    except (InvalidSignature, Base64Error, ValueError):
        return False
    return True


def encrypt_gcm(key: bytes, message: bytes, *, nonce: str, associated: str) -> str:
    """Return AEAD_AES_256_GCM ciphertext with its tag at the end, base64: WeChat Pay's form."""
    return b64encode(AESGCM(key).encrypt(nonce.encode(), message, associated.encode())).decode()


def encrypt_cbc(key: bytes, message: bytes) -> str:
    """Return AES-CBC ciphertext, base64; the vector of 16 zero bytes is Alipay's own choice."""
    padder = PKCS7(AES.block_size).padder()
    encryptor = Cipher(AES(key), CBC(bytes(16))).encryptor()
    padded = padder.update(message) + padder.finalize()
    return b64encode(encryptor.update(padded) + encryptor.finalize()).decode()

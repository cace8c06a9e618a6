"""A server's identity: a P-256 key, a self-signed certificate and the pin clients know it by."""

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from turnlane.api.errors import TurnlaneError
from turnlane.api.secrets import Secret
from turnlane.api.stages import Stage

IDENTITY_FILE = "identity.pem"
"""The file in the identity's folder: private key and certificate together, so never one alone."""

PIN_SIZE = 32

# RFC 5280, section 4.1.2.5: the date for a certificate that has no good time to expire. Clients go
# by the pin; a certificate that expired under a running tunnel would only break it.
_NO_EXPIRY = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Pin:
    """SHA-256 of a public key (its SubjectPublicKeyInfo in DER, as in RFC 7469, section 2.4).

    A pin is public. Its text is base64url without padding, 43 characters.
    """

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != PIN_SIZE:
            raise ValueError(f"a pin has {PIN_SIZE} bytes, not {len(self.digest)}")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a pin's text; raises `ValueError` that says what is wrong with it."""
        if len(text) != 43:
            raise ValueError(f"a pin has 43 characters, not {len(text)}")
        try:
            digest = base64.b64decode(text + "=", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("a pin is written in A-Z, a-z, 0-9, - and _ only") from None
        pin = cls(digest)
        if str(pin) != text:
            raise ValueError("a pin is not written like this; a character was changed")
        return pin

    @classmethod
    def of_certificate(cls, certificate: x509.Certificate) -> Self:
        """Return the pin of a certificate's public key."""
        return cls.of_public_key(
            certificate.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )

    @classmethod
    def of_public_key(cls, info: bytes) -> Self:
        """Return the pin of a SubjectPublicKeyInfo in DER."""
        return cls(hashlib.sha256(info).digest())

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(self.digest).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Pin({str(self)!r})"


class Identity:
    """A private key with its certificate. The key is never printed."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        """Join a key and the certificate of its public half; `ValueError` if they do not match."""
        if not isinstance(key.curve, ec.SECP256R1):
            raise ValueError("the key is not on the curve P-256")
        if certificate.public_key() != key.public_key():
            raise ValueError("the certificate belongs to another key")
        self._key = key
        self._certificate = certificate
        self._pin = Pin.of_certificate(certificate)

    @classmethod
    def generate(cls, now: float) -> Self:
        """Make a new key and a certificate valid from a day before `now` (Unix time, seconds)."""
        key = ec.generate_private_key(ec.SECP256R1())
        # The name crosses the network in clear, so it says nothing.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, secrets.token_hex(16))])
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.fromtimestamp(now, UTC) - timedelta(days=1))
            .not_valid_after(_NO_EXPIRY)
            .sign(key, hashes.SHA256())
        )
        return cls(key, certificate)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read the identity kept in `directory`.

        Raises `TurnlaneError` at `server_init`: `identity_missing`, `identity_exposed` when others
        than the owner may read the key, `identity_invalid`, `identity_unreadable`.
        """
        path = directory / IDENTITY_FILE
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                text = file.read(64 * 1024)
        except FileNotFoundError:
            raise _error(
                "identity_missing", f"there is no {path}", "make one with: turnlane identity new"
            ) from None
        except OSError as error:
            raise _unreadable("identity_unreadable", path, error) from error
        if os.name == "posix" and mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise _error(
                "identity_exposed",
                f"{path} is open to others than its owner",
                f"if nobody can have read it: chmod 600 {path}; else make a new identity",
            )
        try:
            return cls.from_pem(Secret(text))
        except (ValueError, TypeError):
            # What a parser says about a broken key file may quote it: the cause is not passed on.
            raise _error(
                "identity_invalid",
                f"{path} does not hold a P-256 key with its certificate",
                "restore it, or make a new identity with: turnlane identity new",
            ) from None

    @classmethod
    def from_pem(cls, text: Secret[bytes]) -> Self:
        """Read what `to_pem` wrote; raises `ValueError` or `TypeError`, which may quote the key."""
        key = serialization.load_pem_private_key(text.reveal(), password=None)
        certificate = x509.load_pem_x509_certificate(text.reveal())
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key is no elliptic-curve key")
        return cls(key, certificate)

    @classmethod
    def load_or_create(cls, directory: Path, now: float) -> Self:
        """Read the identity in `directory`, or make one there where there is none.

        When two processes do so at once, both get the same. Raises as `load` and `save` do.
        """
        if not (directory / IDENTITY_FILE).exists():
            with contextlib.suppress(FileExistsError):
                cls.generate(now).save(directory, replace=False)
        return cls.load(directory)

    def save(self, directory: Path, *, replace: bool = True) -> Path:
        """Write the identity into `directory`, whole or not at all; return the file's path.

        The folder is made with mode 0700, the file has mode 0600. With `replace=False` an identity
        that is there already stays, and `FileExistsError` is raised. Raises `TurnlaneError`
        (`server_init`, `identity_unwritable`) when the system refuses.
        """
        path = directory / IDENTITY_FILE
        temporary = directory / f".{IDENTITY_FILE}.{secrets.token_hex(8)}"
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unreadable("identity_unwritable", directory, error) from error
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(self.to_pem().reveal())
                    file.flush()
                    os.fsync(file.fileno())
                if replace:
                    temporary.replace(path)
                else:
                    path.hardlink_to(temporary)
            finally:
                temporary.unlink(missing_ok=True)
        except FileExistsError:
            raise
        except OSError as error:
            raise _unreadable("identity_unwritable", path, error) from error
        return path

    @property
    def pin(self) -> Pin:
        """What clients know this identity by."""
        return self._pin

    @property
    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key, for the DTLS context."""
        return self._key

    @property
    def certificate(self) -> x509.Certificate:
        """The self-signed certificate."""
        return self._certificate

    def __repr__(self) -> str:
        return f"Identity(pin={str(self._pin)!r})"

    def to_pem(self) -> Secret[bytes]:
        """Return private key and certificate as one text."""
        key = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return Secret(key + self._certificate.public_bytes(serialization.Encoding.PEM))


def _error(code: str, message: str, advice: str = "") -> TurnlaneError:
    return TurnlaneError(Stage.SERVER_INIT, code, message, advice)


def _unreadable(code: str, path: Path, error: OSError) -> TurnlaneError:
    return _error(
        code, f"{path}: {error.strerror}", "check the folder's owner and mode, or use --identity"
    )

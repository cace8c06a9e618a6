"""Identities, the files they are kept in, and pins."""

import base64
import hashlib
import os
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from turnlane.api.errors import TurnlaneError
from turnlane.api.stages import Stage
from turnlane.net.identity import IDENTITY_FILE, Identity, Pin

NOW = 1_800_000_000.0


@pytest.fixture
def identity() -> Identity:
    return Identity.generate(NOW)


def refusal(directory: Path) -> TurnlaneError:
    with pytest.raises(TurnlaneError) as caught:
        Identity.load(directory)
    assert caught.value.stage is Stage.SERVER_INIT
    return caught.value


def test_the_pin_is_the_hash_of_the_public_key_alone(identity: Identity) -> None:
    spki = identity.key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = base64.urlsafe_b64encode(hashlib.sha256(spki).digest()).decode().rstrip("=")
    assert str(identity.pin) == text
    assert len(text) == 43
    assert Pin.of_certificate(identity.certificate) == identity.pin


def test_the_certificate_is_self_signed_valid_now_and_never_expires(identity: Identity) -> None:
    certificate = identity.certificate
    certificate.verify_directly_issued_by(certificate)
    assert certificate.not_valid_before_utc < datetime.fromtimestamp(NOW, UTC)
    assert certificate.not_valid_after_utc.year == 9999


def test_the_certificate_says_nothing_about_what_it_is_for(identity: Identity) -> None:
    assert b"turnlane" not in identity.certificate.public_bytes(serialization.Encoding.DER).lower()
    assert identity.certificate.subject != Identity.generate(NOW).certificate.subject


def test_an_identity_is_the_same_after_saving_and_loading(
    identity: Identity, tmp_path: Path
) -> None:
    path = identity.save(tmp_path / "new" / "folder")
    loaded = Identity.load(tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / IDENTITY_FILE
    assert loaded.pin == identity.pin
    assert loaded.certificate == identity.certificate


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_nobody_else_can_read_what_is_saved(identity: Identity, tmp_path: Path) -> None:
    previous = os.umask(0)
    try:
        path = identity.save(tmp_path / "folder")
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_reach_is_refused(
    identity: Identity, tmp_path: Path, mode: int
) -> None:
    path = identity.save(tmp_path)
    path.chmod(mode)
    error = refusal(tmp_path)
    assert error.code == "identity_exposed"
    assert f"chmod 600 {path}" in error.advice


def test_a_missing_identity_is_said_to_be_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "identity_missing"


def test_a_folder_in_place_of_the_file_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / IDENTITY_FILE).mkdir()
    assert refusal(tmp_path).code == "identity_unreadable"


def write(directory: Path, text: bytes) -> None:
    path = directory / IDENTITY_FILE
    path.write_bytes(text)
    path.chmod(0o600)


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def test_a_broken_file_is_invalid_and_not_quoted(identity: Identity, tmp_path: Path) -> None:
    text = identity.save(tmp_path).read_bytes()
    write(tmp_path, text[:120] + b"planted-secret" + text[120:])
    error = refusal(tmp_path)
    assert error.code == "identity_invalid"
    assert "planted-secret" not in f"{error!r}{error.__cause__!r}"


def test_a_key_without_its_certificate_is_invalid(identity: Identity, tmp_path: Path) -> None:
    write(tmp_path, pem(identity.key))
    assert refusal(tmp_path).code == "identity_invalid"


def test_a_key_with_the_certificate_of_another_is_invalid(
    identity: Identity, tmp_path: Path
) -> None:
    other = Identity.generate(NOW).certificate.public_bytes(serialization.Encoding.PEM)
    write(tmp_path, pem(identity.key) + other)
    assert refusal(tmp_path).code == "identity_invalid"


def test_a_key_on_another_curve_is_invalid(identity: Identity, tmp_path: Path) -> None:
    certificate = identity.certificate.public_bytes(serialization.Encoding.PEM)
    write(tmp_path, pem(ec.generate_private_key(ec.SECP384R1())) + certificate)
    assert refusal(tmp_path).code == "identity_invalid"


def test_saving_replaces_unless_told_not_to(identity: Identity, tmp_path: Path) -> None:
    first = Identity.generate(NOW)
    first.save(tmp_path)
    with pytest.raises(FileExistsError):
        identity.save(tmp_path, replace=False)
    assert Identity.load(tmp_path).pin == first.pin
    identity.save(tmp_path)
    assert Identity.load(tmp_path).pin == identity.pin
    assert [entry.name for entry in tmp_path.iterdir()] == [IDENTITY_FILE]


def test_a_folder_that_cannot_be_made_is_told(identity: Identity, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TurnlaneError) as caught:
        identity.save(tmp_path / "file")
    assert caught.value.code == "identity_unwritable"


def test_the_first_call_makes_an_identity_and_later_ones_keep_it(tmp_path: Path) -> None:
    made = Identity.load_or_create(tmp_path / "identity", NOW)
    assert Identity.load_or_create(tmp_path / "identity", NOW).pin == made.pin


def test_many_that_start_at_once_agree_on_one_identity(tmp_path: Path) -> None:
    pins: list[Pin] = []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        pins.append(Identity.load_or_create(tmp_path, NOW).pin)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pins) == 8
    assert len(set(pins)) == 1


def test_load_or_create_does_not_replace_an_exposed_identity(
    identity: Identity, tmp_path: Path
) -> None:
    path = identity.save(tmp_path)
    path.chmod(0o644)
    with pytest.raises(TurnlaneError):
        Identity.load_or_create(tmp_path, NOW)
    path.chmod(0o600)
    assert Identity.load(tmp_path).pin == identity.pin


def test_printing_an_identity_shows_its_pin_and_not_its_key(identity: Identity) -> None:
    assert repr(identity) == f"Identity(pin='{identity.pin}')"
    assert "PRIVATE" not in f"{identity} {vars(identity)!r}"


@given(st.binary(min_size=32, max_size=32))
def test_a_pin_reads_what_it_writes(digest: bytes) -> None:
    pin = Pin(digest)
    assert Pin.parse(str(pin)) == pin
    assert repr(pin) == f"Pin('{pin}')"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "43 characters, not 0"),
        ("A" * 42, "43 characters, not 42"),
        ("A" * 43 + "=", "43 characters, not 44"),
        ("A" * 42 + "!", "A-Z"),
        ("A" * 42 + "é", "A-Z"),
        ("+" * 42 + "A", "changed"),
        ("A" * 42 + "B", "changed"),
    ],
)
def test_a_wrong_pin_is_told_why(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Pin.parse(text)


def test_a_pin_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Pin(bytes(31))

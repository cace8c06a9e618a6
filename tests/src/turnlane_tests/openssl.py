"""The `openssl` command: its DTLS client and server as peers of ours."""

import os
import re
import subprocess
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from cryptography.hazmat.primitives import serialization

from turnlane.net.identity import Identity

EXPORT_LABEL = "EXPORTER-interop"
EXPORT_SIZE = 32

STOP_TIMEOUT = 5.0

_WITHOUT_EXTENDED_MASTER_SECRET = """
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = defaults
[defaults]
Options = -ExtendedMasterSecret
"""


class ProgramPeer:
    """A program that talks on its standard streams, alive while the `with` block lasts.

    What it says is collected in `output`; whatever the block raises carries that as a note.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._said = bytearray()
        self._changed = threading.Condition()

    @property
    def output(self) -> str:
        """Everything it has said so far."""
        with self._changed:
            return self._said.decode("utf-8", "replace")

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs or something it said is still unread."""
        assert self._process is not None
        assert self._reader is not None
        return None if self._reader.is_alive() else self._process.wait()

    def say(self, text: str) -> None:
        """Write to its standard input."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()

    def wait_for(self, holds: Callable[[str], bool], what: str, timeout: float = 15) -> str:
        """Wait until `holds` of its output; raises `AssertionError` that names `what`."""
        with self._changed:
            if not self._changed.wait_for(lambda: holds(self._said.decode()), timeout):
                raise AssertionError(f"{self._command[0]} did not say {what} in {timeout:g} s")
            return self._said.decode()

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(self._environment or {})},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reader is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        if error is not None:
            error.add_note(f"--- {' '.join(self._command)} ---\n{self.output}")

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while chunk := os.read(self._process.stdout.fileno(), 65_536):
            with self._changed:
                self._said += chunk
                self._changed.notify_all()


class OpenSSLPeer(ProgramPeer):
    """`openssl s_client` or `openssl s_server`."""

    @property
    def cipher(self) -> str | None:
        """The cipher suite, by OpenSSL's name, once a handshake has completed."""
        # The client says "New, TLSv1.2, Cipher is X" at the end, the server "CIPHER is X".
        match = re.search(r"(?:, Cipher|CIPHER) is (\S+)", self.output)
        return match[1] if match and match[1] != "(NONE)" else None

    @property
    def exported(self) -> bytes | None:
        """What it derived for `EXPORT_LABEL`."""
        match = re.search(r"Keying material: ([0-9A-F]+)", self.output)
        return bytes.fromhex(match[1]) if match else None


def openssl_client(
    directory: Path, server: tuple[str, int], *options: str, extended: bool = True
) -> OpenSSLPeer:
    """Prepare a client; `extended` False leaves out the extended master secret."""
    return OpenSSLPeer(
        [
            *("openssl", "s_client", "-dtls1_2", "-timeout", "-mtu", "1200"),
            *("-connect", f"{server[0]}:{server[1]}"),
            *("-keymatexport", EXPORT_LABEL, "-keymatexportlen", str(EXPORT_SIZE)),
            *options,
        ],
        _environment(directory, extended=extended),
    )


def openssl_server(
    directory: Path, identity: Identity, *options: str, extended: bool = True
) -> OpenSSLPeer:
    """Prepare a server with the key of `identity`, on a free port; `server_address` finds it."""
    identity.save(directory)
    certificate = directory / "certificate.pem"
    certificate.write_bytes(identity.certificate.public_bytes(serialization.Encoding.PEM))
    return OpenSSLPeer(
        [
            *("openssl", "s_server", "-dtls1_2", "-timeout", "-mtu", "1200"),
            *("-accept", "127.0.0.1:0"),
            *("-cert", str(certificate), "-key", str(directory / "identity.pem")),
            *("-keymatexport", EXPORT_LABEL, "-keymatexportlen", str(EXPORT_SIZE)),
            *options,
        ],
        _environment(directory, extended=extended),
    )


def server_address(server: OpenSSLPeer) -> tuple[str, int]:
    """Wait until a server listens, and return where."""
    output = server.wait_for(
        lambda said: re.search(r"ACCEPT \S+:\d+\n", said) is not None, "that it accepts"
    )
    match = re.search(r"ACCEPT (\S+):(\d+)\n", output)
    assert match is not None
    return match[1], int(match[2])


def _environment(directory: Path, *, extended: bool) -> dict[str, str]:
    configuration = directory / "openssl.cnf"
    configuration.write_text("" if extended else _WITHOUT_EXTENDED_MASTER_SECRET)
    return {"OPENSSL_CONF": str(configuration)}

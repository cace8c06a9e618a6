"""The README's WireGuard walk-through on three machines, with the README's own commands."""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import turnlane_tests
from turnlane_tests.netns import Internet, Program
from turnlane_tests.wireguard import Key, WireGuard, configuration

README = Path(turnlane_tests.__file__).parents[3] / "README.md"
SECTION = "WireGuard between two machines"

CLIENT, RELAY, SERVER = "client.example.org", "turn.example.org", "vpn.example.org"
ADDRESSES = {CLIENT: "192.0.2.2", RELAY: "198.51.100.3", SERVER: "203.0.113.4"}
CLIENT_INSIDE, SERVER_INSIDE = "10.66.0.2", "10.66.0.1"
"""The addresses inside WireGuard."""

START_TIMEOUT = 20.0

_BLOCK = re.compile(r"^```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_READY = re.compile(r"^ready (.*)$", re.MULTILINE)
_NEW_ALLOCATION = re.compile(r"session (\d+): new, ")
_GIVEN_BACK = re.compile(r"session (\d+): refreshed, .*, lifetime=0$", re.MULTILINE)
_DELETED = re.compile(r"session (\d+): delete: ")


class Walkthrough:
    """What the README tells to do, each step a `with` block, on the machines of `internet`."""

    def __init__(self, internet: Internet) -> None:
        self._tag = internet.tag
        self.client = internet[CLIENT]
        self.relay = internet[RELAY]
        self.server = internet[SERVER]
        section = README.read_text().partition(f"\n## {SECTION}\n")[2].partition("\n## ")[0]
        blocks = _BLOCK.findall(section)
        (self._server_command,) = _lines(blocks, "turnlane server ")
        (self._client_command,) = _lines(blocks, "turnlane client ")
        (prepare,) = (block for block in blocks if self._client_command in block)
        self._prepare_client = prepare.partition(self._client_command)[0]
        self._client_settings, self._server_settings = (
            block for block in blocks if "[Interface]" in block
        )

    @contextmanager
    def coturn(self) -> Iterator[Program]:
        """Run the relay that the README's link names."""
        address = str(self.relay.address)
        with self.relay.start(
            *("turnserver", "-n", "--verbose", "--log-file=stdout", "--simple-log", "--no-cli"),
            *("--no-tls", "--no-dtls", "--no-rfc5780", "--relay-threads=1"),
            *("--lt-cred-mech", "--realm=example.org", "--user=user:password"),
            *(f"--listening-ip={address}", f"--relay-ip={address}"),
            *(f"--userdb={self.relay.home / 'users'}", f"--pidfile={self.relay.home / 'pid'}"),
        ) as coturn:
            listeners = (
                f"UDP listener opened on: {address}:3478",
                f"TCP listener opened on : {address}:3478",
            )
            coturn.wait_for(
                lambda said: all(one in said for one in listeners), "listeners", START_TIMEOUT
            )
            yield coturn

    @contextmanager
    def tunnel_server(self) -> Iterator[Program]:
        """Run step 1, and bring the peer link to the client."""
        with self.server.start(*shlex.split(self._server_command)) as program:
            fields = wait_until_ready(program)
            peer = self.client.home / "peer"
            peer.touch(mode=0o600)
            peer.write_text(Path(fields["peer_link_file"]).read_text())
            yield program

    @contextmanager
    def tunnel_client(self, *options: str) -> Iterator[Program]:
        """Run step 2, with `options` added to the command, until it is ready."""
        with self.starting_client(*options) as program:
            assert wait_until_ready(program)["listen"] == "127.0.0.1:9000"
            yield program

    @contextmanager
    def starting_client(self, *options: str) -> Iterator[Program]:
        """Run step 2, and do not wait for it."""
        self.client.run("sh", "-euc", self._prepare_client)
        with self.client.start(*shlex.split(self._client_command), *options) as program:
            yield program

    @contextmanager
    def wireguard(self) -> Iterator[tuple[WireGuard, WireGuard]]:
        """Run step 3 on both machines: the client's interface and the server's."""
        ours, theirs = Key(), Key()
        client = configuration(
            self._client_settings,
            f"""[Interface]
                PrivateKey = {ours.private}
                Address = {CLIENT_INSIDE}/32
                [Peer]
                PublicKey = {theirs.public}
                AllowedIPs = {SERVER_INSIDE}/32""",
        )
        server = configuration(
            self._server_settings,
            f"""[Interface]
                PrivateKey = {theirs.private}
                Address = {SERVER_INSIDE}/32
                [Peer]
                PublicKey = {ours.public}
                AllowedIPs = {CLIENT_INSIDE}/32""",
        )
        with (
            WireGuard(self.server, f"wg{self._tag}s", server) as far,
            WireGuard(self.client, f"wg{self._tag}c", client) as near,
        ):
            yield near, far


def wait_until_ready(program: Program) -> dict[str, str]:
    """Wait for the `ready` line of a command of ours and return its fields."""
    said = program.wait_for(
        lambda said: _READY.search(said) is not None, "that it is ready", START_TIMEOUT
    )
    found = _READY.search(said)
    assert found is not None
    return dict(field.split("=", 1) for field in found[1].split())


def allocations(coturn: Program) -> dict[str, set[str]]:
    """Return the sessions of coturn's log that had an allocation, gave it back, were forgotten."""
    said = coturn.output
    return {
        "made": set(_NEW_ALLOCATION.findall(said)),
        "given_back": set(_GIVEN_BACK.findall(said)),
        "deleted": set(_DELETED.findall(said)),
    }


def _lines(blocks: list[str], start: str) -> list[str]:
    return [line for block in blocks for line in block.splitlines() if line.startswith(start)]

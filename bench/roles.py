"""One end of a tunnel in a process of its own, so that its CPU time can be told from the others'.

The parent writes one JSON line with what the role needs; the role answers with where it is, and
then every line with the CPU seconds that its process has used. It ends when its input does.
"""

import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from turnlane.api import Secret
from turnlane.plugins.manager import PluginManager
from turnlane.runtime.host import Host
from turnlane.runtime.peer_link import PeerLink, join_host_port, new_token
from turnlane.runtime.profiles import ClientProfile, ProviderProfile, ServerProfile
from turnlane_lab.config import RelayConfig
from turnlane_lab.echo import EchoTarget
from turnlane_lab.relay import Relay
from turnlane_tests.coturn import Coturn

Fields = dict[str, str]
Role = Callable[[Fields], AbstractAsyncContextManager[Fields]]


@asynccontextmanager
async def lab_relay(given: Fields) -> AsyncIterator[Fields]:
    """The lab's relay."""
    async with Relay(RelayConfig(users={"bench": Secret(given["password"])})) as relay:
        yield {"link": relay.link().reveal()}


@asynccontextmanager
async def coturn(given: Fields) -> AsyncIterator[Fields]:
    """A coturn; it is a child of this process, which itself does nothing but read its log."""
    users = {"bench": given["password"]}
    async with Coturn(users=users) as relay:
        yield {"link": relay.link("udp", "bench", given["password"]).reveal()}


@asynccontextmanager
async def echo(_: Fields) -> AsyncIterator[Fields]:
    """The upstream."""
    async with EchoTarget() as target:
        yield {"address": join_host_port(*target.address)}


@asynccontextmanager
async def server(given: Fields) -> AsyncIterator[Fields]:
    """A tunnel server in front of the upstream."""
    with TemporaryDirectory(prefix="turnlane-bench-") as folder:
        profile = ServerProfile(
            listen="127.0.0.1:0",
            connect=given["address"],
            identity=Path(folder),
            token=new_token(),
        )
        async with Host(PluginManager.load()) as host:
            handle = await host.start_server(profile)
            yield {"peer": handle.link("127.0.0.1").reveal()}
            await handle.stop()


@asynccontextmanager
async def client(given: Fields) -> AsyncIterator[Fields]:
    """A client session of one lane."""
    profile = ClientProfile(
        provider=ProviderProfile(provider="generic-turn", link=Secret(given["link"])),
        peer=PeerLink.parse(Secret(given["peer"])),
        listen="127.0.0.1:0",
    )
    async with Host(PluginManager.load()) as host:
        handle = await host.start_client(profile)
        yield {"listen": join_host_port(*handle.listen)}
        await handle.stop()


ROLES: dict[str, Role] = {
    "lab": lab_relay,
    "coturn": coturn,
    "echo": echo,
    "server": server,
    "client": client,
}


async def main(role: Role) -> None:
    """Play a role until the parent closes our input."""
    given = json.loads(sys.stdin.readline())
    async with role(given) as told:
        write(told)
        while True:
            await anyio.wait_readable(sys.stdin)
            if not os.read(sys.stdin.fileno(), 64):
                return
            write({"cpu": time.process_time()})


def write(fields: dict[str, str] | dict[str, float]) -> None:
    """Write one line to the parent."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    # Ctrl-C reaches the whole group of processes: the parent's closing of our input ends us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    anyio.run(main, ROLES[sys.argv[1]])

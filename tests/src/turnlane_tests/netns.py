"""Machines on a network of their own: Linux network namespaces with an internet between them.

The internet is a thread of this process that carries IPv4 packets between the machines' TUN
devices. It delays and loses them itself: the kernel's `netem` would do the same, but is a module
that not every kernel has, while `/dev/net/tun` is needed by WireGuard in user space anyway.
"""

import fcntl
import heapq
import os
import random
import secrets
import select
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Self

from turnlane_tests.openssl import ProgramPeer
from turnlane_tests.real import missing, require

MTU = 1500
UPLINK = "uplink"
"""The name of a machine's one device besides `lo`."""

STOP_TIMEOUT = 5.0
KILL_AFTER = 1.0
"""Seconds that what a test has left on a machine gets from SIGTERM to SIGKILL."""

POLL_INTERVAL = 0.05

_TUN = Path("/dev/net/tun")
_OVERLAYS = Path("/etc/netns")
"""What `ip netns exec NAME` shows in /etc: the files in the folder of that name here."""

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN_NO_PI = 0x1001

_ICMP = 1
_UDP = 17
_DONT_FRAGMENT = 0x4000
_ROUTER = IPv4Address("198.18.0.1")
"""Who says that a packet is too large."""
_WITH_PORTS = {6, _UDP}
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF


def until(holds: Callable[[], bool], what: str, *, timeout: float) -> None:
    """Wait until `holds`; raises `AssertionError` that names `what` after `timeout` seconds.

    The one place where a test of real machines waits for what cannot wake it.
    """
    give_up = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > give_up:
            raise AssertionError(f"there was no {what} in {timeout:g} s")
        time.sleep(POLL_INTERVAL)


class Program(ProgramPeer):
    """A program on a machine, alive while the `with` block lasts at the longest."""

    @property
    def lines(self) -> list[str]:
        """The lines that it has said so far."""
        return self.output.splitlines()

    def stop(self, timeout: float = STOP_TIMEOUT) -> int:
        """Send SIGTERM and return the exit code; raises `AssertionError` when it goes on."""
        assert self._process is not None
        self._process.terminate()
        return self.ended(timeout)

    def ended(self, timeout: float) -> int:
        """Wait for its end and return the exit code; raises `AssertionError` when it goes on."""
        until(lambda: self.returncode is not None, f"end of {self._command[-1]}", timeout=timeout)
        code = self.returncode
        assert code is not None
        return code


@dataclass(frozen=True)
class Line:
    """What one connection of a machine goes through, in each direction for itself.

    `rate` is in bytes per second of IP packets, `delay` in seconds; a packet that would wait longer
    than `queue` seconds for those before it is lost.
    """

    rate: float
    delay: float
    queue: float


@dataclass(eq=False)
class Machine:
    """A network namespace with one device, which the internet knows by `address`.

    Programs run in `home`, a folder of its own, with none of our variables in their environment.
    `delay` (seconds) and `loss` (0 to 1) hold for each packet from the machine and to it;
    `blocks_udp` loses all of its UDP. Packets of more than `mtu` bytes from it and to it do not
    pass; a router says so to their sender if it `tells_mtu`. `lines`, if there are any, are what
    its UDP and TCP goes through besides: each local port gets one, in their order of appearance,
    round and round.
    """

    namespace: str
    address: IPv4Address
    home: Path
    tun: int = -1
    delay: float = 0.0
    loss: float = 0.0
    blocks_udp: bool = False
    mtu: int = MTU
    tells_mtu: bool = True
    lines: Sequence[Line] = ()
    _ports: dict[bytes, Line] = field(default_factory=dict)
    _free_at: dict[tuple[bytes, bool], float] = field(default_factory=dict)

    def set_lines(self, *lines: Line) -> None:
        """Give the machine lines; every port gets one anew."""
        self._ports.clear()
        self._free_at.clear()
        self.lines = lines

    def command(self, *arguments: str) -> list[str]:
        """Return what runs a command here."""
        ours = [name for name in os.environ if name.startswith(("TURNLANE_", "XDG_"))]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return [
            *("ip", "netns", "exec", self.namespace, "env", f"--chdir={self.home}"),
            *(f"--unset={name}" for name in ours),
            *(f"HOME={self.home}", f"PATH={programs}"),
            *arguments,
        ]

    def run(self, *arguments: str, timeout: float = 30.0) -> str:
        """Run a command and return what it says; raises `AssertionError` with that if it fails."""
        return _run(*self.command(*arguments), timeout=timeout)

    def start(self, *arguments: str) -> Program:
        """Prepare a program; it runs in a `with` block."""
        return Program(self.command(*arguments))

    def reaches(self, address: str, *options: str, timeout: float = 1.0) -> bool:
        """Whether one `ping` with `options` is answered within `timeout` seconds."""
        ping = ["ping", "-q", "-n", "-c", "1", "-W", str(timeout), *options, address]
        pinged = subprocess.run(self.command(*ping), capture_output=True, check=False)
        return pinged.returncode == 0

    def passes(self, packet: bytes, now: float, *, leaves: bool) -> float | None:
        """Return in how many seconds a packet is through the machine's lines; None if never."""
        if not self.lines or packet[9] not in _WITH_PORTS:
            return 0.0
        header = (packet[0] & 0xF) * 4
        port = packet[header : header + 2] if leaves else packet[header + 2 : header + 4]
        line = self._ports.get(port)
        if line is None:
            line = self._ports[port] = self.lines[len(self._ports) % len(self.lines)]
        begins = max(now, self._free_at.get((port, leaves), now))
        if begins - now > line.queue:
            return None
        self._free_at[port, leaves] = begins + len(packet) / line.rate
        return self._free_at[port, leaves] + line.delay - now

    @property
    def processes(self) -> list[int]:
        """The ids of the processes that run here."""
        return [int(line) for line in _run("ip", "netns", "pids", self.namespace).split()]

    @property
    def fragments_made(self) -> int:
        """IP packets that this machine has sent as fragments of larger ones."""
        lines = self.run("cat", "/proc/net/snmp").splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("Ip: "))
        counters = dict(zip(names, map(int, values), strict=True))
        return counters["FragCreates"]

    def set_device_mtu(self, mtu: int) -> None:
        """Give the machine's own device another MTU."""
        _run("ip", "-n", self.namespace, "link", "set", UPLINK, "mtu", str(mtu))

    @property
    def devices(self) -> set[str]:
        """The names of the network devices."""
        said = _run("ip", "-n", self.namespace, "-o", "link", "show")
        return {line.split(": ")[1].partition("@")[0] for line in said.splitlines()}


class Internet:
    """Machines that reach each other while the `with` block lasts; nothing of them outlives it.

    `machines` maps names, which they know each other by, to their addresses. What is lost is
    decided by `seed`; `tag` is in the names of everything that is made. Skips where namespaces
    cannot be made.
    """

    def __init__(self, directory: Path, machines: Mapping[str, str], *, seed: int = 1) -> None:
        self.machines: dict[str, Machine] = {}
        self.carried = 0
        self.lost = 0
        self.blocked = 0
        self.oversized = 0
        self.crowded_out = 0
        self.fragments = 0
        self._directory = directory
        self._addresses = {name: IPv4Address(address) for name, address in machines.items()}
        self.tag = secrets.token_hex(3)
        self._random = random.Random(seed)
        self._by_address: dict[bytes, Machine] = {}
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._stack = ExitStack()

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def __enter__(self) -> Self:
        require("ip", "env")
        if os.geteuid() != 0:
            missing("needs root to make network namespaces")
        if not _TUN.exists():
            missing(f"needs {_TUN}")
        try:
            for number, name in enumerate(self._addresses):
                self._add(number, name)
            stop, stopped = os.pipe()
            self._stack.callback(os.close, stop)
            carrier = threading.Thread(target=self._carry, args=(stop,), name="internet")
            carrier.start()
            self._stack.callback(carrier.join)
            self._stack.callback(os.close, stopped)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            error.add_note(
                f"--- internet: {self.carried} packets carried, {self.lost} lost, "
                f"{self.crowded_out} crowded out, {self.blocked} blocked, "
                f"{self.oversized} too large, "
                f"{self.fragments} were fragments ---"
            )
        self._stack.close()

    def _add(self, number: int, name: str) -> None:
        namespace = f"turnlane-{self.tag}-{number}"
        home = self._directory / namespace
        home.mkdir()
        overlay = _OVERLAYS / namespace
        self._stack.callback(_remove_overlay, overlay)
        overlay.mkdir(parents=True)
        hosts = "".join(f"{address} {known}\n" for known, address in self._addresses.items())
        (overlay / "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        made = subprocess.run(
            ["ip", "netns", "add", namespace], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            missing(f"cannot make network namespaces: {made.stderr.strip()}")
        machine = Machine(namespace, self._addresses[name], home)
        self._stack.callback(_remove_namespace, machine)
        # In the namespace of this process it has that name for a moment only.
        device = f"tl{self.tag}{number}"
        machine.tun = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._stack.callback(os.close, machine.tun)
        fcntl.ioctl(
            machine.tun, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TUN_NO_PI)
        )
        _run("ip", "link", "set", device, "netns", namespace, "name", UPLINK)
        for setting in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{machine.address}/32", "dev", UPLINK),
            ("link", "set", UPLINK, "up", "mtu", str(MTU)),
            ("route", "add", "default", "dev", UPLINK),
        ):
            _run("ip", "-n", namespace, *setting)
        self.machines[name] = machine
        self._by_address[machine.address.packed] = machine

    def _carry(self, stop: int) -> None:
        """Carry packets until `stop` can be read."""
        poll = select.poll()
        poll.register(stop, select.POLLIN | select.POLLHUP)
        by_tun = {machine.tun: machine for machine in self.machines.values()}
        for tun in by_tun:
            poll.register(tun, select.POLLIN)
        while True:
            due = self._under_way[0][0] - time.monotonic() if self._under_way else None
            ready = poll.poll(None if due is None else max(0.0, due) * 1000)
            for descriptor, _ in ready:
                if descriptor == stop:
                    return
                with suppress(BlockingIOError):
                    self._take(by_tun[descriptor], os.read(descriptor, 65_536))
            now = time.monotonic()
            while self._under_way and self._under_way[0][0] <= now:
                _, _, tun, packet = heapq.heappop(self._under_way)
                # A device whose queue is full loses the packet, as any does.
                with suppress(BlockingIOError):
                    os.write(tun, packet)

    def _take(self, source: Machine, packet: bytes) -> None:
        """Put a packet on its way, unless it is lost; what has no destination is nobody's."""
        if packet[0] >> 4 != 4 or (target := self._by_address.get(packet[16:20])) is None:
            return
        if int.from_bytes(packet[6:8], "big") & _MORE_FRAGMENTS_OR_OFFSET:
            self.fragments += 1
        ends = (source, target)
        if packet[9] == _UDP and any(end.blocks_udp for end in ends):
            self.blocked += 1
        elif any(self._random.random() < end.loss for end in ends):
            self.lost += 1
        elif len(packet) > min(end.mtu for end in ends):
            self.oversized += 1
            if all(end.tells_mtu for end in ends):
                os.write(source.tun, _too_large(packet, min(end.mtu for end in ends)))
        else:
            now = time.monotonic()
            waits = [
                source.passes(packet, now, leaves=True),
                target.passes(packet, now, leaves=False),
            ]
            if None in waits:
                self.crowded_out += 1
                return
            self.carried += 1
            due = now + sum(filter(None, waits)) + sum(end.delay for end in ends)
            heapq.heappush(self._under_way, (due, self.carried, target.tun, packet))


def _too_large(packet: bytes, mtu: int) -> bytes:
    """Return a router's answer to a packet that it does not pass on (RFC 1191, section 4)."""
    quoted = packet[: 20 + 8]
    icmp = struct.pack(">BBHHH", 3, 4, 0, 0, mtu) + quoted
    icmp = icmp[:2] + _checksum(icmp) + icmp[4:]
    header = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(icmp), 0, _DONT_FRAGMENT, 64, _ICMP, 0),
        *(_ROUTER.packed, packet[12:16]),
    )
    return b"".join((header[:10], _checksum(header), header[12:], icmp))


def _checksum(data: bytes) -> bytes:
    """Return the internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return (~(total + (total >> 16)) & 0xFFFF).to_bytes(2)


def namespaces() -> set[str]:
    """Return the names of all network namespaces of this system."""
    return {line.split()[0] for line in _run("ip", "netns", "list").splitlines()}


def _remove_namespace(machine: Machine) -> None:
    """End what still runs on a machine, and the machine; its devices go with it."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for process in machine.processes:
            with suppress(ProcessLookupError):
                os.kill(process, sent)
        with suppress(AssertionError):
            until(lambda: not machine.processes, "end of all processes", timeout=KILL_AFTER)
            break
    _run("ip", "netns", "delete", machine.namespace)


def _remove_overlay(overlay: Path) -> None:
    shutil.rmtree(overlay, ignore_errors=True)
    with suppress(OSError):
        # Only when nobody else has anything there.
        overlay.parent.rmdir()


def _run(*command: str, timeout: float = 30.0) -> str:
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}: {done.stdout}"
    return done.stdout

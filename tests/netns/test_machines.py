"""The machines themselves: what they lose, and that nothing of them outlives a test."""

import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from turnlane_tests.netns import STOP_TIMEOUT, UPLINK, Internet, Line, Machine, namespaces, until

pytestmark = pytest.mark.real

MACHINES = {"one.example.org": "192.0.2.1", "two.example.org": "198.51.100.2"}


def test_a_failure_leaves_no_namespace_no_device_and_no_process(tmp_path: Path) -> None:
    machines: list[Machine] = []
    left: list[int] = []
    internet = Internet(tmp_path, MACHINES)

    def fail() -> None:
        with internet:
            machines.extend(internet.machines.values())
            assert machines[0].devices == {"lo", UPLINK}
            # As a daemon does it: nobody's child. And deaf to SIGTERM.
            machines[0].run("sh", "-c", "trap '' TERM; setsid sleep 600 >/dev/null 2>&1 &")
            left.extend(machines[0].processes)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(left) == 1
    gone = Path("/proc", str(left[0]))
    until(lambda: not gone.exists(), "end of the daemon", timeout=STOP_TIMEOUT)
    assert not {machine.namespace for machine in machines} & namespaces()
    assert not [one for one in machines if Path("/etc/netns", one.namespace).exists()]
    assert not [path for path in Path("/sys/class/net").iterdir() if internet.tag in path.name]


def test_packets_are_delayed_and_lost_as_it_was_said(tmp_path: Path) -> None:
    with Internet(tmp_path, MACHINES) as internet:
        one = internet["one.example.org"]
        one.delay = 0.05
        said = one.run("ping", "-q", "-c", "1", "two.example.org")
        fastest = float(said.rpartition(" = ")[2].partition("/")[0])
        assert 100 <= fastest < 1000, "milliseconds there and back"
        one.delay = 0.0
        one.loss = 0.5
        arrived = sum(one.reaches("two.example.org", timeout=0.1) for _ in range(20))
        assert 0 < arrived < 20
        assert internet.lost + arrived >= 20
        one.loss = 1.0
        assert not one.reaches("two.example.org", timeout=0.1)


def test_a_machine_whose_udp_is_blocked_still_has_the_rest(tmp_path: Path) -> None:
    with Internet(tmp_path, MACHINES) as internet:
        one, two = internet.machines.values()
        serve = (
            "import socket; s = socket.create_server(('', 7)); print('up', flush=True); s.accept()"
        )
        datagram = (
            "import socket; socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('198.51.100.2', 7))"
        )
        with two.start(sys.executable, "-c", serve) as server:
            server.wait_for(lambda said: "up" in said, "that it listens")
            one.blocks_udp = True
            one.run(sys.executable, "-c", datagram)
            connect = "import socket; socket.create_connection(('198.51.100.2', 7), 5)"
            one.run(sys.executable, "-c", connect)
            assert server.ended(STOP_TIMEOUT) == 0
        assert internet.blocked == 1


def test_each_port_has_a_line_of_its_own_in_each_direction(tmp_path: Path) -> None:
    def packet(source: int, target: int, *, protocol: int = 17) -> bytes:
        header = bytearray(20)
        header[0], header[9] = 0x45, protocol
        return bytes(header) + source.to_bytes(2) + target.to_bytes(2) + bytes(976)

    machine = Machine("", IPv4Address("192.0.2.1"), tmp_path)
    assert machine.passes(packet(1, 9), 0.0, leaves=True) == 0.0
    machine.set_lines(Line(10_000, 0.5, queue=0.15), Line(1000, 0.0, queue=0.0))
    times = [machine.passes(packet(1, 9), 0.0, leaves=True) for _ in range(4)]
    assert times == [pytest.approx(0.6), pytest.approx(0.7), None, None]
    assert machine.passes(packet(9, 1), 0.0, leaves=False) == pytest.approx(0.6)
    assert machine.passes(packet(2, 9), 0.0, leaves=True) == pytest.approx(1.0)
    assert machine.passes(packet(3, 9), 0.0, leaves=True) == pytest.approx(0.6)
    assert machine.passes(packet(1, 9), 0.3, leaves=True) == pytest.approx(0.6)
    assert machine.passes(packet(1, 9, protocol=1), 0.3, leaves=True) == 0.0

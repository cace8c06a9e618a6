"""Which data plane is taken: the fast one where it works and is wanted, else the portable one."""

import socket
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import pytest
from OpenSSL import SSL, _util

from turnlane.net import native, openssl
from turnlane.net.datagrams import FastDatagrams, PortableDatagrams, datagrams_of
from turnlane.net.dtls import OVERHEAD
from turnlane.net.openssl import FastRecords
from turnlane.net.records import PortableRecords, records_of
from turnlane.net.system import open_socket


def connection() -> SSL.Connection:
    return SSL.Connection(SSL.Context(SSL.DTLS_CLIENT_METHOD), None)


def test_the_way_is_the_one_that_was_asked_for(dataplane: str) -> None:
    expected = FastRecords if dataplane == "fast" else PortableRecords
    assert type(records_of(connection(), OVERHEAD)) is expected


class Lacking:
    """A library without some names."""

    def __init__(self, library: Any, *names: str) -> None:
        self._library = library
        self._names = names

    def __getattr__(self, name: str) -> Any:
        if name in self._names:
            raise AttributeError(name)
        return getattr(self._library, name)


@pytest.fixture
def unknown_ability(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Have what works here be found out anew, before and after the test."""
    monkeypatch.delenv(native.DATAPLANE_VARIABLE, raising=False)
    native.usable.cache_clear()
    openssl.usable.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    native.usable.cache_clear()
    openssl.usable.cache_clear()


def way_of_datagrams() -> type:
    with open_socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        return type(datagrams_of(opened))


@pytest.mark.parametrize("name", ["recvmmsg", "sendmsg"])
def test_without_the_batched_calls_everything_is_portable(
    name: str, unknown_ability: pytest.MonkeyPatch
) -> None:
    lacking = Lacking(native._libc(), name)
    unknown_ability.setattr(native, "_libc", lambda: lacking)
    assert not native.usable()
    assert way_of_datagrams() is PortableDatagrams
    assert type(records_of(connection(), OVERHEAD)) is PortableRecords


def test_calls_that_do_not_do_what_they_should_are_not_used(
    unknown_ability: pytest.MonkeyPatch,
) -> None:
    unknown_ability.setattr(native.SendVectors, "send", lambda *_: 22)
    assert not native.usable()
    assert way_of_datagrams() is PortableDatagrams


@pytest.mark.parametrize("name", ["_read_bio", "_write_bio", "_read", "_write"])
def test_without_the_private_names_records_are_portable_and_datagrams_are_not(
    name: str, unknown_ability: pytest.MonkeyPatch
) -> None:
    if not native.usable():
        pytest.skip("there is only the portable way here")
    unknown_ability.setattr(openssl, name, None)
    assert not openssl.usable()
    assert type(records_of(connection(), OVERHEAD)) is PortableRecords
    assert way_of_datagrams() is FastDatagrams


@pytest.mark.parametrize("name", ["_into_ssl", "_from_ssl"])
def test_a_connection_without_its_private_parts_is_used_by_its_public_ones(
    name: str, unknown_ability: pytest.MonkeyPatch
) -> None:
    class Connection(SSL.Connection):
        def __getattribute__(self, asked: str) -> Any:
            if asked == name:
                raise AttributeError(asked)
            return super().__getattribute__(asked)

    ours = connection()
    unknown_ability.setattr(openssl.SSL, "Connection", Connection)
    assert not openssl.usable()
    assert type(records_of(ours, OVERHEAD)) is PortableRecords


def test_a_binding_without_the_names_can_be_imported(
    unknown_ability: pytest.MonkeyPatch,
) -> None:
    for name in ("SSL_write", "SSL_read", "BIO_write", "BIO_read"):
        unknown_ability.setattr(_util, "lib", Lacking(openssl._lib, name))
        spec = spec_from_file_location("openssl_anew", openssl.__file__)
        assert spec is not None
        assert spec.loader is not None
        anew = module_from_spec(spec)
        spec.loader.exec_module(anew)
        assert not anew.usable()

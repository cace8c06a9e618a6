"""No token, session secret or exporter shows in what machines, events or errors print."""

import base64
import traceback
from urllib.parse import quote

import pytest

from turnlane.api import Secret
from turnlane.proto.hello import (
    Hello,
    HelloParameters,
    WelcomeTerms,
    build_hello,
    parse_message_untrusted,
    token_key,
)
from turnlane.proto.lane_client import LaneClient
from turnlane.proto.lane_events import LaneAccepted, LaneEstablished, LaneRejected
from turnlane.proto.lane_server import LaneServer
from turnlane.proto.refusals import Refusal

TOKEN = "planted+token/of enough=length"
SESSION_SECRET = b"planted session secret 32 bytes!"
EXPORTER = b"planted exporter of 32 bytes, ok"
PARAMETERS = HelloParameters(b"session id names", 0, 1)


class Directory:
    def __init__(self, secret: Secret[bytes] | None) -> None:
        self.known = secret

    def refuse(self, hello: Hello) -> Refusal | None:
        return None

    def secret(self, session_id: bytes) -> Secret[bytes] | None:
        return self.known

    def create(self, hello: Hello) -> Secret[bytes] | Refusal:
        return Secret(SESSION_SECRET)


def shown(*things: object) -> str:
    """Return all that printing these things and what is in them could show."""
    texts = []
    for thing in things:
        texts += [repr(thing), str(thing), f"{thing}"]
        texts += [repr(value) for value in getattr(thing, "__dict__", {}).values()]
    return "\n".join(texts)


def planted_in(text: str) -> list[str]:
    found = []
    for secret in (TOKEN.encode(), SESSION_SECRET, EXPORTER):
        plain = secret.decode()
        forms = (
            plain,
            quote(plain, safe=""),
            secret.hex(),
            base64.b64encode(secret).decode().rstrip("="),
            base64.urlsafe_b64encode(secret).decode().rstrip("="),
        )
        found += [form for form in forms if form in text]
    return found


def lane(
    *, client_secret: bytes | None, known: bytes | None, server_token: str = TOKEN
) -> tuple[LaneClient, LaneServer]:
    client = LaneClient(
        PARAMETERS,
        exporter=EXPORTER,
        token=token_key(Secret(TOKEN)),
        session_secret=None if client_secret is None else Secret(client_secret),
    )
    server = LaneServer(
        exporter=EXPORTER,
        token=token_key(Secret(server_token)),
        directory=Directory(None if known is None else Secret(known)),
        terms=WelcomeTerms(1168, 1800.0),
    )
    client.start(0.0)
    server.start(0.0)
    for record in client.records_to_send():
        server.receive(record, 0.0)
    for record in server.records_to_send():
        client.receive(record, 0.0)
    return client, server


def test_an_accepted_lane_shows_no_secret() -> None:
    client, server = lane(client_secret=None, known=None)
    established, accepted = client.next_event(), server.next_event()
    assert isinstance(established, LaneEstablished)
    assert established.session_secret == Secret(SESSION_SECRET)
    assert isinstance(accepted, LaneAccepted)
    text = shown(client, server, established, accepted, client.health, server.health)
    assert "***" in text
    assert planted_in(text) == []


def test_an_answer_that_waits_to_be_sent_shows_no_secret() -> None:
    client = LaneClient(PARAMETERS, exporter=EXPORTER, token=token_key(Secret(TOKEN)))
    client.start(0.0)
    server = LaneServer(
        exporter=EXPORTER,
        token=token_key(Secret(TOKEN)),
        directory=Directory(None),
        terms=WelcomeTerms(1168, 1800.0),
    )
    server.start(0.0)
    server.receive(client.records_to_send()[0], 0.0)
    assert planted_in(shown(server)) == []
    welcome = server.records_to_send()[0]
    assert SESSION_SECRET in welcome
    assert planted_in(shown(parse_message_untrusted(welcome))) == []


@pytest.mark.parametrize(
    ("client_secret", "known", "server_token"),
    [
        pytest.param(SESSION_SECRET, b"x" * 32, TOKEN, id="session_proof_mismatch"),
        pytest.param(None, SESSION_SECRET, TOKEN, id="session_exists"),
        pytest.param(SESSION_SECRET, None, TOKEN, id="unknown_session"),
        pytest.param(None, None, "another token of enough length", id="token_mismatch"),
    ],
)
def test_a_refused_lane_shows_no_secret(
    client_secret: bytes | None, known: bytes | None, server_token: str
) -> None:
    client, server = lane(client_secret=client_secret, known=known, server_token=server_token)
    refused, rejected = client.next_event(), server.next_event()
    assert isinstance(rejected, LaneRejected)
    error = getattr(refused, "error")()  # noqa: B009 - whatever the event, its error is looked at
    text = shown(client, server, refused, rejected, error, error.args)
    assert planted_in(text) == []


def test_errors_show_no_secret() -> None:
    texts = []
    for make in (
        lambda: token_key(Secret("planted+token/of enough=length\n")),
        lambda: build_hello(PARAMETERS, exporter=EXPORTER + b"!", token=None, session_secret=None),
        lambda: build_hello(
            PARAMETERS,
            exporter=EXPORTER,
            token=None,
            session_secret=Secret(SESSION_SECRET + b"!"),
        ),
    ):
        with pytest.raises(ValueError) as caught:
            make()
        texts.append("".join(traceback.format_exception_only(caught.value)))
        assert "planted" not in texts[-1]
    assert planted_in("\n".join(texts)) == []

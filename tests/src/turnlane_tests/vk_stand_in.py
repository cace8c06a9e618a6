"""A stand-in for VK: plays the endpoints of its calls, strictly, with secrets of its own.

It shares no code with the provider: what requests must look like stands here once more. In this
process it is a thread (`with VkStandIn() as vk`); `python -m turnlane_tests.vk_stand_in` runs it as
a program, which prints what a client needs as one line of JSON.
"""

import json
import secrets
import sys
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Self, cast
from urllib.parse import parse_qsl, urlsplit

PATIENCE = 20
"""Seconds for threads to meet; nothing waits that long unless it has failed."""

LOGIN = "vk_login_anonym_token"
ANONYM_TOKEN = "vk_calls_get_anonymous_token"
OK_LOGIN = "ok_anonym_login"
JOIN = "ok_join_conversation_by_link"
START = "ok_start_conversation_create_join_link"
PAGE_ANONYM_TOKEN = "page: vk_calls_get_anonymous_token"
PAGE_LOGIN = "vk_browser_login_anonym_token_messages"
PREVIEW = "vk_calls_get_call_preview"

CLIENT_ID = "6287487"
CLIENT_SECRET = "QbYic1K3lEV5kTGiqlq2"
APPLICATION_KEY = "CGMMEJLGDIHBABABA"

_PATHS = {
    "/login?act=get_anonym_token": LOGIN,
    f"/method/calls.getAnonymousToken?v=5.274&client_id={CLIENT_ID}": ANONYM_TOKEN,
    "/page/login?act=get_anonym_token": PAGE_LOGIN,
    "/page/calls.getAnonymousToken": PAGE_ANONYM_TOKEN,
    "/page/calls.getCallPreview": PREVIEW,
}
_METHODS = {
    "auth.anonymLogin": OK_LOGIN,
    "vchat.joinConversationByLink": JOIN,
    "vchat.startConversation": START,
}


def _random(prefix: str) -> str:
    return f"{prefix}-{secrets.token_urlsafe(15)}"


@dataclass
class Planted:
    """Everything that is secret, and what only looks like a harmless detail; random."""

    join_token: str = field(default_factory=lambda: _random("invite"))
    access_token: str = field(default_factory=lambda: _random("anonym.access"))
    browser_access_token: str = field(default_factory=lambda: _random("anonym.browser"))
    anonym_token: str = field(default_factory=lambda: f'{_random("$anonym")} "é/+%\\&=?#')
    session_key: str = field(default_factory=lambda: _random("-s-key"))
    user: str = field(default_factory=lambda: _random("user"))
    password: str = field(default_factory=lambda: _random("password"))
    captcha_url: str = field(
        default_factory=lambda: f"https://id.vk.com/not_robot?sid={_random('redirect')}"
    )
    captcha_image: str = field(
        default_factory=lambda: f"https://vk.com/captcha.php?s={_random('image')}"
    )
    captcha_sid: str = field(default_factory=lambda: _random("sid"))
    remixstlid: str = field(default_factory=lambda: _random("stlid"))
    cookie: str = field(default_factory=lambda: _random("cookie"))
    person: str = field(default_factory=lambda: _random("Ann Example"))
    photo: str = field(default_factory=lambda: f"https://sun.example/{_random('photo')}")
    short_link: str = field(default_factory=lambda: f"https://vk.cc/{_random('short')}")

    def all(self) -> list[str]:
        """Return every value."""
        return list(vars(self).values())

    def filled(self, document: Any) -> Any:
        """Return a document of a fixture with real values in the place of its placeholders."""
        if isinstance(document, dict):
            return {name: self.filled(value) for name, value in document.items()}
        if isinstance(document, list):
            return [self.filled(value) for value in document]
        if not isinstance(document, str):
            return document
        for placeholder, value in {
            "<redacted:vk-join-token>": self.join_token,
            "<redacted:vk-access-token-1>": self.access_token,
            "<redacted:vk-browser-access-token>": self.browser_access_token,
            "<redacted:vk-anonym-token>": self.anonym_token,
            "<redacted:ok-session-key>": self.session_key,
            "<redacted:turn-username>": f"4102444700:{self.user}",
            "<redacted:turn-password>": self.password,
            "<redacted:vk-captcha-redirect-uri>": self.captcha_url,
            "<redacted:vk-captcha-image-uri>": self.captcha_image,
            "<redacted:vk-captcha-sid>": self.captcha_sid,
            "<redacted:vk-remixstlid>": self.remixstlid,
        }.items():
            document = document.replace(placeholder, value)
        assert "<redacted:" not in document
        return document


@dataclass
class Reply:
    """An answer: JSON of `document`, or `body` as it stands.

    `drip` sends one byte of it and no more until the client has gone.
    """

    document: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    drip: bool = False

    @property
    def content(self) -> bytes:
        """The bytes of the body."""
        return json.dumps(self.document).encode() if self.body is None else self.body


@dataclass
class Seen:
    """A request as it came."""

    stage: str
    form: dict[str, str]
    headers: dict[str, str]


class VkStandIn:
    """An HTTP server in a thread that answers as VK does.

    `replies` has for each stage what is answered in place of the good answer: the first of several,
    and in the end always the last. `pages` are HTML by path. `seen` are the requests, `faults` what
    was wrong with them. `expiry` is the Unix time in the user names that are given, which grows by
    `step` with each.
    """

    def __init__(self, turn_urls: Sequence[str] = ("turn:turn.example.test:3478",)) -> None:
        self.planted = Planted()
        self.turn_urls = list(turn_urls)
        self.replies: dict[str, list[Reply]] = {}
        self.pages: dict[str, str] = {}
        self.seen: list[Seen] = []
        self.faults: list[str] = []
        self.gone = Event()
        self.expiry = 4_102_444_700
        self.step = 0
        self._server = _Server(self)
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._thread.join(PATIENCE)
        self._server.server_close()

    @property
    def base(self) -> str:
        """Where it listens, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def link(self) -> str:
        """An invite."""
        return f"https://vk.com/call/join/{self.planted.join_token}"

    @property
    def username(self) -> str:
        """The TURN REST user name that is given next."""
        return f"{self.expiry}:{self.planted.user}"

    @property
    def settings(self) -> dict[str, str]:
        """What leads the provider here."""
        return {
            "login_url": f"{self.base}/login?act=get_anonym_token",
            "anonym_token_url": f"{self.base}/method/calls.getAnonymousToken",
            "ok_url": f"{self.base}/fb.do",
            "invite_page": f"{self.base}/call/join/",
            "start_page": f"{self.base}/start",
            "browser_login_url": f"{self.base}/page/login?act=get_anonym_token",
            "browser_anonym_token_url": f"{self.base}/page/calls.getAnonymousToken",
            "browser_preview_url": f"{self.base}/page/calls.getCallPreview",
        }

    @property
    def stages(self) -> list[str]:
        """The stages that were asked for, in their order."""
        return [each.stage for each in self.seen]

    def answer(self, stage: str, *replies: Reply) -> None:
        """Answer a stage in this way from now on."""
        self.replies[stage] = list(replies)

    def reply(self, stage: str) -> Reply:
        """Return what a request of a stage is answered with."""
        waiting = self.replies.get(stage)
        if not waiting:
            good = Reply(self.good(stage))
            self.expiry += self.step if stage in (JOIN, START) else 0
            return good
        return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def good(self, stage: str) -> dict[str, Any]:
        """Return the good answer of a stage, with fields that nobody knows."""
        planted = self.planted
        beside = {
            "user_name": planted.person,
            "photo": planted.photo,
            "short_link": planted.short_link,
        }
        relay: dict[str, Any] = {
            "turn_server": {
                "urls": self.turn_urls,
                "username": self.username,
                "credential": planted.password,
                **beside,
            },
            "participants": [beside],
            **beside,
        }
        answers: dict[str, dict[str, Any]] = {
            LOGIN: {"data": {"expires": 1, "access_token": planted.access_token, **beside}},
            ANONYM_TOKEN: {"response": {"token": planted.anonym_token, **beside}},
            PAGE_ANONYM_TOKEN: {"response": {"token": planted.anonym_token, **beside}},
            PAGE_LOGIN: {"data": {"access_token": planted.browser_access_token, **beside}},
            PREVIEW: {"response": {"join_link": self.link, "state": "prejoin", **beside}},
            OK_LOGIN: {"session_key": planted.session_key, "uid": planted.person, **beside},
            JOIN: relay,
            START: {**relay, "join_link": self.link},
        }
        return answers[stage]

    def captcha(self) -> dict[str, Any]:
        """Return the answer that asks for a human."""
        planted = self.planted
        return {
            "error": {
                "error_code": 14,
                "error_msg": "Captcha needed",
                "redirect_uri": planted.captcha_url,
                "captcha_img": planted.captcha_image,
                "captcha_sid": planted.captcha_sid,
                "remixstlid": planted.remixstlid,
                "request_params": [{"key": "name", "value": planted.person}],
            }
        }

    def check(self, seen: Seen) -> list[str]:
        """Say what is wrong with a request of the staged flow; pages ask as they like."""
        wanted = self._wanted(seen.stage)
        if wanted is None or "origin" in seen.headers:
            return []
        faults = [
            f"unexpected header {name}" for name in ("cookie", "referer") & seen.headers.keys()
        ]
        if not seen.headers.get("user-agent", "").startswith("Mozilla/5.0"):
            faults.append("no desktop browser")
        if list(seen.form) != list(wanted):
            faults.append(f"{seen.stage}: fields {list(seen.form)}")
        faults += [
            f"{seen.stage}: {name}"
            for name, value in wanted.items()
            if value is not None and seen.form.get(name) != value
        ]
        if seen.stage == OK_LOGIN:
            faults += _check_session_data(seen.form.get("session_data", ""))
        return faults

    def _wanted(self, stage: str) -> dict[str, str | None] | None:
        ok = {"format": "JSON", "application_key": APPLICATION_KEY}
        forms: dict[str, dict[str, str | None]] = {
            LOGIN: {
                "client_id": CLIENT_ID,
                "token_type": "messages",
                "client_secret": CLIENT_SECRET,
                "version": "1",
                "app_id": CLIENT_ID,
            },
            ANONYM_TOKEN: {
                "vk_join_link": self.link,
                "name": None,
                "access_token": self.planted.access_token,
            },
            OK_LOGIN: {"session_data": None, "method": "auth.anonymLogin", **ok},
            JOIN: {
                "joinLink": self.planted.join_token,
                "isVideo": "false",
                "protocolVersion": "5",
                "anonymToken": self.planted.anonym_token,
                "method": "vchat.joinConversationByLink",
                **ok,
                "session_key": self.planted.session_key,
            },
        }
        return forms.get(stage)


def _check_session_data(text: str) -> list[str]:
    data = json.loads(text)
    device = uuid.UUID(data.pop("device_id"))
    known = {"version": 2, "client_version": 1.1, "client_type": "SDK_JS"}
    faults = [] if data == known else ["session_data"]
    return faults if device.version == 4 else [*faults, "device_id"]


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        vk = cast("_Server", self.server).stand_in
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        form = dict(parse_qsl(body, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        stage = _PATHS.get(self.path)
        if urlsplit(self.path).path == "/fb.do":
            stage = _METHODS.get(form.get("method", ""))
        if stage is None:
            vk.faults.append(f"unknown path {self.path}")
            self._send(Reply(status=404))
            return
        seen = Seen(stage, form, headers)
        vk.seen.append(seen)
        faults = vk.check(seen)
        vk.faults += faults
        self._send(Reply(status=400) if faults else vk.reply(stage))

    def do_GET(self) -> None:
        vk = cast("_Server", self.server).stand_in
        page = vk.pages.get(urlsplit(self.path).path)
        if page is None:
            self._send(Reply(status=404))
        else:
            html = {"Content-Type": "text/html; charset=utf-8"}
            self._send(Reply(body=page.encode(), headers=html))

    def _send(self, reply: Reply) -> None:
        vk = cast("_Server", self.server).stand_in
        content = reply.content
        self.send_response(reply.status)
        if "Content-Type" not in reply.headers:
            self.send_header("Content-Type", "application/json")
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Set-Cookie", f"remixsid={vk.planted.cookie}; Path=/")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not reply.drip:
            self.wfile.write(content)
            return
        self.wfile.write(content[:1])
        with suppress(OSError):
            while self.request.recv(4096):
                continue
        vk.gone.set()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    """Takes connections for a stand-in."""

    # Threads are waited for at the end, so that no test leaves a socket to the next.
    daemon_threads = False
    block_on_close = True

    def __init__(self, stand_in: VkStandIn) -> None:
        self.stand_in = stand_in
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients of these tests break off on purpose."""


def main() -> None:
    """Run until the input ends; prints link, settings and secrets as one line of JSON."""
    with VkStandIn() as vk:
        # Within the hour that the clock of the conformance kit shows, and later each time.
        vk.expiry, vk.step = 4_000_003_600, 600
        told = {"link": vk.link, "settings": vk.settings, "secrets": vk.planted.all()}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()

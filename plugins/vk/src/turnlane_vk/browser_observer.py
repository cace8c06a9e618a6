"""The observer: from the requests and answers of a page to the answers that are kept."""

import re
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import anyio

from turnlane.api import Secret
from turnlane_vk.browser import MAX_OBSERVED_ANSWERS, MAX_OBSERVED_BODY, ObservedAnswer, Watch
from turnlane_vk.recognition import recognise_untrusted

if TYPE_CHECKING:
    from playwright.async_api import Request, Response

MAX_FIELDS = 64
MAX_FORM = 64 * 1024
"""Bytes. A form with more, or with more fields, is taken for none."""

BODY_WITHIN = 5.0
SETTLE_WITHIN = 5.0
"""Seconds that a body may take, and what was asked for before the operator confirmed."""

_FORM_TYPE = "application/x-www-form-urlencoded"
_FIELD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
"""What a field's name looks like; a page that sends something else there may send a secret."""


Report = Callable[[ObservedAnswer], None]
StartSoon = Callable[..., object]
"""Of a task group."""


class Observer:
    """Keeps the answers of the stages it is to watch, in the order in which they come."""

    def __init__(self, watch: Watch, report: Report, start_soon: StartSoon) -> None:
        self._watch = watch
        self._report = report
        self._start_soon = start_soon
        self._awaited: dict[Request, tuple[str, tuple[str, ...]]] = {}
        self._came = 0
        self._reported = 0
        self._kept: dict[int, ObservedAnswer] = {}
        self._changed = anyio.Event()

    def requested(self, request: "Request") -> None:
        """Take note of a request that a page makes."""
        if len(self._awaited) >= MAX_OBSERVED_ANSWERS:
            return
        form = form_untrusted(request)
        stage = recognise_untrusted(self._watch, request.method, request.url, form)
        if stage is not None:
            names = tuple(sorted(name for name in form if _FIELD_NAME.fullmatch(name)))
            self._awaited[request] = (stage, names)

    def failed(self, request: "Request") -> None:
        """Wait for no answer to `request` any longer."""
        self._awaited.pop(request, None)
        self._change()

    def gone(self) -> None:
        """Wait for no answer any longer: the browser has gone."""
        self._awaited.clear()
        self._change()

    def answered(self, request: "Request", response: "Response") -> None:
        """Take an answer whose head has come.

        Its body is fetched at once: it is lost when the page is left.
        """
        known = self._awaited.pop(request, None)
        if known is None or self._came >= MAX_OBSERVED_ANSWERS:
            return
        self._start_soon(self._keep, self._came, *known, response)
        self._came += 1

    async def settle(self) -> None:
        """Wait, not for long, until every answer that is asked for has come and is reported."""
        with anyio.move_on_after(SETTLE_WITHIN):
            while self._awaited or self._reported < self._came:
                await self._changed.wait()

    async def _keep(
        self, place: int, stage: str, form_keys: tuple[str, ...], response: "Response"
    ) -> None:
        self._kept[place] = ObservedAnswer(
            stage=stage,
            status=response.status,
            form_keys=form_keys,
            body=Secret(await _body(response)),
        )
        while (answer := self._kept.pop(self._reported, None)) is not None:
            self._reported += 1
            self._report(answer)
        self._change()

    def _change(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


def form_untrusted(request: "Request") -> dict[str, str]:
    """Return the form that a request brings; empty where it brings none, or one beyond bounds."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    data = request.post_data_buffer
    if kind != _FORM_TYPE or not data or len(data) > MAX_FORM:
        return {}
    text = data.decode("utf-8", "replace")
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        return {}


async def _body(response: "Response") -> bytes:
    announced = response.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_OBSERVED_BODY:
        return b""
    body = b""
    with anyio.move_on_after(BODY_WITHIN):
        # Whatever playwright raises, the browser does not have the body any longer.
        with suppress(Exception):
            body = await response.body()
    return body if len(body) <= MAX_OBSERVED_BODY else b""

"""What is kept of a page's traffic, without a browser: requests and answers made by hand."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import anyio
import pytest

from turnlane.api import Secret
from turnlane_vk import browser_observer
from turnlane_vk.browser import MAX_OBSERVED_ANSWERS, MAX_OBSERVED_BODY, ObservedAnswer, Watch
from turnlane_vk.browser_observer import MAX_FIELDS, MAX_FORM, Observer, form_untrusted

if TYPE_CHECKING:
    from playwright.async_api import Request, Response

pytestmark = pytest.mark.anyio

FORM = {"content-type": "application/x-www-form-urlencoded; charset=UTF-8"}
PREVIEW = "https://api.example/method/calls.getCallPreview"
FB = "https://calls.example/fb.do"
WATCH = Watch(
    page=Secret("https://example/call/join/t0ken"),
    endpoints={
        "vk_calls_get_call_preview": PREVIEW,
        "ok_anonym_login": FB,
        "ok_join_conversation_by_link": FB,
    },
    application_key="KEY",
    join_links=(Secret("t0ken"),),
)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@dataclass(eq=False)
class FakeRequest:
    url: str = PREVIEW
    post_data_buffer: bytes | None = b"call_id=1&access_token=secret&v=5"
    headers: dict[str, str] = field(default_factory=lambda: dict(FORM))
    method: str = "POST"


@dataclass
class FakeResponse:
    content: bytes | Exception = b"{}"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    come: anyio.Event | None = None
    """When the body is there; at once where there is none."""

    async def body(self) -> bytes:
        if self.come is not None:
            await self.come.wait()
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


class Page:
    """Makes requests and answers them, in front of an observer."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self.kept: list[ObservedAnswer] = []
        self.observer = Observer(WATCH, self.kept.append, tasks.start_soon)

    def request(self, request: FakeRequest) -> FakeRequest:
        self.observer.requested(cast("Request", request))
        return request

    def answer(self, request: FakeRequest, response: FakeResponse) -> None:
        self.observer.answered(cast("Request", request), cast("Response", response))

    def exchange(self, request: FakeRequest, response: FakeResponse | None = None) -> None:
        self.answer(self.request(request), response or FakeResponse())

    def fail(self, request: FakeRequest) -> None:
        self.observer.failed(cast("Request", request))

    @property
    def bodies(self) -> list[bytes]:
        return [answer.body.reveal() for answer in self.kept]


@asynccontextmanager
async def a_page() -> AsyncIterator[Page]:
    async with anyio.create_task_group() as tasks:
        yield Page(tasks)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browser_observer, "BODY_WITHIN", 0.01)
    monkeypatch.setattr(browser_observer, "SETTLE_WITHIN", 0.05)


async def test_the_answer_of_a_known_stage_is_kept_with_the_names_of_the_form() -> None:
    async with a_page() as page:
        page.exchange(FakeRequest(), FakeResponse(b'{"response": {}}', 201))
        await page.observer.settle()

    assert page.kept == [
        ObservedAnswer(
            stage="vk_calls_get_call_preview",
            status=201,
            form_keys=("access_token", "call_id", "v"),
            body=Secret(b'{"response": {}}'),
        )
    ]


@pytest.mark.parametrize(
    "request_",
    [
        FakeRequest(method="GET"),
        FakeRequest(url="https://api.example/method/calls.getCallPreviewOfAnother"),
        FakeRequest(url="https://api.example.evil/method/calls.getCallPreview"),
        FakeRequest(url="https://evil.example/?" + PREVIEW),
        FakeRequest(url=FB, post_data_buffer=b"method=vchat.hangup&format=JSON"),
        FakeRequest(url=FB, post_data_buffer=None),
        FakeRequest(
            url=FB,
            post_data_buffer=b"method=auth.anonymLogin&format=JSON&application_key=KEY",
            headers={"content-type": "text/plain"},
        ),
    ],
    ids=["get", "other method", "other host", "in query", "other form", "no form", "no form type"],
)
async def test_everything_else_is_dropped_and_its_body_not_even_fetched(
    request_: FakeRequest,
) -> None:
    async with a_page() as page:
        page.exchange(request_, FakeResponse(AssertionError("nobody asked for it")))
        await page.observer.settle()

    assert page.kept == []


async def test_an_answer_to_a_request_that_nobody_saw_is_dropped() -> None:
    async with a_page() as page:
        page.answer(FakeRequest(), FakeResponse())
        await page.observer.settle()

    assert page.kept == []


async def test_answers_are_told_in_the_order_in_which_they_came_not_their_bodies() -> None:
    slow = anyio.Event()
    async with a_page() as page:
        second, first = page.request(FakeRequest()), page.request(FakeRequest())
        page.answer(first, FakeResponse(b"first", come=slow))
        page.answer(second, FakeResponse(b"second"))
        await anyio.lowlevel.checkpoint()
        assert page.kept == []
        slow.set()
        await page.observer.settle()

    assert page.bodies == [b"first", b"second"]


async def test_settling_waits_for_the_answer_of_a_request_under_way() -> None:
    async with a_page() as page:
        request = page.request(FakeRequest())
        async with anyio.create_task_group() as settling:
            settling.start_soon(page.observer.settle)
            await anyio.wait_all_tasks_blocked()
            page.answer(request, FakeResponse(b"late"))

    assert page.bodies == [b"late"]


async def test_settling_does_not_wait_for_a_request_that_failed() -> None:
    async with a_page() as page:
        request = page.request(FakeRequest())
        async with anyio.create_task_group() as settling:
            settling.start_soon(page.observer.settle)
            await anyio.wait_all_tasks_blocked()
            page.fail(request)

    assert page.kept == []


async def test_nothing_is_waited_for_once_the_browser_has_gone() -> None:
    async with a_page() as page:
        page.request(FakeRequest())
        page.observer.gone()
        with anyio.fail_after(1):
            await page.observer.settle()

    assert page.kept == []


@pytest.mark.usefixtures("impatient")
async def test_settling_has_an_end() -> None:
    async with a_page() as page:
        page.request(FakeRequest())
        with anyio.fail_after(5):
            await page.observer.settle()

    assert page.kept == []


@pytest.mark.usefixtures("impatient")
async def test_a_body_that_does_not_come_is_kept_as_empty() -> None:
    async with a_page() as page:
        page.exchange(FakeRequest(), FakeResponse(b"never", come=anyio.Event()))
        page.exchange(FakeRequest(), FakeResponse(b"next"))
        await page.observer.settle()

    assert page.bodies == [b"", b"next"]


async def test_a_body_that_the_browser_has_dropped_is_kept_as_empty() -> None:
    async with a_page() as page:
        page.exchange(FakeRequest(), FakeResponse(RuntimeError("No resource with given id")))
        await page.observer.settle()

    assert page.bodies == [b""]


async def test_a_body_over_the_bound_is_kept_as_empty() -> None:
    most = b"x" * MAX_OBSERVED_BODY
    async with a_page() as page:
        page.exchange(FakeRequest(), FakeResponse(most))
        page.exchange(FakeRequest(), FakeResponse(most + b"x"))
        await page.observer.settle()

    assert page.bodies == [most, b""]


@pytest.mark.parametrize("length", [str(MAX_OBSERVED_BODY + 1), "9" * 5000])
async def test_a_body_announced_as_over_the_bound_is_not_fetched(length: str) -> None:
    async with a_page() as page:
        page.exchange(FakeRequest(), FakeResponse(b"{}", headers={"content-length": length}))
        await page.observer.settle()

    assert page.bodies == [b""]


async def test_only_so_many_answers_are_kept() -> None:
    async with a_page() as page:
        for number in range(MAX_OBSERVED_ANSWERS + 1):
            page.exchange(FakeRequest(), FakeResponse(b"%d" % number))
        await page.observer.settle()

    assert page.bodies == [b"%d" % number for number in range(MAX_OBSERVED_ANSWERS)]


async def test_only_so_many_requests_are_waited_for() -> None:
    async with a_page() as page:
        for _ in range(MAX_OBSERVED_ANSWERS):
            page.request(FakeRequest())
        page.exchange(FakeRequest(), FakeResponse())
        page.observer.gone()
        await page.observer.settle()

    assert page.kept == []


async def test_names_that_are_no_names_are_left_out() -> None:
    names = b"v=5&Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4Zm9v=&a.b=1&%D0%B8=1&1st=1&ok_1=&=x"
    async with a_page() as page:
        page.exchange(FakeRequest(post_data_buffer=names))
        await page.observer.settle()

    assert page.kept[0].form_keys == ("ok_1", "v")


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"a=1&b=&c=%20x", {"a": "1", "b": "", "c": " x"}),
        (b"a=1&a=2", {"a": "2"}),
        (b"a=\xff", {"a": "\ufffd"}),
        (b"&".join(b"f%d=" % n for n in range(MAX_FIELDS)), {f"f{n}": "" for n in range(64)}),
        (b"&".join(b"f%d=" % n for n in range(MAX_FIELDS + 1)), {}),
        (b"a=" + b"x" * MAX_FORM, {}),
        (b"", {}),
        (None, {}),
    ],
    ids=["plain", "twice", "no text", "most fields", "too many", "too long", "empty", "none"],
)
def test_a_form_is_read_within_bounds(data: bytes | None, form: dict[str, str]) -> None:
    assert form_untrusted(cast("Request", FakeRequest(post_data_buffer=data))) == form


def test_what_is_sent_as_something_else_is_no_form() -> None:
    request = FakeRequest(post_data_buffer=b"a=1", headers={"content-type": "multipart/form-data"})

    assert form_untrusted(cast("Request", request)) == {}

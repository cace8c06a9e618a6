"""Challenges on the terminal: shown, answered, cancelled, timed out."""

import io
import os

import anyio
import pytest

from turnlane.api import Challenge, Secret
from turnlane.cli.challenges import MAX_LINE, TerminalChallenges

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe():
    """Return a keyboard to read from and a function that types on it (None: the end of input)."""
    reading, writing = os.pipe()
    open_ends = {reading, writing}

    def type_in(text: str | None) -> None:
        if text is None:
            os.close(writing)
            open_ends.discard(writing)
        else:
            os.write(writing, text.encode())

    yield reading, type_in
    for end in open_ends:
        os.close(end)


CHALLENGE = Challenge("captcha", "Solve the picture", deadline=120.0)


@pytest.mark.parametrize(
    ("typed", "action"),
    [
        ("continue\n", "continue"),
        ("cancel\n", "cancel"),
        (" Continue \r\n", "continue"),
        ("what?\ncontinue\n", "continue"),
        ("\nyes\ncancel\n", "cancel"),
    ],
)
async def test_the_operator_answers(anyio_backend, pipe, typed, action) -> None:
    keyboard, type_in = pipe
    screen = io.StringIO()
    type_in(typed)
    answer = await TerminalChallenges(screen, keyboard).ask(CHALLENGE)
    assert answer.action == action
    assert screen.getvalue().startswith(
        "[captcha] Solve the picture\n"
        "Then type continue, or cancel, within 120 s, and press Enter.\n"
    )
    asked_again = screen.getvalue().count("Type continue or cancel.")
    assert asked_again == typed.count("\n") - 1


async def test_an_answer_may_come_in_pieces_and_the_next_with_it(anyio_backend, pipe) -> None:
    keyboard, type_in = pipe
    challenges = TerminalChallenges(io.StringIO(), keyboard)
    type_in("cont")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            answers = []

            async def ask() -> None:
                answers.append((await challenges.ask(CHALLENGE)).action)
                answers.append((await challenges.ask(CHALLENGE)).action)

            tasks.start_soon(ask)
            await anyio.wait_all_tasks_blocked()
            assert answers == []
            type_in("inue\ncancel\n")
    assert answers == ["continue", "cancel"]


async def test_the_end_of_the_input_cancels(anyio_backend, pipe) -> None:
    keyboard, type_in = pipe
    type_in(None)
    answer = await TerminalChallenges(io.StringIO(), keyboard).ask(CHALLENGE)
    assert answer.action == "cancel"


async def test_the_deadline_times_out(anyio_backend, pipe) -> None:
    keyboard, _ = pipe
    screen = io.StringIO()
    challenge = Challenge("captcha", "Solve the picture", deadline=0.01)
    answer = await TerminalChallenges(screen, keyboard).ask(challenge)
    assert answer.action == "timeout"
    assert screen.getvalue().endswith("No answer came in time.\n")


async def test_waiting_for_an_answer_can_be_cancelled(anyio_backend, pipe) -> None:
    keyboard, _ = pipe
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(TerminalChallenges(io.StringIO(), keyboard).ask, CHALLENGE)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()


async def test_two_challenges_are_asked_one_after_the_other(anyio_backend, pipe) -> None:
    keyboard, type_in = pipe
    screen = io.StringIO()
    challenges = TerminalChallenges(screen, keyboard)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(challenges.ask, Challenge("first", "One"))
            tasks.start_soon(challenges.ask, Challenge("second", "Two"))
            await anyio.wait_all_tasks_blocked()
            assert screen.getvalue().count("Then type continue") == 1
            type_in("continue\ncontinue\n")
    assert screen.getvalue().count("Then type continue") == 2


async def test_a_url_is_shown_and_controls_in_a_prompt_are_not(anyio_backend, pipe) -> None:
    keyboard, type_in = pipe
    screen = io.StringIO()
    type_in("continue\n")
    challenge = Challenge("sign_in", "Sign\x1b[2Jin", Secret("https://example.org/?code=1"))
    await TerminalChallenges(screen, keyboard).ask(challenge)
    assert "[sign_in] Sign\\x1b[2Jin\nOpen https://example.org/?code=1\n" in screen.getvalue()


async def test_what_is_typed_without_an_end_takes_bounded_memory(anyio_backend, pipe) -> None:
    keyboard, type_in = pipe
    challenges = TerminalChallenges(io.StringIO(), keyboard)
    for _ in range(4):
        type_in("x" * MAX_LINE)
    type_in("\ncontinue\n")
    assert (await challenges.ask(CHALLENGE)).action == "continue"

"""Cancellation at a chosen await: what a scheduler does by chance, done on purpose."""

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Generic, TypeVar

import anyio

T = TypeVar("T")


class CancelAt(Generic[T]):
    """Awaits a coroutine and calls `cancel` when it waits for the `number`-th time, from 1.

    Works on every backend, since it stands between the coroutine and the scheduler. `waits` says
    how often the coroutine has waited; `delivered` says that a cancellation was raised in it after
    `cancel` was called (where the rest is shielded, none is).
    """

    def __init__(
        self, coroutine: Coroutine[Any, Any, T], number: int, cancel: Callable[[], None]
    ) -> None:
        self.waits = 0
        self.delivered = False
        self._coroutine = coroutine
        self._number = number
        self._cancel = cancel

    def __await__(self) -> Generator[Any, Any, T]:
        cancelled = anyio.get_cancelled_exc_class()
        step: Callable[[], Any] = partial(self._coroutine.send, None)
        while True:
            try:
                waited_for = step()
            except StopIteration as stop:
                result: T = stop.value
                return result
            self.waits += 1
            if self.waits == self._number:
                self._cancel()
            try:
                sent = yield waited_for
            except GeneratorExit:
                self._coroutine.close()
                raise
            except BaseException as error:  # whatever the scheduler raises is raised further in
                raised: object = error
                step = partial(self._coroutine.throw, error)
            else:
                # Trio sends an outcome, which holds the error that its own code raises further in.
                raised = getattr(sent, "error", None)
                step = partial(self._coroutine.send, sent)
            if self.waits >= self._number and isinstance(raised, cancelled):
                self.delivered = True

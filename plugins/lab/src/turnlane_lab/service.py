"""What runs in the background while an `async with` block lasts."""

from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from turnlane.runtime.failures import is_again


class Service:
    """Opens sockets and runs tasks on entry; on exit everything it started is gone.

    A subclass opens in `_open` (synchronously), starts its tasks in `_start` and releases in
    `_close` whatever may still be held, for a task that never ran releases nothing.
    """

    _tasks: TaskGroup

    async def __aenter__(self) -> Self:
        try:
            self._open()
            self._tasks = await anyio.create_task_group().__aenter__()
        except BaseException:
            self._close()
            raise
        self._start(self._tasks)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self._tasks.cancel_scope.cancel()
        try:
            return await self._tasks.__aexit__(exc_type, exc, traceback)
        except BaseException as raised:
            if is_again(raised, exc):
                return False
            raise
        finally:
            self._close()

    def _open(self) -> None:
        raise NotImplementedError

    def _start(self, tasks: TaskGroup) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

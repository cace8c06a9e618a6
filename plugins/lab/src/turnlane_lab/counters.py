"""Counters that tests wait on instead of sleeping."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import anyio
from anyio.lowlevel import checkpoint


class Counters(Mapping[str, int]):
    """Named numbers that can be awaited; read them like a mapping.

    The set of names is fixed; a name that is not of the set raises `KeyError` with all that are.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._values = dict.fromkeys(names, 0)
        self._waiters: list[tuple[str, Callable[[int], bool], anyio.Event]] = []

    def __getitem__(self, name: str) -> int:
        self._check(name)
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value}" for name, value in self._values.items() if value)
        return f"Counters({told})"

    def add(self, name: str, amount: int = 1) -> None:
        """Change one number by `amount` (which may be negative) and wake who waited for that."""
        self._values[name] += amount
        if self._waiters:
            self._wake(name)

    async def reached(self, name: str, value: int, *, timeout: float = 10.0) -> int:
        """Wait until the number is at least `value`; return what it is then.

        Raises `TimeoutError`, with all numbers in its text, after `timeout` seconds.
        """
        return await self._until(name, lambda current: current >= value, f">= {value}", timeout)

    async def settled(self, name: str, value: int, *, timeout: float = 10.0) -> int:
        """Wait until the number is exactly `value`; return it.

        Raises `TimeoutError`, with all numbers in its text, after `timeout` seconds.
        """
        return await self._until(name, lambda current: current == value, f"== {value}", timeout)

    async def _until(
        self, name: str, holds: Callable[[int], bool], wanted: str, timeout: float
    ) -> int:
        self._check(name)
        if holds(self._values[name]):
            await checkpoint()
            return self._values[name]
        waiter = (name, holds, anyio.Event())
        self._waiters.append(waiter)
        try:
            with anyio.fail_after(timeout):
                await waiter[2].wait()
        except TimeoutError:
            raise TimeoutError(f"{name} {wanted} not within {timeout:g} s: {self}") from None
        finally:
            self._waiters.remove(waiter)
        return self._values[name]

    def _wake(self, name: str) -> None:
        value = self._values[name]
        for waited, holds, event in self._waiters:
            if waited == name and holds(value):
                event.set()

    def _check(self, name: str) -> None:
        if name not in self._values:
            raise KeyError(f"no counter {name!r}; there are: {', '.join(self._values)}")

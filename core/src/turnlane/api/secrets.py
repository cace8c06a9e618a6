"""A value that must not be seen: it prints as `***` everywhere and is taken out on purpose only."""

import hmac
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T", bound=str | bytes)


class Secret(Generic[T]):
    """Holds a token, password, key or a link that contains one.

    `repr`, `str` and formatting give `***`; comparison takes constant time; pickling is refused.
    `reveal()` is the one way to the value, so that a search for it finds every use.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value: T = value

    def reveal(self) -> T:
        """Return the value itself. Never log, format or store what comes back."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __format__(self, format_spec: str) -> str:
        return "***"

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_as_bytes(self._value), _as_bytes(other._value))

    def __hash__(self) -> int:
        return hash(("Secret", self._value))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value

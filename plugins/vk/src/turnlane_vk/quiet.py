"""Keeps httpx and httpcore from logging our requests: they log URLs, headers and cookies."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LOGGERS = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)
"""All that they log to (httpx 0.28, httpcore 1.0): a filter holds for its own logger only."""

_ours: ContextVar[bool] = ContextVar("turnlane_vk_request", default=False)


class _NotOurs(logging.Filter):
    """Lets through what other users of httpx in this process do."""

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002
        return not _ours.get()


_FILTER = _NotOurs()


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what the HTTP libraries log about the request that is made inside."""
    for name in LOGGERS:
        # The one filter stays: taking it away could open the log to a request beside this one.
        logging.getLogger(name).addFilter(_FILTER)
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)

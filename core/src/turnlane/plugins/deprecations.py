"""Deprecated uses by plugins: told, and never a reason not to load one."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from turnlane.api import TurnlaneDeprecationWarning
from turnlane.telemetry import log_event

_LOG = logging.getLogger(__name__)


@contextmanager
def tolerated(plugin: str) -> Iterator[None]:
    """Let what is deprecated be used inside the block even where warnings are errors.

    Each use is logged at level debug, and shown afterwards as its author has told Python to.
    """
    caught: list[warnings.WarningMessage] = []
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", TurnlaneDeprecationWarning)
            yield
    finally:
        for each in caught:
            if issubclass(each.category, TurnlaneDeprecationWarning):
                told = str(each.message)
                log_event(_LOG, logging.DEBUG, "deprecated_use", plugin=plugin, told=told)
            with suppress(TurnlaneDeprecationWarning):
                warnings.warn_explicit(
                    each.message, each.category, each.filename, each.lineno, source=each.source
                )

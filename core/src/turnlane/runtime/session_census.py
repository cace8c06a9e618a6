"""Which worker owns which session, and when one has to make room."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Verdict:
    """Who owns a session; None where nobody does, for there is none, or where there is no room.

    `evicted` is a deserted session, with its owner, that gives its room to a new one.
    """

    owner: int | None
    full: bool = False
    evicted: tuple[bytes, int] | None = None


class SessionCensus:
    """Counts the sessions of all workers, at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._owners: dict[bytes, int] = {}
        # In order of their desertion, as far as each worker's reports tell.
        self._deserted: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._owners)

    def claim(self, session_id: bytes, worker: int, *, new: bool) -> Verdict:
        """Say who owns a session; a new one becomes the claimant's where nobody does.

        Where there is no room, the session deserted first makes some.
        """
        owner = self._owners.get(session_id)
        if owner is not None or not new:
            return Verdict(owner)
        evicted = None
        if len(self._owners) >= self._limit:
            oldest = next(iter(self._deserted), None)
            if oldest is None:
                return Verdict(None, full=True)
            evicted = oldest, self._owners[oldest]
            self._forget(oldest)
        self._owners[session_id] = worker
        return Verdict(worker, evicted=evicted)

    def release(self, session_id: bytes, worker: int) -> None:
        """Forget a session that its owner has ended."""
        if self._owners.get(session_id) == worker:
            self._forget(session_id)

    def deserted(self, session_ids: tuple[bytes, ...], worker: int) -> None:
        """Take note of which sessions of a worker have no lane now."""
        named = set(session_ids)
        for session_id in [known for known in self._deserted if self._owners[known] == worker]:
            if session_id not in named:
                del self._deserted[session_id]
        for session_id in session_ids:
            if self._owners.get(session_id) == worker:
                self._deserted.setdefault(session_id)

    def drop(self, worker: int) -> None:
        """Forget the sessions of a worker that has gone."""
        for session_id in [known for known, owner in self._owners.items() if owner == worker]:
            self._forget(session_id)

    def _forget(self, session_id: bytes) -> None:
        del self._owners[session_id]
        self._deserted.pop(session_id, None)

"""Which worker owns which session, and who makes room."""

from turnlane.runtime.session_census import SessionCensus, Verdict

A, B, C, D = b"a", b"b", b"c", b"d"


def census_of(limit: int, **owners: int) -> SessionCensus:
    census = SessionCensus(limit)
    for name, worker in owners.items():
        census.claim(name.encode(), worker, new=True)
    return census


def test_a_new_session_belongs_to_who_claims_it_first() -> None:
    census = SessionCensus(2)
    assert census.claim(A, 3, new=True) == Verdict(3)
    assert census.claim(A, 1, new=True) == Verdict(3)
    assert census.claim(A, 1, new=False) == Verdict(3)
    assert len(census) == 1


def test_who_only_asks_makes_no_session() -> None:
    census = SessionCensus(2)
    assert census.claim(A, 1, new=False) == Verdict(None)
    assert len(census) == 0


def test_only_the_owner_gives_a_session_back() -> None:
    census = census_of(2, a=1)
    census.release(A, 2)
    census.release(B, 1)
    assert census.claim(A, 2, new=False) == Verdict(1)
    census.release(A, 1)
    assert census.claim(A, 2, new=True) == Verdict(2)


def test_the_limit_is_that_of_all_workers_together() -> None:
    census = census_of(2, a=1, b=2)
    assert census.claim(C, 3, new=True) == Verdict(None, full=True)
    assert census.claim(B, 3, new=True) == Verdict(2)
    assert len(census) == 2


def test_where_there_is_no_room_the_session_that_was_deserted_first_makes_some() -> None:
    census = census_of(3, a=1, b=2, c=2)
    census.deserted((C,), 2)
    census.deserted((A,), 1)
    census.deserted((B, C), 2)
    assert census.claim(D, 3, new=True) == Verdict(3, evicted=(C, 2))
    assert census.claim(C, 1, new=True) == Verdict(1, evicted=(A, 1))
    census.deserted((), 2)  # a client has come back
    assert census.claim(A, 1, new=True) == Verdict(None, full=True)
    assert len(census) == 3


def test_reports_about_sessions_of_others_or_none_mean_nothing() -> None:
    census = census_of(1, a=1)
    census.deserted((A, B), 2)
    assert census.claim(B, 2, new=True) == Verdict(None, full=True)


def test_a_worker_that_has_gone_takes_its_sessions_with_it() -> None:
    census = census_of(3, a=1, b=2, c=1)
    census.deserted((A,), 1)
    census.drop(1)
    assert len(census) == 1
    assert census.claim(A, 2, new=False) == Verdict(None)
    census.deserted((), 1)
    assert census.claim(B, 1, new=False) == Verdict(2)

"""Every shape of plan that the protocol may be given."""

from __future__ import annotations

from datetime import timedelta

from hypothesis import strategies as st

from ackbridge.contracts.notices import DEFAULT_NOTICES
from ackbridge.contracts.plan import (
    REVISION,
    AcknowledgePlan,
    LatePolicy,
    OnFailure,
    Plan,
    PollPlan,
    ReconcilePlan,
    ResponseMode,
    SendPlan,
    WhenOff,
)

from .world import Setting


def _seconds(*choices: float) -> st.SearchStrategy[timedelta]:
    return st.sampled_from([timedelta(seconds=one) for one in choices])


SENDS = st.builds(
    SendPlan,
    local=st.booleans(),
    timeout=st.just(timedelta(seconds=5)),
    attempts=st.integers(1, 3),
    within=_seconds(30, 120),
    queue_within=_seconds(60, 3600),
    looks_when_refused=st.just(True),
)

ACKNOWLEDGES = st.builds(
    lambda kinds, within, local: AcknowledgePlan(
        timeout=timedelta(seconds=5),
        within=within,
        on_success=kinds[0],
        on_failed=kinds[1],
        local=local,
        asks_after=True,
    ),
    st.sampled_from([(True, True)] * 4 + [(True, False), (False, True)]),
    _seconds(60, 1800),
    st.sampled_from([None, True, False]),
)


RECONCILES = st.builds(ReconcilePlan, every=_seconds(60, 600), within=_seconds(1800))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Cycles, deadlines, acknowledgements and late answers in every combination."""
    mode = draw(
        st.sampled_from([ResponseMode.CALLBACK] * 3 + [ResponseMode.POLL, ResponseMode.SYNC])
    )
    every = draw(_seconds(3, 20))
    is_beside = mode is ResponseMode.CALLBACK and draw(st.sampled_from([False] * 4 + [True]))
    first_after = every if is_beside else timedelta(0)
    poll = PollPlan(every=every, timeout=timedelta(seconds=5), first_after=first_after)
    is_off = draw(st.sampled_from([False] * 9 + [True]))
    return Plan(
        revision=REVISION,
        reprocess_attempts=draw(st.sampled_from([1, 3, 100])),
        mode=mode,
        send=draw(SENDS),
        deadline=draw(_seconds(10, 30)),
        deadline_reason="configured",
        ceiling=draw(_seconds(30, 90)),
        ask_status=draw(st.booleans()),
        poll=poll if mode is ResponseMode.POLL or is_beside else None,
        acknowledge=draw(st.one_of(ACKNOWLEDGES, ACKNOWLEDGES, ACKNOWLEDGES, st.none())),
        cycles=draw(st.sampled_from([1, 2, 2, 3])),
        on_failure=draw(st.sampled_from([OnFailure.PARK, OnFailure.PARK, OnFailure.FAIL])),
        late=draw(
            st.sampled_from(
                [LatePolicy.ACCEPT, LatePolicy.ACCEPT, LatePolicy.IGNORE, LatePolicy.HOLD]
            )
        ),
        late_window=draw(st.one_of(st.none(), _seconds(60))),
        parked_for=draw(_seconds(600, 7200)),
        notices=DEFAULT_NOTICES,
        not_now="switched off" if is_off else None,
        when_off=draw(st.sampled_from([None, *WhenOff])) if is_off else None,
        indexed=draw(st.booleans()),
        repeatable=draw(st.sampled_from([True] * 4 + [False])),
        undoes=draw(st.sampled_from([True] * 4 + [False])),
        park=draw(st.sampled_from([None, None, None, ("no_response", "unknown"), ("refused",)])),
        key_retention=draw(st.one_of(st.none(), st.none(), _seconds(60))),
        reconcile=draw(st.one_of(st.none(), st.none(), RECONCILES)),
    )


def setting() -> st.SearchStrategy[Setting]:
    """What is drawn once for a whole example."""
    rarely = st.sampled_from([False] * 4 + [True])
    return st.builds(
        Setting,
        plan=plans(),
        tells_reference=st.sampled_from([True, True, False]),
        needs_reference=rarely,
        acknowledging=st.sampled_from(["accepts", "accepts", "down", "refuses"]),
        stays_down=rarely,
        is_batched=st.booleans(),
        is_hosted=st.sampled_from([False, False, True]),
        combines=st.sampled_from([True, True, False]),
    )

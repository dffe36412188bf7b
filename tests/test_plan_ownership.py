"""Whatever is recorded, and whatever runs: what recovery plans accounts for each of them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from recorded import ELSEWHERE, HERE, STOPPING, kernel, live, process

from jupyter_sessions_ext.kernels.recovery import Adopt, End, Forget, Leave, Sleep, plan
from jupyter_sessions_ext.models import KernelPhase, KernelRecord, SessionRecord, SessionState

SESSION_IDS, KERNEL_IDS = ["s", "t", "u"], ["k", "l", "m"]


@st.composite
def _sessions(draw: st.DrawFn) -> list[SessionRecord]:
    ids = draw(st.lists(st.sampled_from(SESSION_IDS), unique=True))
    return [
        replace(
            live(session_id, draw(st.sampled_from([*KERNEL_IDS, None]))),
            state=draw(st.sampled_from(SessionState)),
        )
        for session_id in ids
    ]


@st.composite
def _kernels(draw: st.DrawFn) -> list[KernelRecord]:
    ids = draw(st.lists(st.sampled_from(KERNEL_IDS), unique=True))
    return [
        kernel(
            kernel_id,
            draw(st.sampled_from(KernelPhase)),
            intent=draw(st.sampled_from([None, *SESSION_IDS])),
            machine=draw(st.sampled_from([HERE, HERE, ELSEWHERE])),
            remote=draw(st.sampled_from([False, False, True])),
        )
        for kernel_id in ids
    ]


@settings(max_examples=500, deadline=None, database=None)
@given(sessions=_sessions(), kernels=_kernels(), running=st.sets(st.sampled_from(KERNEL_IDS)))
def test_whatever_is_recorded_each_session_and_each_process_is_accounted_for(
    sessions: list[SessionRecord], kernels: list[KernelRecord], running: set[str]
) -> None:
    local = {k.kernel_id for k in kernels if k.machine == HERE and not k.provisioner}
    processes = {kernel_id: process(kernel_id) for kernel_id in running & local}

    actions = plan(sessions, kernels, processes, HERE)

    fates = {a.kernel.kernel_id: a for a in actions if not isinstance(a, Sleep)}
    assert sorted(fates) == sorted(k.kernel_id for k in kernels)
    assert len(fates) == sum(not isinstance(a, Sleep) for a in actions), "one fate for each kernel"
    for kernel_id in processes:
        assert isinstance(fates[kernel_id], Adopt | End), "no process is left without an owner"
    for record in kernels:
        if record.machine != HERE:
            assert fates[record.kernel_id] == Leave(kernel=record)

    after = {s.session_id: s for s in sessions}
    brought_back = [a.session for a in actions if isinstance(a, Adopt) and a.session is not None]
    asleep = [a.session for a in actions if isinstance(a, Sleep)]
    changed = [s.session_id for s in (*brought_back, *asleep)]
    assert len(changed) == len(set(changed)), "a session has one fate, and one kernel"
    after |= {s.session_id: s for s in brought_back}
    after |= {s.session_id: replace(s, state=SessionState.DORMANT) for s in asleep}
    for session in after.values():
        if session.state is SessionState.LIVE:
            fate = fates.get(session.kernel_id or "")
            assert isinstance(fate, Adopt | Leave), "a live session has a kernel that is kept"

    used = {s.kernel_id for s in sessions if s.state is SessionState.LIVE}
    for action in actions:
        if isinstance(action, End) and action.kernel.phase is not STOPPING:
            assert action.kernel.kernel_id not in used, "a kernel in use is ended only if asked for"
        if isinstance(action, Forget):
            assert action.kernel.kernel_id not in processes

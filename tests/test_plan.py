"""What recovery plans: a table of cases, and what becomes of the records in some of them."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest
from recorded import (
    ELSEWHERE,
    HERE,
    REPLACED,
    RUNNING,
    STARTING,
    STOPPING,
    dormant,
    kernel,
    live,
    process,
)

from jupyter_sessions_ext.kernels.recovery import (
    KERNEL_ENDED,
    KERNEL_NOT_KEPT,
    KERNEL_STOPPED,
    Action,
    Adopt,
    End,
    Sleep,
    plan,
)
from jupyter_sessions_ext.models import KernelRecord, SessionRecord, SessionState


class Case(NamedTuple):
    name: str
    sessions: list[SessionRecord]
    kernels: list[KernelRecord]
    processes: str
    """The kernels whose process runs."""
    planned: list[str]


CASES = [
    Case("nothing is recorded", [], [], "", []),
    # -------------------------------------------------------------- kernels that were running
    Case("running", [live("s", "k")], [kernel("k")], "k", ["adopt k"]),
    Case(
        "running, gone",
        [live("s", "k")],
        [kernel("k")],
        "",
        ["forget k", f"sleep s: {KERNEL_ENDED}"],
    ),
    Case("running without a session", [], [kernel("k")], "k", ["adopt k"]),
    Case("running without a session, gone", [], [kernel("k")], "", ["forget k"]),
    Case(
        "two sessions on one kernel",
        [live("s", "k"), live("t", "k")],
        [kernel("k")],
        "k",
        ["adopt k"],
    ),
    Case(
        "two sessions on one kernel, gone",
        [live("s", "k"), live("t", "k")],
        [kernel("k")],
        "",
        ["forget k", f"sleep s: {KERNEL_ENDED}", f"sleep t: {KERNEL_ENDED}"],
    ),
    Case(
        "one of two kernels is gone",
        [live("s", "k"), live("t", "l")],
        [kernel("k"), kernel("l")],
        "l",
        ["forget k", "adopt l", f"sleep s: {KERNEL_ENDED}"],
    ),
    # -------------------------------------------------------------- kernels that were starting
    Case(
        "started for a session that was not committed",
        [],
        [kernel("k", STARTING, intent="s")],
        "k",
        ["adopt k with s"],
    ),
    Case(
        "recorded as running, its session not committed yet",
        [],
        [kernel("k", RUNNING, intent="s")],
        "k",
        ["adopt k with s"],
    ),
    Case(
        "reserved for a session, never started",
        [],
        [kernel("k", STARTING, intent="s")],
        "",
        ["forget k"],
    ),
    Case("started for no session", [], [kernel("k", STARTING)], "k", ["adopt k"]),
    Case("reserved for no session, never started", [], [kernel("k", STARTING)], "", ["forget k"]),
    Case(
        "a restart that was not recorded as finished",
        [live("s", "k")],
        [kernel("k", STARTING)],
        "k",
        ["adopt k"],
    ),
    Case(
        "started for a session, and taken by another one meanwhile",
        [live("t", "k")],
        [kernel("k", STARTING, intent="s")],
        "k",
        ["adopt k"],
    ),
    # ------------------------------------------------- sessions on their way to another kernel
    Case(
        "change of kernel, not acknowledged",
        [live("s", "k")],
        [kernel("k"), kernel("l", STARTING, intent="s")],
        "kl",
        ["adopt k", "end l"],
    ),
    Case(
        "change of kernel, not acknowledged, the new one never started",
        [live("s", "k")],
        [kernel("k"), kernel("l", STARTING, intent="s")],
        "k",
        ["adopt k", "forget l"],
    ),
    Case(
        "change of kernel, not acknowledged, the old one is gone",
        [live("s", "k")],
        [kernel("k"), kernel("l", STARTING, intent="s")],
        "l",
        ["forget k", "adopt l with s"],
    ),
    Case(
        "change of kernel, not acknowledged, the old one has no record",
        [live("s", "k")],
        [kernel("l", STARTING, intent="s")],
        "l",
        ["adopt l with s"],
    ),
    Case(
        "change of kernel, not acknowledged, the old one is on another host",
        [live("s", "k")],
        [kernel("k", machine=ELSEWHERE), kernel("l", STARTING, intent="s")],
        "l",
        ["leave k", "end l"],
    ),
    Case(
        "change of kernel, not acknowledged, the old one is its provisioner's",
        [live("s", "k")],
        [kernel("k", remote=True), kernel("l", STARTING, intent="s")],
        "l",
        ["adopt k", "end l"],
    ),
    Case(
        "change of kernel, not acknowledged, another session has the old one too",
        [live("s", "k"), live("t", "k")],
        [kernel("k"), kernel("l", STARTING, intent="s")],
        "",
        ["forget k", "forget l", f"sleep s: {KERNEL_ENDED}", f"sleep t: {KERNEL_ENDED}"],
    ),
    Case(
        "change of kernel, the one of two sessions that is under way is brought back",
        [live("s", "k"), live("t", "k")],
        [kernel("k"), kernel("l", STARTING, intent="s")],
        "l",
        ["forget k", "adopt l with s", f"sleep t: {KERNEL_ENDED}"],
    ),
    Case(
        "revive under way",
        [dormant("s", "k")],
        [kernel("l", STARTING, intent="s")],
        "l",
        ["adopt l with s"],
    ),
    Case(
        "revive under way, never started",
        [dormant("s", "k")],
        [kernel("l", STARTING, intent="s")],
        "",
        ["forget l"],
    ),
    # -------------------------------------------------------------- kernels that were to end
    Case(
        "stopping, runs still",
        [live("s", "k")],
        [kernel("k", STOPPING)],
        "k",
        ["end k", f"sleep s: {KERNEL_STOPPED}"],
    ),
    Case(
        "stopping, gone",
        [live("s", "k")],
        [kernel("k", STOPPING)],
        "",
        ["forget k", f"sleep s: {KERNEL_STOPPED}"],
    ),
    Case("stopping, its session deleted", [], [kernel("k", STOPPING)], "k", ["end k"]),
    Case(
        "stopping before its session was committed",
        [],
        [kernel("k", STOPPING, intent="s")],
        "k",
        ["end k"],
    ),
    Case(
        "replaced",
        [live("s", "l")],
        [kernel("k", REPLACED), kernel("l")],
        "kl",
        ["end k", "adopt l"],
    ),
    Case(
        "replaced, gone",
        [live("s", "l")],
        [kernel("k", REPLACED), kernel("l")],
        "l",
        ["forget k", "adopt l"],
    ),
    Case(
        "replaced, and taken by another session",
        [live("s", "l"), live("t", "k")],
        [kernel("k", REPLACED), kernel("l")],
        "kl",
        ["adopt k", "adopt l"],
    ),
    # -------------------------------------------------------------- sessions without a kernel
    Case("dormant", [dormant("s", "k")], [], "", []),
    Case(
        "dormant, its kernel's record not gone",
        [dormant("s", "k")],
        [kernel("k")],
        "",
        ["forget k"],
    ),
    Case(
        "kernel without a record, as another kernel manager's",
        [live("s", "k")],
        [],
        "",
        [f"sleep s: {KERNEL_NOT_KEPT}"],
    ),
    Case("no kernel at all", [live("s", None)], [], "", [f"sleep s: {KERNEL_NOT_KEPT}"]),
    # -------------------------------------------------------------- kernels that are not ours
    Case("another host's", [live("s", "k")], [kernel("k", machine=ELSEWHERE)], "", ["leave k"]),
    Case(
        "another host's, stopping", [], [kernel("k", STOPPING, machine=ELSEWHERE)], "", ["leave k"]
    ),
    Case(
        "another host's, starting for a session",
        [],
        [kernel("k", STARTING, intent="s", machine=ELSEWHERE)],
        "",
        ["leave k"],
    ),
    Case("a provisioner's", [live("s", "k")], [kernel("k", remote=True)], "", ["adopt k"]),
    Case("a provisioner's, without a session", [], [kernel("k", remote=True)], "", ["adopt k"]),
    Case("a provisioner's, stopping", [], [kernel("k", STOPPING, remote=True)], "", ["leave k"]),
    Case(
        "a provisioner's, replaced",
        [live("s", "l")],
        [kernel("k", REPLACED, remote=True), kernel("l")],
        "l",
        ["leave k", "adopt l"],
    ),
    Case(
        "a provisioner's, replaced, and taken by another session",
        [live("s", "k")],
        [kernel("k", REPLACED, remote=True)],
        "",
        ["adopt k"],
    ),
    Case(
        "a provisioner's, its session not committed yet",
        [],
        [kernel("k", RUNNING, intent="s", remote=True)],
        "",
        ["adopt k with s"],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(case: Case) -> None:
    processes = {kernel_id: process(kernel_id) for kernel_id in case.processes}
    actions = plan(case.sessions, case.kernels, processes, HERE)
    assert sorted(map(told, actions)) == sorted(case.planned)


def told(action: Action) -> str:
    """Tell an action as the table does."""
    if isinstance(action, Sleep):
        return f"sleep {action.session.session_id}: {action.reason}"
    told = f"{type(action).__name__.lower()} {action.kernel.kernel_id}"
    if isinstance(action, Adopt) and action.session is not None:
        told += f" with {action.session.session_id}"
    return told


def adopted(actions: list[Action]) -> Adopt:
    [action] = [a for a in actions if isinstance(a, Adopt)]
    return action


def test_an_adopted_kernel_is_recorded_as_running_in_the_process_that_was_found() -> None:
    record = replace(kernel("k", STARTING, intent="s"), adoptions=2)
    action = adopted(plan([], [record], {"k": process("k")}, HERE))
    assert action.kernel == replace(
        record, phase=RUNNING, process=process("k"), intent=None, adoptions=3
    )


def test_a_replaced_kernel_that_a_session_has_is_no_longer_replaced() -> None:
    actions = plan([live("s", "k")], [kernel("k", REPLACED)], {"k": process("k")}, HERE)
    assert adopted(actions).kernel.phase is RUNNING


def test_a_session_that_was_not_committed_comes_back_as_it_was_asked_for() -> None:
    record = kernel("k", STARTING, intent="s")
    assert record.intent is not None
    action = adopted(plan([], [record], {"k": process("k")}, HERE))
    assert action.session == replace(record.intent, kernel_name="new")


def test_a_revived_session_keeps_its_record_and_takes_the_new_kernel() -> None:
    old = dormant("s", "k")
    record = kernel("l", STARTING, intent="s")
    action = adopted(plan([old], [record], {"l": process("l")}, HERE))
    assert action.session == replace(
        old, kernel_id="l", kernel_name="new", state=SessionState.LIVE, reason=""
    )


def test_a_remnant_is_ended_by_the_identity_of_its_process() -> None:
    [action] = plan([], [kernel("k", STOPPING)], {"k": process("k")}, HERE)
    assert action == End(kernel=kernel_of(action), process=process("k"))


def kernel_of(action: Action) -> KernelRecord:
    assert not isinstance(action, Sleep)
    return action.kernel


def test_a_kernel_that_a_keeper_has_begun_to_end_is_ended() -> None:
    processes = {"k": process("k"), "l": process("l")}
    kernels, users = [kernel("k"), kernel("l")], [live("s", "k"), live("t", "l")]
    actions = plan(users, kernels, processes, HERE, {"k": "nobody came back"})
    assert sorted(map(told, actions)) == ["adopt l", "end k", "sleep s: nobody came back"]

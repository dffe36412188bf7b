"""``check``: look for what is wrong with the set-up, and say what to do about it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

from ..folder import absolute
from . import servers
from .checks import servers as running
from .checks import setup, state
from .checks.findings import Finding, State
from .outcome import FAILED, OK
from .sources import Where
from .tables import clean, console, print_json


def check(options: argparse.Namespace, where: Where) -> int:
    """Tell what was found; fail if there is a problem."""
    findings = [*_findings(where)]
    if options.json:
        print_json([asdict(finding) for finding in findings])
    else:
        _print(findings)
    return FAILED if any(finding.state is State.PROBLEM for finding in findings) else OK


def _findings(where: Where) -> Iterator[Finding]:
    yield from setup.platform()
    config, findings = setup.load_config()
    yield from findings
    yield from setup.extension(config)
    yield from setup.options(config)
    yield from setup.managers(config)
    yield from setup.keeping(config)
    state_dir = where.state_dir
    if not where.is_given and config.SessionsApp.get("state_dir"):
        state_dir = absolute(config.SessionsApp.state_dir)
    yield from state.folder(state_dir)
    yield from state.modes(state_dir)
    yield from state.readable(state_dir, shows_hidden=setup.shows_hidden(config))
    yield from state.roots(state_dir)
    yield from state.file_systems(state_dir)
    yield from state.keeper_starts(state_dir)
    asked = (
        [servers.named(where.server, where.token)] if where.server else servers.running(where.token)
    )
    try:
        failures = dict(zip(asked, servers.probe(asked), strict=True))
        yield from running.answers(failures)
        answering = [server for server, failure in failures.items() if failure is None]
        yield from state.workspaces(state_dir, answering)
        yield from running.systemd([server.pid for server in asked if server.pid])
    finally:
        for server in asked:
            server.close()


def _print(findings: list[Finding]) -> None:
    from rich.text import Text

    styles = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red"}
    out = console()
    for finding in findings:
        line = Text(f"{finding.state.value:8} ", style=styles[finding.state])
        line.append(f"{finding.name:16} {clean(finding.text)}", style="default")
        out.print(line, soft_wrap=True)
        if finding.advice:
            out.print(Text(f"{'':25} -> {clean(finding.advice)}", style="dim"), soft_wrap=True)
    counts = {state: sum(f.state is state for f in findings) for state in State}
    out.print(
        f"{counts[State.PROBLEM]} problem(s), {counts[State.WARNING]} warning(s), "
        f"{counts[State.OK]} fine."
    )

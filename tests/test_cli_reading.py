"""``list``, ``show``, ``history`` and ``log`` say the same with and without a server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from clients import new_session, until_idle
from commands import Done, run
from homes import state_folder
from servers import Home, Server, wait_until

from jupyter_sessions_ext.cli import servers
from jupyter_sessions_ext.models import now

FILTERS = {
    "": "ABCK",
    "--state live": "ABK",
    "--state dormant": "C",
    "--type console": "B",
    "--type notebook": "AC",
    "--kernel python3": "ABCK",
    "--kernel julia": "",
    "--path *": "ABCK",
    "--path work/*": "BC",
    "--path [ac].ipynb": "A",
    "--q WORK": "BC",
    "--q python": "ABCK",
    "--q 'shut down'": "C",
    "--q no-such-text": "",
    "--idle-longer-than 0": "ABCK",
    "--idle-longer-than 2h": "",
    "--state live --path work/* --q ü": "B",
}
"""Filters, and what they let through of what :func:`stage` makes."""

SORTS = ("path", "-path", "created_at", "-created_at", "last_activity", "-last_activity")
SECRET = "a-secret-token-of-this-server"
VOLATILE = {"process", "connections", "links", "server"}
PHASES = ("with a server", "without")


@dataclass
class Stage:
    """What a home has, and what was said of it."""

    home: Home
    names: dict[str, str | None]
    """Ids, of sessions and of a kernel, by a letter."""
    told: dict[tuple[str, str], Done] = field(default_factory=dict)

    def ask(self, phase: str, command: str) -> None:
        arguments = [part.strip("'") for part in re.findall(r"'[^']*'|\S+", command)]
        arguments = [part.format(**self.names) for part in arguments]
        self.told[phase, command] = run(self.home, *arguments)

    def letters(self, items: list[dict[str, Any]]) -> str:
        letters = {name: letter for letter, name in self.names.items()}
        return "".join(letters[item["id"] or item["kernel"]["id"]] for item in items)


COMMANDS = [
    *(f"list --json {options}".strip() for options in FILTERS),
    *(f"list --json --sort={sort}" for sort in (*SORTS, "cpu", "-memory")),
    "list",
    "show {A} --json",
    "show {A}",
    "show 'work/ü b.ipynb' --json",
    "show /a.ipynb --json",
    "show {K} --json",
    "show {A8} --json",
    "history --json",
    "history",
    "history --json --limit 2",
    "history --json --action renamed",
    "history --json --since 1h",
    "history --json --since {now}",
    "history {C} --json",
    "history a.ipynb --json",
    "history {D} --json",
    "log a.ipynb",
    "log {A} --json",
    "log {C} --json",
    "log {A} --bytes 20",
    "log {K}",
    "list --json --state-dir {state}",
    "list --json --state-dir {root}",
    "show nonsense",
    "show {A3}",
    "log nonsense",
    "history nonsense",
]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    home = Home(tmp_path_factory.mktemp("reading") / "home")
    (home.root_dir / "work").mkdir()
    with Server(home, token=SECRET) as server:
        stage = Stage(home, _fill(server))
        for phase in PHASES:
            for command in COMMANDS:
                stage.ask(phase, command)
            with mock.patch.object(servers, "_LARGEST_PAGE", 2):
                for command in ("list --json --sort=path", "history --json"):
                    stage.ask(f"{phase}, in small pages", command)
            if server.running:
                server.terminate()
        yield stage
    assert home.processes() == []


def _fill(server: Server) -> dict[str, str | None]:
    a = new_session(server, "a.ipynb")
    b = new_session(server, "b.ipynb", type="console")
    c = new_session(server, "work/c.ipynb")
    d = new_session(server, "d.ipynb")
    alone = server.post("/api/kernels", {"name": "python3"}).json()["id"]
    server.patch(f"/api/sessions/{b['id']}", {"path": "work/ü b.ipynb"})
    assert server.delete(f"/api/kernels/{c['kernel']['id']}").status_code == 204
    assert server.delete(f"/api/sessions/{d['id']}").status_code == 204
    key = json.loads((server.home.runtime_dir / f"kernel-{a['kernel']['id']}.json").read_text())
    for kernel in (a["kernel"]["id"], b["kernel"]["id"], alone):
        server.execute(kernel, "pass")
        until_idle(server, kernel)
    # As a crash would: past the cell's own output.
    server.execute(
        a["kernel"]["id"],
        f"import os; os.write(1, b'it said {key['key']} and ended\\n'); os.environ['X'] = '1'",
    )
    until_idle(server, a["kernel"]["id"])
    wait_until(
        lambda: "it said" in (state_folder(server.home) / "logs" / f"kernel-{a['kernel']['id']}.log"
        ).read_text(), 10, "it was written",
    )  # fmt: skip
    return {
        "A": a["id"], "B": b["id"], "C": c["id"], "D": d["id"], "K": alone,
        "state": str(state_folder(server.home).parent), "root": str(server.home.root_dir),
        "A8": a["id"][:8], "A3": a["id"][:3], "now": now().isoformat(),
    }  # fmt: skip


phases = pytest.mark.parametrize("phase", PHASES)


@phases
@pytest.mark.parametrize("options", FILTERS)
def test_a_filter_lets_the_same_through_with_and_without_a_server(
    stage: Stage, phase: str, options: str
) -> None:
    done = stage.told[phase, f"list --json {options}".strip()]
    assert done.code == 0, done.err
    assert sorted(stage.letters(done.json)) == sorted(FILTERS[options])


@pytest.mark.parametrize("sort", SORTS)
def test_items_come_in_the_order_that_is_asked_for(stage: Stage, sort: str) -> None:
    orders = [stage.told[phase, f"list --json --sort={sort}"].json for phase in PHASES]
    assert stage.letters(orders[0]) == stage.letters(orders[1])
    values = [str(item[sort.lstrip("-")] or "") for item in orders[0]]
    assert values == sorted(values, reverse=sort.startswith("-"))


@phases
def test_items_are_sorted_by_what_their_processes_use(stage: Stage, phase: str) -> None:
    items = stage.told[phase, "list --json --sort=-memory"].json
    used = [item["process"]["memory_bytes"] if item["process"] else -1 for item in items]
    assert used == sorted(used, reverse=True)
    assert min(used[:3]) > 1_000_000
    assert used[3:] == [-1]


@pytest.mark.parametrize("command", ["list --json", "show {A} --json", "show {K} --json"])
def test_items_are_alike_with_and_without_a_server(stage: Stage, command: str) -> None:
    first, second = (stage.told[phase, command].json for phase in PHASES)
    pairs = zip(first, second, strict=True) if isinstance(first, list) else [(first, second)]
    for one, other in pairs:
        assert list(one) == list(other), "the same fields in the same order"
        assert {k: v for k, v in one.items() if k not in VOLATILE} == {
            k: v for k, v in other.items() if k not in VOLATILE
        }
        assert (one["process"] or {}).get("pid") == (other["process"] or {}).get("pid")
        assert one["server"].startswith("http://127.0.0.1:")
        assert other["server"] is None
        assert one["root_dir"] == str(stage.home.root_dir)


@phases
@pytest.mark.parametrize(
    ("command", "letter"),
    [
        ("show 'work/ü b.ipynb' --json", "B"),
        ("show /a.ipynb --json", "A"),
        ("show {A8} --json", "A"),
        ("show {K} --json", "K"),
    ],
)
def test_a_session_is_named_by_its_path_or_the_beginning_of_its_id(
    stage: Stage, phase: str, command: str, letter: str
) -> None:
    assert stage.letters([stage.told[phase, command].json]) == letter


@phases
@pytest.mark.parametrize("command", ["show nonsense", "show {A3}", "log nonsense"])
def test_what_is_not_known_is_named(stage: Stage, phase: str, command: str) -> None:
    done = stage.told[phase, command]
    assert (done.code, done.out) == (1, "")
    assert command.split()[1].format(**stage.names) in done.err
    assert "`jupyter sessions list`" in done.err, "it says what to do"


@phases
def test_the_table_has_a_row_for_each(stage: Stage, phase: str) -> None:
    title, header, *rows = stage.told[phase, "list"].out.splitlines()
    assert title.startswith(f"{stage.home.root_dir}  (")
    assert ("in use by a server, http" in title) == (phase == PHASES[0])
    assert str(state_folder(stage.home)) in title
    assert header.split() == [
        "ID", "STATE", "PATH", "KERNEL", "PID", "CPU", "MEMORY", "ACTIVE", "USER", "NOTE",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [stage.names[letter] for letter in "ABCK"]
    assert rows[2].split()[1:3] == ["dormant", "work/c.ipynb"]
    assert rows[2].endswith("shut down")
    assert "(no session)" in rows[3]
    assert "\x1b" not in stage.told[phase, "list"].out


@phases
def test_show_tells_all_of_a_session(stage: Stage, phase: str) -> None:
    told = dict(line.split("  ", 1) for line in stage.told[phase, "show {A}"].out.splitlines())
    told = {name: value.strip() for name, value in told.items()}
    assert told["id"] == stage.names["A"]
    assert told["path"] == "a.ipynb"
    assert told["state"] == "live"
    assert told["kernel does"] == "idle"
    assert told["kept in"] == str(state_folder(stage.home))


def test_the_history_is_alike_with_and_without_a_server(stage: Stage) -> None:
    first, second = (stage.told[phase, "history --json"].json for phase in PHASES)
    assert first == second, "a server that ends leaves nothing in the history of sessions"
    times = [event["time"] for event in first]
    assert times == sorted(times, reverse=True)
    assert {"created", "renamed", "dormant", "deleted"} == {event["action"] for event in first}


@phases
def test_the_history_is_cut_as_is_asked_for(stage: Stage, phase: str) -> None:
    def told(options: str) -> list[dict[str, Any]]:
        done = stage.told[phase, f"history {options}".strip()]
        assert done.code == 0, done.err
        events: list[dict[str, Any]] = done.json
        return events

    all_of_it = told("--json")
    assert told("--json --limit 2") == all_of_it[:2]
    assert [e["session_id"] for e in told("--json --action renamed")] == [stage.names["B"]]
    assert told("--json --since 1h") == all_of_it
    assert told("--json --since {now}") == []
    assert [e["action"] for e in told("{C} --json")] == ["dormant", "created"]
    assert told("a.ipynb --json") == [e for e in all_of_it if e["session_id"] == stage.names["A"]]
    assert [e["action"] for e in told("{D} --json")] == ["deleted", "created"], "it is gone"
    rows = stage.told[phase, "history"].out.splitlines()
    assert rows[0].split() == ["TIME", "ACTION", "SESSION", "USER", "DETAIL"]
    assert len(rows) == 1 + len(all_of_it)
    unknown = stage.told[phase, "history nonsense"]
    assert (unknown.code, "nonsense has no history" in unknown.err) == (1, True)


@pytest.mark.parametrize("command", ["list --json --sort=path", "history --json"])
def test_every_page_of_a_list_is_read(stage: Stage, command: str) -> None:
    whole, paged = (stage.told[p, command] for p in (PHASES[0], f"{PHASES[0]}, in small pages"))
    assert len(whole.json) > 3
    assert [_known_by(one) for one in paged.json] == [_known_by(one) for one in whole.json]


def _known_by(told: dict[str, Any]) -> Any:
    return told["id"] or told["kernel"]["id"]


@phases
def test_a_log_is_shown_without_the_secrets_in_it(stage: Stage, phase: str) -> None:
    text = stage.told[phase, "log a.ipynb"].out
    assert text.endswith("it said [...] and ended\n")
    assert stage.told[phase, "log {A} --json"].json["log"] == text
    assert stage.told[phase, "log {A} --bytes 20"].out == ""
    assert "log" in stage.told[phase, "log {C} --json"].json, "it is kept for a while"


def test_the_log_of_a_kernel_without_a_session_is_where_it_is_said_to_be(stage: Stage) -> None:
    with_server, without = (stage.told[phase, "log {K}"] for phase in PHASES)
    assert (with_server.code, f"{state_folder(stage.home)}/logs" in with_server.err) == (1, True)
    assert (without.code, "--existing kernel-" in without.out) == (0, True)


@phases
def test_what_is_kept_in_another_state_folder_is_not_shown(stage: Stage, phase: str) -> None:
    here = stage.told[phase, "list --json --state-dir {state}"]
    assert stage.letters(here.json) == stage.letters(stage.told[phase, "list --json"].json)
    assert stage.told[phase, "list --json --state-dir {root}"].json == []


def test_the_server_is_asked_where_one_runs(stage: Stage) -> None:
    [item] = stage.told[PHASES[0], "list --json --path [ac].ipynb"].json
    assert item["links"]["self"].endswith(item["id"])


def test_no_command_says_a_secret(stage: Stage) -> None:
    keys = [
        json.loads(path.read_text())["key"]
        for path in Path(stage.home.runtime_dir).glob("kernel-*.json")
    ]
    assert len(keys) == 3
    for done in stage.told.values():
        for secret in (SECRET, *keys):
            assert secret not in done.out + done.err

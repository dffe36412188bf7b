"""``/metrics`` of a real server tells what happened, and the documents tell all that is there."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients import new_session
from homes import kernel_process, state_folder, without_us
from scrapes import OF_PROMETHEUS, PREFIX, Scrape, groupings, selectors
from servers import Home, Server, wait_until
from workspaces import refuse

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
DASHBOARD = json.loads((ROOT / "docs" / "grafana-dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def scraped(server: Server) -> Scrape:
    reply = server.get("/metrics")
    assert reply.status_code == 200, reply.text
    return Scrape.of(reply.text)


# -------------------------------------------------------------------------- a real server


class Lived:
    """What a server told of itself: when it had started, after use, and after a kill -9."""

    def __init__(self, home: Home) -> None:
        with Server(home) as server:
            self.without_token = server.request("GET", "/metrics", token=None)
            self.with_bearer = server.request(
                "GET", "/metrics", token=None, headers={"Authorization": f"Bearer {server.token}"}
            )
            self.fresh = scraped(server)
            kept, lost = self.use(server)

            def keeper_has_told() -> bool:
                return scraped(server)("journal_bytes", journal="kernels") > 100

            wait_until(keeper_has_told, 10, "the keeper had told what it keeps")
            self.used = scraped(server)
            server.kill()
            kernel_process(home, lost).kill()
            server.start()
            self.restarted = scraped(server)
            server.post(f"/api/kernels/{kept}/restart")
            self.with_restarted_kernel = scraped(server)
            server.delete(f"/api/kernels/{kept}")
            self.emptied = scraped(server)

    def use(self, server: Server) -> tuple[str, str]:
        """Do each of the operations of ``/api/sessions``; return the kernels that then run."""
        document = server.home.root_dir / "a.ipynb"
        document.write_text("{}")
        notebook = new_session(server)
        kept = notebook["kernel"]["id"]
        new_session(server)  # which joins
        console = new_session(server, "c", type="console", kernel={"id": kept})
        new_session(server, "t", type="terrarium", kernel={"id": kept})
        file = new_session(server, "f.py", type="file")
        server.patch(f"/api/sessions/{console['id']}", {"name": "C"})
        server.patch(f"/api/sessions/{console['id']}", {"kernel": {"name": "missing"}})
        server.patch("/api/contents/a.ipynb", {"path": "b.ipynb"})
        server.delete(f"/api/kernels/{file['kernel']['id']}")
        revived = new_session(server, "f.py", type="file")
        assert revived["id"] == file["id"]
        server.delete(f"/api/sessions/{revived['id']}")
        server.delete(f"/api/sessions/{revived['id']}")
        other = new_session(server, "o.ipynb")
        for kernel_id in (kept, other["kernel"]["id"]):  # up before the server is killed
            server.execute(kernel_id, "pass")
        database = state_folder(server.home) / "sessions.sqlite"
        refuse(str(database))
        body = {"path": "u.ipynb", "type": "notebook", "kernel": {"id": kept}}
        assert server.post("/api/sessions", body).status_code == 503
        with contextlib.closing(sqlite3.connect(database)) as connection, connection:
            connection.execute("DROP TRIGGER refuse")
        return kept, other["kernel"]["id"]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lived]:
    home = Home(tmp_path_factory.mktemp("metrics") / "home")
    yield Lived(home)
    assert home.processes() == []


def test_metrics_ask_for_the_token_in_either_form(lived: Lived) -> None:
    assert lived.without_token.status_code == 403
    assert PREFIX not in lived.without_token.text
    assert Scrape.of(lived.with_bearer.text).series.keys() == lived.fresh.series.keys()


def test_every_series_is_there_from_the_start_and_none_is_added(lived: Lived) -> None:
    for scrape in (lived.used, lived.restarted, lived.emptied):
        assert scrape.series.keys() == lived.fresh.series.keys()
    for name in ("operations_total", "recovery_kernels_total", "sessions"):
        assert lived.fresh.counted(name) == {}


def test_operations_are_counted_by_what_became_of_them(lived: Lived) -> None:
    assert lived.used.counted("operations_total") == {
        ("create", "ok"): 5,
        ("create", "unavailable"): 1,
        ("revive", "ok"): 1,
        ("change", "ok"): 1,
        ("change", "refused"): 1,
        ("follow", "ok"): 1,
        ("delete", "ok"): 1,
        ("delete", "refused"): 1,
    }


def test_sessions_are_counted_by_state_and_type(lived: Lived) -> None:
    live = {("live", "console"): 1, ("live", "other"): 1}
    assert lived.used.counted("sessions") == {**live, ("live", "notebook"): 2}
    one_is_dormant = {("live", "notebook"): 1, ("dormant", "notebook"): 1}
    assert lived.restarted.counted("sessions") == {**live, **one_is_dormant}
    assert lived.emptied.counted("sessions") == {
        ("dormant", "console"): 1,
        ("dormant", "other"): 1,
        ("dormant", "notebook"): 2,
    }


def test_a_recovery_tells_what_became_of_kernels_and_sessions(lived: Lived) -> None:
    assert lived.used("adopted_kernels") == 0
    assert lived.restarted.counted("recovery_kernels_total") == {("adopted",): 1, ("gone",): 1}
    assert lived.restarted.counted("recovery_sessions_total") == {("dormant",): 1}
    assert 0 < lived.restarted("recovery_seconds") < 30
    assert lived.restarted("adopted_kernels") == 1
    assert lived.with_restarted_kernel("adopted_kernels") == 1
    assert lived.emptied("adopted_kernels") == 0


def test_commits_are_timed_and_those_that_fail_are_counted(lived: Lived) -> None:
    total = lived.used("store_commit_seconds_count")
    assert lived.fresh("store_commit_seconds_count") < total
    assert lived.used("store_commit_seconds_bucket", le="10.0") == total
    assert lived.used("store_commit_seconds_bucket", le="0.0001") < total
    assert 0 < lived.used("store_commit_seconds_sum") < total * 10
    assert lived.fresh("store_commit_failures_total") == 0
    assert lived.used("store_commit_failures_total") == 1


def test_the_size_of_the_databases_log_is_told(lived: Lived) -> None:
    assert lived.fresh("journal_bytes", journal="store") == 0
    assert lived.used("journal_bytes", journal="store") > 10_000
    assert lived.used("journal_bytes", journal="kernels") > 100


def test_a_server_that_has_us_disabled_tells_nothing(
    home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory(env=without_us(home)) as server:
        assert "jupyter_server_info" in server.get("/metrics").text
        assert scraped(server).series == {}


# -------------------------------------------------------------------------- documents


def test_every_metric_is_documented_and_every_documented_one_exists(lived: Lived) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w`, ]*?) ?\| .+ \|$", DOCUMENT, re.MULTILINE)
    documented = {name: (kind, set(re.findall(r"\w+", labels))) for name, kind, labels in rows}
    exposed = {}
    for name, kind in lived.fresh.types.items():
        sample = f"{name}_bucket" if kind == "histogram" else name
        exposed[name] = (kind, set(lived.fresh.labels(sample)) - {"le"})
    assert documented == exposed


def test_every_label_value_is_documented_and_every_documented_one_exists(lived: Lived) -> None:
    sections = re.findall(r"^## Labels of `(\w+)`\n(.*?)(?=^## )", DOCUMENT, re.M | re.S)
    documented = {
        (name, label, value)
        for name, text in sections
        for label, value in re.findall(r"^\| `(\w+)` \| `(\w+)` \| .+ \|$", text, re.M)
    }
    exposed = {
        (name, label, value)
        for name in lived.fresh.types
        for label, values in lived.fresh.labels(name).items()
        for value in values
    }
    assert documented == exposed


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_of_the_dashboard_names_only_what_exists(lived: Lived, query: str) -> None:
    known = set()
    for sample, wanted in selectors(query):
        labels = lived.fresh.labels(sample)
        assert sample in {name for name, _ in lived.fresh.series}
        assert set(wanted) <= {*labels, *OF_PROMETHEUS}
        for label in set(wanted) - OF_PROMETHEUS:
            assert wanted[label] in labels[label]
        known |= {*labels, *OF_PROMETHEUS}
    assert known
    assert groupings(query) <= known


def test_the_dashboard_shows_every_metric(lived: Lived) -> None:
    shown = {sample for query in QUERIES for sample, _ in selectors(query)}
    for name in lived.fresh.types:
        assert any(re.fullmatch(rf"{name}(_bucket)?", sample) for sample in shown), name


def test_the_dashboard_can_be_imported_anywhere() -> None:
    text = json.dumps(DASHBOARD)
    assert "http" not in text
    assert DASHBOARD["links"] == []
    chosen, *others = DASHBOARD["templating"]["list"]
    assert (chosen["name"], chosen["type"]) == ("datasource", "datasource")
    asked = [*DASHBOARD["panels"], *others]
    asked += [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert {part["datasource"]["uid"] for part in asked} == {"${datasource}"}
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])

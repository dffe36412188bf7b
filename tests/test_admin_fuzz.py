"""Nothing that is sent to the administration API is answered otherwise than its document says."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote_from_bytes

import pytest
import schemathesis
from administered import ROOT, UNKNOWN, Administered
from drills import FULL
from fuzzing import (
    LONGEST,
    PATHS,
    TEXT,
    VALUES,
    call,
    check_answer,
    examples,
    fuzz,
    fuzzed_server,
    near,
    raw,
)
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from servers import Server

from jupyter_sessions_ext.administration import schemas
from jupyter_sessions_ext.administration.transfer import FORMAT, VERSION
from jupyter_sessions_ext.api import admin
from jupyter_sessions_ext.api.documents import admin_document
from jupyter_sessions_ext.models import EventAction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hypothesis.strategies import SearchStrategy

EXAMPLES: Final = 2000 if FULL else 200

ONE: Final = f"{ROOT}/sessions/{{session_id}}"
ACTIONS: Final = f"{ROOT}/sessions/actions"
ATTACH: Final = f"{ROOT}/kernels/{{kernel_id}}/attach"
IMPORT: Final = f"{ROOT}/import"


def document() -> dict[str, Any]:
    """Return our document, without its login: many examples would try tokens, and nothing else."""
    made = admin_document("/")
    del made["security"]
    return made


SCHEMA: Final = schemathesis.openapi.from_dict(document())
OPERATIONS: Final = {
    (method.upper(), path): described
    for path, methods in document()["paths"].items()
    for method, described in methods.items()
    if method != "parameters"
}
IDS: Final = [f"{method} {path}" for method, path in OPERATIONS]
SHARES: Final = {
    # Which share of all examples is sent by the schema, and against it.
    (method, path, mode): 0.08 if "requestBody" in described else 0.014
    for (method, path), described in OPERATIONS.items()
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if path != IMPORT  # lines, of which the document cannot tell
    and (
        mode is GenerationMode.POSITIVE
        or "requestBody" in described
        or any(parameter["in"] == "query" for parameter in described.get("parameters", []))
    )
}
OF_STATE: Final = re.compile(
    r"cursor: not one that this list has answered"
    r"|path: must not lead out of the root folder"
    r"|kernel\.(id|name): no kernel .* (runs|is installed)"
    r"|(since|until): out of range",
    re.DOTALL,
)
"""Why a request may be refused that is as its schema says: it depends on what there is."""


class Fuzzed:
    """A server with a live and a dormant session and a kernel without one, after each example."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.admin = Administered(server)
        self.ids = {"unknown": UNKNOWN}
        self.renew()

    def renew(self) -> None:
        """Have what there is to be, and nothing else."""
        admin, ids = self.admin, self.ids
        sessions, kernels = self.now()
        states = {session["id"]: session["state"] for session in sessions}
        for name in ("live", "dormant"):
            if states.get(ids.get(name, "")) != name:
                ids.pop(name, None)
        superfluous = [i for i in states if i not in (ids.get("live"), ids.get("dormant"))]
        if superfluous:
            admin.act("forget", ids=superfluous)  # their kernels may be those of others
        if "live" not in ids:
            ids["live"] = admin.live("live.ipynb")["id"]
        if "dormant" not in ids:
            ids["dormant"] = admin.dormant("dormant.ipynb")
        sessions, kernels = self.now()
        ids["used"] = next(s["kernel"] for s in sessions if s["id"] == ids["live"])
        for kernel in {*kernels} - {ids["used"], ids.get("kernel")}:
            assert admin.ask("DELETE", f"/kernels/{kernel}").status_code == 204
        if ids.get("kernel") not in {*kernels} - {ids["used"]}:
            ids["kernel"] = self.server.post("/api/kernels", {"name": "minimal"}).json()["id"]
        self.there = self.now()
        assert len(self.there[0]) == 2
        assert len(self.there[1]) == 2

    def now(self) -> tuple[list[dict[str, Any]], list[str]]:
        """Return the sessions, without what their kernels do, and the kernels."""
        asked = ("id", "path", "name", "type", "state", "kernel_name")
        sessions = [
            {**{k: item[k] for k in asked}, "kernel": (item["kernel"] or {}).get("id")}
            for item in self.admin.get("/sessions", limit=1000)["items"]
        ]
        return sessions, [item["id"] for item in self.admin.get("/kernels")["items"]]

    def send(
        self, case: schemathesis.Case[Any], *more: Callable[[Any, Any, Any], bool | None]
    ) -> None:
        """Send a request, and check its answer."""
        self.check(case, call(case, self.server.url, self.server.token), more)

    def check(self, case: schemathesis.Case[Any], response: Any, more: Sequence[Any] = ()) -> None:
        """Check an answer against the document, and what it has left.

        :raises AssertionError: with the request
        """
        check_answer(case, response, never_a_fault, more)
        if case.method == "GET" or response.status_code >= 400:
            assert self.now() == self.there, (response.status_code, case.as_curl_command())
        elif response.status_code != 304:
            self.renew()


def never_a_fault(_: Any, response: Any, __: Any) -> None:
    assert response.status_code < 500, response.text


def accepted_where_state_allows(_: Any, response: Any, __: Any) -> None:
    """Hold the document to what it says can be sent."""
    if response.status_code == 400:
        assert OF_STATE.match(response.json()["message"]), response.text


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with fuzzed_server(tmp_path_factory.mktemp("fuzz")) as server:
        fuzzed = Fuzzed(server)
        yield fuzzed
        fuzzed.admin.clear()


# ---------------------------------------------------------------------- what the document knows

SESSIONS: Final = st.sampled_from(["live", "live", "dormant", "unknown", ""])
KERNELS: Final = st.sampled_from(["kernel", "kernel", "used", "unknown", ""])
"""Which id an example is given; none: the one that it has."""


def choose(case: schemathesis.Case[Any], session: str, kernel: str, fuzzed: Fuzzed) -> None:
    """Give an example ids that exist, which it would hardly guess."""
    for name, chosen in (("session_id", session), ("kernel_id", kernel)):
        if chosen and name in case.path_parameters:
            case.path_parameters[name] = fuzzed.ids[chosen]
    body: Any = case.body
    if isinstance(body, dict):
        if session and isinstance(body.get("ids"), list):
            body["ids"] = [*body["ids"][:9_998], fuzzed.ids[session], fuzzed.ids["live"]]
        if kernel and isinstance(body.get("kernel"), dict):
            named: Any = {"name": "minimal"}
            body["kernel"] = named if kernel == "unknown" else {"id": fuzzed.ids[kernel]}


@fuzz(EXAMPLES, ("method", "path", "mode"), SHARES)
def test_each_answer_is_one_that_is_described(
    method: str, path: str, mode: GenerationMode, fuzzed: Fuzzed
) -> None:
    is_positive = mode is GenerationMode.POSITIVE

    @examples(EXAMPLES * SHARES[method, path, mode])
    @given(
        case=SCHEMA[path][method].as_strategy(generation_mode=mode),
        session=SESSIONS if is_positive else st.just(""),
        kernel=KERNELS if is_positive else st.just(""),
    )
    def send(case: schemathesis.Case[Any], session: str, kernel: str) -> None:
        choose(case, session, kernel, fuzzed)
        fuzzed.send(
            case, accepted_where_state_allows if is_positive else checks.negative_data_rejection
        )

    send()


# ---------------------------------------------------------------------- and what it does not

FILTERS: Final = ("state", "type", "kernel_name", "path", "q", "idle_longer_than")
BODIES: Final = {
    ("PATCH", ONE): st.fixed_dictionaries(
        {},
        optional={
            "path": PATHS | VALUES,
            "kernel": near("id", "name") | VALUES,
            **dict.fromkeys(("name", "type", "unknown"), VALUES),
        },
    ),
    ("POST", ACTIONS): st.fixed_dictionaries(
        {"action": st.sampled_from(["delete", "forget", "interrupt", "restart", "revive"])},
        optional={
            "ids": st.lists(TEXT) | VALUES,
            "filter": near(*FILTERS) | VALUES,
            **dict.fromkeys(("all", "dry_run"), st.booleans() | VALUES),
        },
    ),
    ("POST", ATTACH): st.fixed_dictionaries(
        {"path": PATHS | VALUES}, optional=dict.fromkeys(("type", "name", "unknown"), VALUES)
    ),
}
TIMES: Final = st.datetimes(timezones=st.timezones()).map(lambda time: time.isoformat())
HEADER: Final = {"format": FORMAT, "version": VERSION, "exported_at": "2026-01-01T00:00:00Z"}
LONG_AGO: Final = "2026-01-01T00:00:00Z"
SESSION: Final = {
    "id": UNKNOWN,
    **dict.fromkeys(("path", "name", "type", "kernel_id", "kernel_name")),
    "state": "dormant",
    "reason": "",
    **dict.fromkeys(("created_at", "since"), LONG_AGO),
    "created_by": "ada",
}
EVENT: Final = {
    "time": LONG_AGO,
    "action": "created",
    **dict.fromkeys(("session_id", "kernel_id")),
    **dict.fromkeys(("detail", "user"), ""),
}


def changed(known: dict[str, Any]) -> SearchStrategy[dict[str, Any]]:
    """Return objects that are as this one but for a field or two."""
    values = VALUES | PATHS | TIMES | st.sampled_from([member.value for member in EventAction])
    fields = st.dictionaries(st.sampled_from([*known, "unknown"]), values, max_size=2)
    return fields.map(lambda given: {**known, **given})


LINES: Final = st.one_of(
    changed(SESSION).map(lambda session: {"session": session}),
    changed(EVENT).map(lambda event: {"event": event}),
    near("session", "event", "unknown"),
    VALUES,
)


@st.composite
def exports(draw: st.DrawFn) -> bytes:
    """Return what is like an export."""
    lines = [draw(st.just(HEADER) | changed(HEADER)), *draw(st.lists(LINES, max_size=3))]
    text = "\n".join(json.dumps(line, ensure_ascii=draw(st.booleans())) for line in lines)
    return text.encode(errors="surrogatepass")


DEEP: Final = json.dumps(HEADER).encode() + b'\n{"unknown": ' + b"[" * 100_000


@fuzz(EXAMPLES, ("method", "path"), [*BODIES, ("POST", IMPORT)])
def test_any_body_is_taken_or_refused(method: str, path: str, fuzzed: Fuzzed) -> None:
    operation = SCHEMA[path][method]
    bodies = BODIES.get((method, path))
    ids = {"session_id": "live", "kernel_id": "kernel"}

    @examples(EXAMPLES * 0.03)
    @given(body=raw(bodies) if bodies is not None else exports() | raw(VALUES, DEEP))
    def send(body: bytes) -> None:
        given_ids = {name: fuzzed.ids[ids[name]] for name in ids if name in path}
        url = path.format(**given_ids)
        response = fuzzed.server.request(method, url, content=body, timeout=LONGEST)
        fuzzed.check(operation.Case(path_parameters=given_ids, body=body), response)

    send()


PARAMETERS: Final = sorted(
    {p["name"] for d in OPERATIONS.values() for p in d.get("parameters", []) if p["in"] == "query"}
)
PAIRS: Final = st.tuples(
    st.sampled_from(PARAMETERS).map(str.encode) | st.binary(max_size=8),
    st.one_of(
        TEXT.map(lambda text: text.encode(errors="surrogatepass")),
        st.binary(max_size=40),
        st.sampled_from([b"", b"0", b"1", b"1e9", b"nan", b"true", b"live", b"-cpu", b"[!", b"*"]),
        TIMES.map(str.encode),
    ),
)
QUERIES: Final = st.lists(PAIRS, max_size=4).map(
    lambda pairs: "&".join("=".join(quote_from_bytes(part, safe="") for part in p) for p in pairs)
)
TAGS: Final = st.sampled_from(["", "*", '"', 'W/"a-b"', '"a-b", "c"', "\xff"]) | st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20
).map(str.strip)
ANY_ID: Final = st.binary(min_size=1, max_size=12).map(lambda name: quote_from_bytes(name, safe=""))


@pytest.mark.drill
@pytest.mark.timeout(60 + EXAMPLES)
def test_any_query_header_and_id_is_taken_or_refused(fuzzed: Fuzzed) -> None:
    @examples(EXAMPLES * 0.15)
    @given(
        asked=st.sampled_from([*OPERATIONS]),
        ids=st.sampled_from(["live", "dormant", "kernel"]) | ANY_ID,
        query=st.just("") | QUERIES,
        tags=TAGS,
    )
    def send(asked: tuple[str, str], ids: str, query: str, tags: str) -> None:
        method, path = asked
        chosen = fuzzed.ids.get(ids, ids)
        url = path.replace("{session_id}", chosen).replace("{kernel_id}", chosen)
        headers: Any = {name: tags.encode("latin-1") for name in ("If-Match", "If-None-Match")}
        if url == ACTIONS != path:
            return  # it has the place of an id
        content = b"{}" if "requestBody" in OPERATIONS[asked] else None
        response = fuzzed.server.request(
            method, f"{url}?{query}", content=content, headers=headers, timeout=LONGEST
        )
        given_ids = {name: ids for name in ("session_id", "kernel_id") if name in path}
        body: Any = {"body": content} if content else {}
        fuzzed.check(SCHEMA[path][method].Case(path_parameters=given_ids, **body), response)

    send()


# ---------------------------------------------------------------------- the document itself


def test_the_document_is_valid(fuzzed: Fuzzed) -> None:
    served = fuzzed.admin.get("/openapi.json")
    assert served == admin_document("/")
    validate(served)


QUERY_STRUCTS: Final = [struct for name, struct in vars(schemas).items() if name.endswith("Query")]


def routes() -> Iterator[tuple[str, str]]:
    """Yield the methods and paths that are answered, in the form of the document."""
    for pattern, handler in admin.handlers:
        path = re.sub(r"\(\?P<(\w+_id)>[^)]*\)", r"{\1}", pattern).removesuffix("/?")
        choice = re.search(r"\(\?P<\w+>([\w|]+)\)", path)
        for word in choice[1].split("|") if choice else [""]:
            there = path.replace(choice[0], word) if choice else path
            for method in handler.SUPPORTED_METHODS:
                if method.lower() in vars(handler):
                    yield method, re.sub(r"\\(.)", r"\1", there)


def test_every_route_is_described_and_no_other() -> None:
    assert sorted(routes()) == sorted(OPERATIONS)


@pytest.mark.parametrize(("method", "path"), OPERATIONS, ids=IDS)
def test_every_parameter_is_described_and_no_other(method: str, path: str, fuzzed: Fuzzed) -> None:
    described = {p["name"] for p in OPERATIONS[method, path].get("parameters", [])}
    url = path.format(session_id=UNKNOWN, kernel_id=UNKNOWN)
    assert set(PARAMETERS) >= {f for q in QUERY_STRUCTS for f in q.__struct_fields__}
    taken = set()
    for name in [*PARAMETERS, "unknown"]:
        reply = fuzzed.server.request(method, f"{url}?{name}=%00")  # which no parameter may be
        assert reply.status_code == 400, reply.text
        if reply.json()["message"] != f"{name}: unknown":
            taken.add(name)
    assert taken == described & set(PARAMETERS)

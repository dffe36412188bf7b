"""Nothing that is sent to ``/api/sessions`` is answered otherwise than its document says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

import pytest
import schemathesis
from drills import FULL
from fuzzing import (
    LONGEST,
    PATHS,
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
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks
from servers import Server

from jupyter_sessions_ext.api.documents import core_document

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXAMPLES: Final = 5000 if FULL else 300

ROOT: Final = "/api/sessions"
ONE: Final = "/api/sessions/{session_id}"
SHARES: Final = {
    # Bodies by the schema, and bodies that it forbids: the share of all examples.
    ("POST", ROOT, GenerationMode.POSITIVE): 0.2,
    ("POST", ROOT, GenerationMode.NEGATIVE): 0.2,
    ("PATCH", ONE, GenerationMode.POSITIVE): 0.15,
    ("PATCH", ONE, GenerationMode.NEGATIVE): 0.15,
    ("GET", ROOT, GenerationMode.POSITIVE): 0.01,
    ("GET", ONE, GenerationMode.POSITIVE): 0.01,
    ("GET", ONE, GenerationMode.NEGATIVE): 0.02,
    ("DELETE", ONE, GenerationMode.POSITIVE): 0.01,
    ("DELETE", ONE, GenerationMode.NEGATIVE): 0.02,
}
RAW: Final = {("POST", ROOT): 0.12, ("PATCH", ONE): 0.11}


def document() -> dict[str, Any]:
    """Return our document; many of the kernels that it has clients ask for can be had."""
    made = core_document("/")
    name = made["components"]["schemas"]["KernelChoice"]["properties"]["name"]
    name["anyOf"].append({"const": "minimal"})
    del made["security"]  # else many examples try tokens, and nothing else
    return made


SCHEMA: Final = schemathesis.openapi.from_dict(document())
BODIES: Final = st.fixed_dictionaries(
    {},
    optional={
        "path": PATHS | VALUES,
        "type": st.just("notebook") | VALUES,
        "name": VALUES,
        "kernel": near("id", "name") | VALUES,
        "notebook": near("path", "name") | VALUES,
        "unknown": VALUES,
    },
)
RAW_BODIES: Final = raw(
    BODIES,
    b'{"path": 1e999}',
    b'{"path": "a", "type": "file", "\\ud800": null}',
    b'{"path": "a", "path": 5, "type": "file"}',
)

WELL_FORMED: Final = st.fixed_dictionaries(
    {"path": st.sampled_from(["a.ipynb", "b/c.ipynb", "d"]), "type": st.just("notebook")},
    optional={
        "kernel": st.fixed_dictionaries(
            {},
            optional={
                "id": st.none() | st.uuids().map(str),
                "name": st.sampled_from([None, "minimal", "none"]),
            },
        )
    },
)
"""What fills the gaps of bodies that would be refused for want of a path, or start no kernel."""


class Fuzzed:
    """A server with one session; whatever else an example makes is ended after it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.session_id = ""
        self.listed: list[dict[str, Any]] = []
        self.renew()

    def renew(self) -> None:
        """Have the one session, and no other."""
        listed = [model["id"] for model in self._get(ROOT)]
        for session_id in listed:
            if session_id != self.session_id:
                reply = self.server.delete(f"{ROOT}/{session_id}")
                assert reply.status_code == 204, reply.text
        if self.session_id not in listed:
            body = {"path": f"{uuid4()}.ipynb", "type": "notebook"}
            reply = self.server.post(ROOT, body)
            assert reply.status_code == 201, reply.text
            self.session_id = reply.json()["id"]
        [kernel] = self._get("/api/kernels")
        self.listed = self._list()
        assert [model["kernel"] for model in self.listed] == [kernel["id"]]

    def send(self, case: schemathesis.Case[Any], refused: bool) -> None:
        """Send a request, and check its answer."""
        response = call(case, self.server.url, self.server.token)
        self.check(case, response, [checks.negative_data_rejection] if refused else [])

    def check(self, case: schemathesis.Case[Any], response: Any, more: Sequence[Any] = ()) -> None:
        """Check an answer against the document, and what it has left.

        :raises AssertionError: with the request
        """
        check_answer(case, response, never_a_fault, more)
        if case.method == "GET" or response.status_code >= 400:
            assert self._list() == self.listed, (response.status_code, case.as_curl_command())
        else:
            self.renew()

    def _list(self) -> list[dict[str, Any]]:
        """Return the sessions, without what their kernels do."""
        return [{**model, "kernel": model["kernel"]["id"]} for model in self._get(ROOT)]

    def _get(self, path: str) -> Any:
        reply = self.server.get(path)
        assert reply.status_code == 200, reply.text
        return reply.json()


def never_a_fault(_: Any, response: Any, __: Any) -> None:
    """A 5xx is none of the client's: but an unknown kernel's is 501, as in jupyter_server."""
    is_unknown_kernel = response.status_code == 501 and "short_message" in response.json()
    assert response.status_code < 500 or is_unknown_kernel, response.text


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzed]:
    with fuzzed_server(tmp_path_factory.mktemp("fuzz")) as server:
        fuzzed = Fuzzed(server)
        yield fuzzed
        assert server.delete(f"{ROOT}/{fuzzed.session_id}").status_code == 204


@fuzz(EXAMPLES, ("method", "path", "mode"), SHARES)
def test_each_answer_is_one_that_is_described(
    method: str, path: str, mode: GenerationMode, fuzzed: Fuzzed
) -> None:
    positive = mode is GenerationMode.POSITIVE

    @examples(EXAMPLES * SHARES[method, path, mode])
    @given(
        case=SCHEMA[path][method].as_strategy(generation_mode=mode),
        known=st.booleans(),
        filled=WELL_FORMED if positive else st.just({}),
    )
    def send(case: schemathesis.Case[Any], known: bool, filled: dict[str, Any]) -> None:
        known = known and path == ONE
        if known:
            case.path_parameters["session_id"] = fuzzed.session_id
        if filled and isinstance(case.body, dict):
            case.body = {**filled, **case.body}
        # Where the id was all that was wrong, nothing is wrong any more.
        fuzzed.send(case, refused=not positive and not known)

    send()


@fuzz(EXAMPLES, ("method", "path"), RAW)
def test_any_body_is_taken_or_refused(method: str, path: str, fuzzed: Fuzzed) -> None:
    operation = SCHEMA[path][method]

    @examples(EXAMPLES * RAW[method, path])
    @given(body=RAW_BODIES)
    def send(body: bytes) -> None:
        url = path.format(session_id=fuzzed.session_id)
        response = fuzzed.server.request(method, url, content=body, timeout=LONGEST)
        case = operation.Case(path_parameters={"session_id": fuzzed.session_id}, body=body)
        fuzzed.check(case, response)

    send()

"""The servers that run, and what they are asked over REST."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

from jupyter_core.paths import jupyter_runtime_dir

from .outcome import FAILED, NO_SERVER, CommandError

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
R = TypeVar("R")

API = "sessions/api/v1"

_PROBE_SECONDS = 5.0
"""How long a server has to say who it is."""

SECONDS = 120.0
"""How long it has for all else: to start a kernel takes long."""

_LARGEST_PAGE = 1000
_WILDCARDS = ("0.0.0.0", "::", "*")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ServerError(CommandError):
    """A server did not do what it was asked.

    :ivar status: its answer's status; 0: it did not answer
    """

    def __init__(self, message: str, status: int = 0, code: int = FAILED) -> None:
        super().__init__(message, code)
        self.status = status


class Server:
    """A running server.

    :param url: as its file or ``--server`` has it; a unix socket's is ``http+unix://``
    :param is_found: whether it was found in this user's runtime folder
    """

    def __init__(
        self, url: str, token: str, *, pid: int = 0, root_dir: str = "", is_found: bool = False
    ) -> None:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]  # a password must not be printed
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self.pid = pid
        self.root_dir = root_dir
        self.about: dict[str, Any] = {}
        """What it answers of itself; see :meth:`probe`."""
        self._token = token
        self._is_found = is_found
        self._opened: httpx.Client | None = None

    @property
    def key(self) -> str | None:
        """The workspace that it uses; ``None``: it keeps nothing."""
        key: str | None = self.about["workspace"]["key"]
        return key

    @property
    def folder(self) -> str | None:
        """The folder of that workspace."""
        folder: str | None = self.about["workspace"]["folder"]
        return folder

    def probe(self) -> ServerError | None:
        """Ask it who it is; return why it does not tell."""
        try:
            self.about = self.request("GET", "", timeout=_PROBE_SECONDS).json()
            self.root_dir = self.about["workspace"]["root_dir"]
        except ServerError as error:
            return error
        except (ValueError, LookupError, TypeError):
            return ServerError(f"{self.url} is no Jupyter server that we understand")
        return None

    def pages(
        self, path: str, parameters: Mapping[str, Any], most: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page by page.

        :param most: so many of them
        :raises ServerError: it does not answer
        """
        asked = {**parameters, "limit": min(most or _LARGEST_PAGE, _LARGEST_PAGE)}
        yield from islice(self._pages(path, asked), most)

    def _pages(self, path: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        while True:
            reply = self.request("GET", path, params=asked)
            try:
                items, cursor = [*reply.json()["items"]], reply.json()["next"]
            except (ValueError, LookupError, TypeError):
                raise ServerError(f"{self.url} answers what we do not understand") from None
            yield from items
            if cursor is None:
                return
            asked["cursor"] = cursor

    def request(
        self, method: str, path: str, *, timeout: float = SECONDS, **options: Any
    ) -> httpx.Response:
        """Send a request to the administration API, and return the answer to it.

        :param path: below the API's own
        :raises ServerError: it does not answer, or refuses
        """
        import httpx

        try:
            reply = self._client.request(method, f"{API}{path}", timeout=timeout, **options)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        self.check(reply)
        return reply

    def lines(self, path: str) -> Iterator[bytes]:
        """Yield an answer as it comes, some whole lines at a time.

        :raises ServerError: it does not answer, or not to the end
        """
        import httpx

        rest = b""
        try:
            with self._client.stream("GET", f"{API}{path}", timeout=SECONDS) as reply:
                self.check(reply)
                for part in reply.iter_bytes():
                    whole, found, rest = (rest + part).rpartition(b"\n")
                    if found:
                        yield whole + found
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def check(self, reply: httpx.Response) -> None:
        """Raise what an answer tells of a request that was not done.

        :raises ServerError: it was not
        """
        status = reply.status_code
        if reply.is_success:
            return
        message = reply.reason_phrase
        try:
            message = str(json.loads(reply.read())["message"])
        except (ValueError, LookupError, TypeError):
            if status == 404:
                raise ServerError(
                    f"{self.url} has no jupyter_sessions_ext: see what is missing with "
                    "`jupyter sessions check`",
                    status,
                ) from None
        if reply.is_redirect or status in (401, 403):
            raise ServerError(
                f"{self.url} does not let us in ({status}): name a token of that server, with "
                "--token or in JUPYTER_TOKEN",
                status,
            )
        raise ServerError(f"{message.rstrip('.')} ({self.url} answered {status})", status)

    def _unreachable(self, error: httpx.HTTPError) -> ServerError:
        import httpx

        if isinstance(error, httpx.ConnectError):
            return ServerError(
                f"no server answers at {self.url}: `jupyter server list` shows those that run",
                code=NO_SERVER,
            )
        why = "in time" if isinstance(error, httpx.TimeoutException) else f"({error!r})"
        return ServerError(f"{self.url} did not answer {why}: try again, or restart it")

    @property
    def _client(self) -> httpx.Client:
        if self._opened is None:
            import httpx

            parts = urlsplit(self.url)
            is_socket = parts.scheme == "http+unix"
            base = f"http://localhost{parts.path}" if is_socket else self.url
            # A cross-site request must know the cookie; where no token is asked for, we are one.
            headers = {"X-XSRFToken": "00", "Cookie": "_xsrf=00"}
            if self._token:
                headers = {"Authorization": f"token {self._token}"}
            # Its own file says where a found server is: no proxy, and no certificate to be known.
            own = self._is_found or is_socket
            verify = not own
            self._opened = httpx.Client(
                base_url=f"{base}/",
                headers=headers,
                transport=httpx.HTTPTransport(uds=unquote(parts.netloc)) if is_socket else None,
                verify=verify,
                trust_env=not own and parts.hostname not in _LOOPBACK,
            )
        return self._opened

    def close(self) -> None:
        """Close its connections."""
        if self._opened is not None:
            self._opened.close()


def named(url: str, token: str | None) -> Server:
    """Return the server of a URL, which may be copied with its token.

    :raises CommandError: it is no URL
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "http+unix") or not parts.netloc:
        raise CommandError(f"--server: {url.partition('?')[0]} is no URL of a server", 2)
    in_url = parse_qs(parts.query).get("token", [None])[0]
    server = Server(url, token or in_url or os.environ.get("JUPYTER_TOKEN", ""))
    for found in running(token):
        if _is_same(found.url, server.url) and not in_url:
            return found
    return server


def _is_same(one: str, other: str) -> bool:
    """Tell whether two URLs name one server of this host."""
    a, b = urlsplit(one), urlsplit(other)
    is_here = a.hostname == b.hostname or {a.hostname, b.hostname} <= {*_LOOPBACK}
    return is_here and (a.scheme, a.port, a.path) == (b.scheme, b.port, b.path)


def running(token: str | None) -> list[Server]:
    """Return the servers of this user that run, as ``jupyter server list`` finds them.

    Those of others, whose port was a server's of this user, are left out: they must get no token.
    To import what it calls would take a second of CPU time.

    :param token: in place of those that their files have
    """
    from .ownership import Ownership, ownership

    found = []
    for file in sorted(Path(jupyter_runtime_dir()).glob("jpserver-*.json")):
        try:
            info = json.loads(file.read_text("utf-8"))
            url = _reachable(info)
            whose = ownership(info["pid"], url, file.stat().st_mtime)
            if whose is Ownership.FOREIGN:
                continue
            known = token or info["token"] or os.environ.get("JUPYTER_TOKEN", "")
            found.append(
                Server(
                    url,
                    known if whose is Ownership.OWN else "",
                    pid=info["pid"],
                    root_dir=info["root_dir"],
                    is_found=True,
                )
            )
        except (OSError, ValueError, LookupError, TypeError):
            continue  # it is being written, or is another program's
    return found


def probe(servers: Sequence[Server]) -> list[ServerError | None]:
    """Ask all servers at once who they are; return why each does not tell."""
    return at_once(Server.probe, servers)


def at_once(
    function: Callable[[T], R],
    items: Sequence[T],
    *,
    most: int = 8,
    done: Callable[[], object] = lambda: None,
) -> list[R]:
    """Call a function for many items, some at the same time; return the results in their order.

    Ctrl-C does not wait for those that are being called.

    :param done: called whenever one has returned
    """
    waiting = iter(enumerate(items))
    returned: SimpleQueue[tuple[int, R] | BaseException] = SimpleQueue()

    def work() -> None:
        try:
            for i, item in waiting:
                returned.put((i, function(item)))
        except BaseException as error:
            returned.put(error)

    for _ in range(min(len(items), most)):
        threading.Thread(target=work, daemon=True).start()
    results: dict[int, R] = {}
    while len(results) < len(items):
        result = returned.get()
        if isinstance(result, BaseException):
            raise result
        results[result[0]] = result[1]
        done()
    return [results[i] for i in range(len(items))]


def _reachable(info: dict[str, Any]) -> str:
    url = str(info["url"])
    if info.get("hostname") in _WILDCARDS:  # its file has the host's name, which may be unknown
        return re.sub(r"^(https?)://[^/]*", rf"\1://127.0.0.1:{info['port']}", url)
    return url

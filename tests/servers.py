"""Real Jupyter server processes, each in an isolated home, and everything that they start."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar
from uuid import uuid4

import httpx
import psutil
import websocket
from messages import CellError, execute_request, run_cell

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from typing_extensions import Self

__all__ = [
    "POLL_INTERVAL",
    "CellError",
    "Home",
    "Server",
    "execute_request",
    "free_port",
    "kernel_processes",
    "wait_until",
]

POLL_INTERVAL: Final = 0.03
OWN_TOKEN: Final = "own"
MODULES: Final = {"server": "jupyter_server", "lab": "jupyterlab"}
# An environment that pytest itself was started in, as by a notebook's terminal, must not leak in.
FOREIGN_VARIABLES: Final = ("JUPYTER", "JPY_", "IPYTHON", "PYTEST_")

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float, what: str) -> T:
    """Return the predicate's first true value.

    :raises AssertionError: there was none within ``timeout`` seconds; the message names ``what``.
    """
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        assert time.monotonic() < deadline, f"waited {timeout} s in vain until {what}"
        time.sleep(POLL_INTERVAL)
    return value


def free_port() -> int:
    """Return a port that stays free while its server is down.

    It lies below the range that systems give to sockets which do not ask for a port of their own,
    such as a kernel's: one of those could take the port of a server that is being restarted.
    """
    while True:
        # Not the common generator, which hypothesis resets: all its runs would have one port.
        port = random.SystemRandom().randint(12000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Home:
    """The folders and the environment of one user's Jupyter, apart from those of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data_dir = path / "data"
        self.runtime_dir = path / "runtime"
        self.config_dir = path / "config"
        self.ipython_dir = path / "ipython"
        self.root_dir = path / "notebooks"
        self.servers: list[Server] = []
        for folder in (self.data_dir, self.runtime_dir, self.config_dir, self.root_dir):
            folder.mkdir(parents=True)
        _write_json(
            self.config_dir / "labconfig" / "default_setting_overrides.json",
            {
                "@jupyterlab/apputils-extension:notification": {
                    "checkForUpdates": False,
                    "fetchNews": "false",
                }
            },
        )
        # JupyterLab would add half as much again to the start of each server that is not for it.
        self._plain_config = path / "plain-config"
        _write_json(
            self._plain_config / "jupyter_server_config.d" / "plain.json",
            {
                "ServerApp": {
                    "jpserver_extensions": {
                        "jupyterlab": False,
                        "jupyter_lsp": False,
                        "notebook_shim": False,
                    }
                }
            },
        )

    def environment(self, app: Literal["server", "lab"] = "server") -> dict[str, str]:
        """Return the environment variables of a process that lives in this home."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(FOREIGN_VARIABLES)}
        plain = {"JUPYTER_CONFIG_PATH": str(self._plain_config)} if app == "server" else {}
        return {
            **inherited,
            **plain,
            "HOME": str(self.path),
            "IPYTHONDIR": str(self.ipython_dir),
            "JUPYTER_CONFIG_DIR": str(self.config_dir),
            "JUPYTER_DATA_DIR": str(self.data_dir),
            "JUPYTER_PLATFORM_DIRS": "0",
            "JUPYTER_RUNTIME_DIR": str(self.runtime_dir),
        }

    def processes(self) -> list[psutil.Process]:
        """Return the live processes that were started below this home: servers, kernels, others."""
        return [
            process
            for process in _live_processes()
            if process.pid != os.getpid()
            and (
                _environ(process).get("JUPYTER_RUNTIME_DIR") == str(self.runtime_dir)
                or any(f"{self.path}{os.sep}" in word for word in _cmdline(process))
            )
        ]

    def close(self) -> None:
        """End the servers, then every other process of this home.

        :raises AssertionError: one of them withstood.
        """
        for server in self.servers:
            server.kill()

        def none_left() -> bool:
            left = self.processes()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            return not left

        wait_until(none_left, 20, f"the processes of {self.path} ended")


class Server:
    """One Jupyter server, which is started, killed and started again on a fixed port.

    :param app: ``"server"`` is Jupyter Server alone, ``"lab"`` JupyterLab.
    :param token: None leaves it to the server to make one, anew at each start.
    :param base_url: without the trailing slash; what is requested of it is below.
    :param args: more arguments of its command line.
    :param env: more variables of its environment.
    """

    def __init__(
        self,
        home: Home,
        *,
        app: Literal["server", "lab"] = "server",
        port: int | None = None,
        token: str | None = "test-token",
        base_url: str = "",
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.home = home
        self.app = app
        self.port = port or free_port()
        self.args = list(args)
        self.env = dict(env or {})
        self.python = [sys.executable]
        self.stdin: int = subprocess.DEVNULL
        self.base_url = base_url
        self.url = f"http://127.0.0.1:{self.port}{base_url}"
        self.log_path = home.path / f"server-{self.port}.log"
        self._fixed_token = token
        self._process: subprocess.Popen[bytes] | None = None
        self._client: httpx.Client | None = None
        home.servers.append(self)

    def __enter__(self) -> Self:
        return self if self.running else self.start()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the server, or of the last one."""
        assert self._process is not None, "the server was never started"
        return self._process.pid

    @property
    def log(self) -> str:
        """All that the servers on this port have logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def info(self) -> dict[str, Any]:
        """What the running server says of itself in its jpserver-*.json file."""
        info: dict[str, Any] = json.loads(self._info_path.read_text())
        return info

    @property
    def token(self) -> str:
        """The token that the running server asks for."""
        return str(self.info["token"]) if self._fixed_token is None else self._fixed_token

    def start(self, timeout: float = 60) -> Self:
        """Start the server and wait until it answers.

        :raises AssertionError: it ended, or did not answer within ``timeout`` seconds.
        """
        assert not self.running, "the server runs already"
        command = [
            *(*self.python, "-m", MODULES[self.app], "--no-browser", "--allow-root"),
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.port}",
            "--ServerApp.port_retries=0",
            f"--ServerApp.root_dir={self.home.root_dir}",
        ]
        if self.base_url:
            command.append(f"--ServerApp.base_url={self.base_url}/")
        if self._fixed_token is not None:
            command.append(f"--IdentityProvider.token={self._fixed_token}")
        with self.log_path.open("ab") as log:
            # A session of its own: a Ctrl-C at pytest is for pytest, which then ends the server.
            self._process = subprocess.Popen(
                [*command, *self.args],
                env=self._environment(),
                cwd=self.home.path,
                stdin=self.stdin,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            wait_until(self._answers, timeout, "the server answered")
        except BaseException as error:
            self.kill()
            if isinstance(error, AssertionError):
                raise AssertionError(f"{error}\n{self.log_tail}") from None
            raise
        return self

    def restart(self, timeout: float = 60) -> Self:
        """Kill the server if it still runs, and start it again on the same port."""
        self.kill()
        return self.start(timeout)

    def kill(self) -> None:
        """End the server's process, and no other, without any chance for it to clean up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def terminate(self, timeout: float = 20) -> int:
        """Ask the server to end, and return its exit code.

        :raises AssertionError: it still ran after ``timeout`` seconds.
        """
        assert self._process is not None, "the server was never started"
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            message = f"the server ignored SIGTERM for {timeout} s\n{self.log_tail}"
            raise AssertionError(message) from None

    def close(self) -> None:
        """End the server; when it was the last one of its home, end all else there too."""
        self.kill()
        if self._client is not None:
            self._client.close()
            self._client = None
        if not any(server.running for server in self.home.servers):
            self.home.close()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        token: str | None = OWN_TOKEN,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30,
    ) -> httpx.Response:
        """Send one request.

        :param path: with the leading slash.
        :param json: the body to encode; ``content`` sends any other one.
        :param token: to log in with; None sends none.
        :param headers: more of them.
        """
        token = self.token if token == OWN_TOKEN else token
        login = {} if token is None else {"Authorization": f"token {token}"}
        headers = {**login, **(headers or {})}
        return self._http.request(
            method, self.url + path, json=json, content=content, headers=headers, timeout=timeout
        )

    def get(self, path: str, *, token: str | None = OWN_TOKEN) -> httpx.Response:
        return self.request("GET", path, token=token)

    def post(self, path: str, json: Any = None, *, token: str | None = OWN_TOKEN) -> httpx.Response:
        return self.request("POST", path, json, token=token)

    def patch(
        self, path: str, json: Any = None, *, token: str | None = OWN_TOKEN
    ) -> httpx.Response:
        return self.request("PATCH", path, json, token=token)

    def delete(self, path: str, *, token: str | None = OWN_TOKEN) -> httpx.Response:
        return self.request("DELETE", path, token=token)

    def connect(
        self, kernel_id: str, session_id: str | None = None, timeout: float = 30, **options: Any
    ) -> websocket.WebSocket:
        """Open a websocket to a kernel; the messages on it are JSON text."""
        return websocket.create_connection(
            f"ws{self.url.removeprefix('http')}/api/kernels/{kernel_id}/channels"
            f"?session_id={session_id or uuid4().hex}",
            header=[f"Authorization: token {self.token}"],
            timeout=timeout,
            **options,
        )

    def execute(
        self, kernel_id: str, code: str, timeout: float = 30, session_id: str | None = None
    ) -> str:
        """Run code in a kernel and return what it wrote to stdout.

        :raises CellError: the code raised an exception.
        :raises TimeoutError: it did not end within ``timeout`` seconds.
        :raises ConnectionError: the server closed the websocket.
        """
        deadline = time.monotonic() + timeout
        session_id = session_id or uuid4().hex
        with closing(self.connect(kernel_id, session_id, timeout)) as channels:
            return run_cell(channels, execute_request(code, session_id), deadline)

    def _environment(self) -> dict[str, str]:
        """Return its variables; what it is to import comes before what the home has for all."""
        env = {**self.home.environment(self.app), **self.env}
        paths = [self.env.get("PYTHONPATH"), os.environ.get("PYTHONPATH")]
        return {**env, "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    @property
    def _http(self) -> httpx.Client:
        if self._client is None:
            # Each request is on a connection of its own, as a kept one may lead to a killed server,
            # and takes no cookies along, as one would log in a request that has no token.
            self._client = httpx.Client(
                trust_env=False,
                limits=httpx.Limits(max_keepalive_connections=0),
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            )
        return self._client

    @property
    def _info_path(self) -> Path:
        return self.home.runtime_dir / f"jpserver-{self.pid}.json"

    def _answers(self) -> bool:
        assert self.running, "the server ended before it answered"
        # Its own info file shows that it is this server, not another one on the port.
        if not self._info_path.exists():
            return False
        with suppress(httpx.TransportError):
            return self._http.get(f"{self.url}/api", timeout=1).is_success
        return False

    @property
    def log_tail(self) -> str:
        """The end of the log, under its file's name."""
        return f"--- end of {self.log_path.name} ---\n{self.log[-4000:]}"


def kernel_processes(home: Home) -> list[psutil.Process]:
    """Return the live kernels whose command line names a connection file of this home.

    What a kernel has just forked has its command line for a moment, and is none.
    """
    folder = f"{home.runtime_dir}{os.sep}"
    found = [
        process
        for process in _live_processes()
        if any(folder in word and word.endswith(".json") for word in _cmdline(process))
    ]
    pids = {process.pid for process in found}
    return [process for process in found if _parent(process) not in pids]


def _parent(process: psutil.Process) -> int:
    with suppress(psutil.NoSuchProcess):
        return process.ppid()
    return process.pid  # it has ended meanwhile


def keepers(home: Home) -> list[psutil.Process]:
    """Return the keepers of this home."""
    return [process for process in home.processes() if is_keeper(process)]


def end_keepers(home: Home) -> None:
    """End the keepers of this home, which hold the port that a server without us is to have."""
    for keeper in keepers(home):
        keeper.kill()
    wait_until(lambda: not keepers(home), 10, "the keepers had ended")


def is_keeper(process: psutil.Process) -> bool:
    """Tell whether a process is a keeper."""
    return "jupyter_sessions_ext.keeper" in _cmdline(process)


def _live_processes() -> list[psutil.Process]:
    dead = (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    return [
        process for process in psutil.process_iter(["status"]) if process.info["status"] not in dead
    ]


def _cmdline(process: psutil.Process) -> list[str]:
    with suppress(psutil.Error):
        return process.cmdline()
    return []


def _environ(process: psutil.Process) -> dict[str, str]:
    with suppress(psutil.Error):
        return process.environ()
    return {}


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(value))

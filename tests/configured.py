"""Classes that real servers are configured with: faults, users' own, kernels elsewhere."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

from jupyter_client.launcher import launch_kernel
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_client.provisioning.provisioner_base import KernelProvisionerBase
from jupyter_server.auth.authorizer import Authorizer
from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from jupyter_server.services.kernels.kernelmanager import (
    AsyncMappingKernelManager,
    ServerKernelManager,
)
from jupyter_server.services.sessions.sessionmanager import SessionManager
from traitlets import default

from jupyter_sessions_ext.host import identify
from jupyter_sessions_ext.kernels.listener import Listener


class DiesAfterLaunch(ServerKernelManager):
    """Kills the server between the start of a kernel's process and its record."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        await super()._async_launch_kernel(kernel_cmd, **kw)
        os.kill(os.getpid(), signal.SIGKILL)


class DiesInShutdown(ServerKernelManager):
    """Kills the server before a kernel that it was told to end has ended."""

    async def _async_request_shutdown(self, restart: bool = False) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Gate:
    """A launch waits while the file that variable GATE names is there, and leaves a sign of it."""

    def __init__(self) -> None:
        self.file = os.environ["GATE"]

    def is_closed(self) -> bool:
        if not os.path.exists(self.file):
            return False
        os.close(os.open(f"{self.file}.reached", os.O_CREAT))
        return True


class HearsLate(AsyncMappingKernelManager):
    """Hears that a kernel is idle some moments after clients do, as on a busy machine."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        messages: Any = Listener._messages
        held: dict[Listener, list[bytes]] = {}

        def messages_but_the_last(listener: Listener) -> Iterator[list[bytes]]:
            if listener in held:
                yield held.pop(listener)
            for message in messages(listener):
                if any(b'"idle"' in frame for frame in message):
                    held[listener] = message
                    listener._loop.call_later(0.02, listener._wait)
                    break
                yield message

        Listener._messages = messages_but_the_last  # type: ignore[assignment, method-assign]


class WaitsBeforeLaunch(ServerKernelManager):
    """Holds a start until the test lets it go on."""

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        gate = Gate()
        while gate.is_closed():  # noqa: ASYNC110 - it is another process that opens it
            await asyncio.sleep(0.02)
        await super()._async_launch_kernel(kernel_cmd, **kw)


class FailsAfterLaunch(ServerKernelManager):
    """Cannot finish a start: the process exists by then."""

    async def _async_post_start_kernel(self, **kw: Any) -> None:
        raise OSError(errno.EMFILE, "injected")

    post_start_kernel: Any = _async_post_start_kernel


class FailsToShutDown(ServerKernelManager):
    """Cannot be asked to end."""

    async def _async_request_shutdown(self, restart: bool = False) -> None:
        raise OSError(errno.EMFILE, "injected")


class TakenPort(ServerKernelManager):
    """Is given, for its first start, a port that another program has just taken."""

    _taken: socket.socket | None = None

    async def _async_launch_kernel(self, kernel_cmd: list[str], **kw: Any) -> None:
        if self._taken is None:
            self._taken = socket.create_server((self.ip, self.shell_port))
        await super()._async_launch_kernel(kernel_cmd, **kw)


class ScratchProvisioner(LocalProvisioner):
    """Keeps a file for each kernel, which it removes with it."""

    scratch = ""

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        self.scratch = f"{kwargs['cwd']}/scratch-{self.kernel_id}"
        os.close(os.open(self.scratch, os.O_CREAT))
        return await super().launch_kernel(cmd, **kwargs)

    async def cleanup(self, restart: bool = False) -> None:
        await super().cleanup(restart)
        if not restart:
            os.unlink(self.scratch)

    async def get_provisioner_info(self) -> dict[str, Any]:
        return {**await super().get_provisioner_info(), "scratch": self.scratch}

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        await super().load_provisioner_info(provisioner_info)
        self.scratch = provisioner_info["scratch"]


class OwnKernel(ServerKernelManager):
    """A user's own kernel manager."""

    async def _async_pre_start_kernel(self, **kw: Any) -> Any:
        kw["env"] = {**kw.get("env", os.environ), "MINE": "1"}
        return await super()._async_pre_start_kernel(**kw)

    pre_start_kernel: Any = _async_pre_start_kernel


class OwnMapping(AsyncMappingKernelManager):
    """A user's own mapping manager."""

    @default("kernel_manager_class")
    def _default_kernel_manager_class(self) -> str:
        return "configured.OwnKernel"

    def kernel_model(self, kernel_id: str) -> dict[str, Any]:
        return {**super().kernel_model(kernel_id), "mine": "kernel"}


class OwnText(ZMQChannelsWebsocketConnection):
    """Makes the text of messages itself."""

    def _reserialize_reply(self, msg_or_list: Any, channel: Any = None) -> Any:
        text: Any = super()._reserialize_reply(msg_or_list, channel)
        return text.replace("secret", "******")


class OwnWay(ZMQChannelsWebsocketConnection):
    """Lets some messages through, and others not."""

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        if b'"secret' not in outgoing_msg[5]:
            super().handle_outgoing_message(stream, outgoing_msg)


class NewPortsKernel(ServerKernelManager):
    """Chooses other ports at each restart."""

    cache_ports = False

    async def restart_kernel(  # type: ignore[override]
        self, now: bool = False, newports: bool = True, **kw: Any
    ) -> None:
        await super().restart_kernel(now=now, newports=newports, **kw)


class NewPortsMapping(AsyncMappingKernelManager):
    """Has such kernels; jupyter_server's own tests have one like it."""

    @default("kernel_manager_class")
    def _default_kernel_manager_class(self) -> str:
        return "configured.NewPortsKernel"


class NotingKernel(ServerKernelManager):
    """Notes, in the file that variable NOTES names, what it is asked to do."""

    def _note(self, what: str) -> None:
        with open(os.environ["NOTES"], "a") as notes:
            notes.write(f"{what} {self.kernel_id}\n")

    async def start_kernel(self, **kw: Any) -> None:  # type: ignore[override]
        await super().start_kernel(**kw)
        self._note("started")

    async def restart_kernel(self, **kw: Any) -> None:  # type: ignore[override]
        self._note("restart")
        await super().restart_kernel(**kw)

    async def shutdown_kernel(  # type: ignore[override]
        self, now: bool = False, restart: bool = False
    ) -> None:
        self._note("shutdown")
        await super().shutdown_kernel(now=now, restart=restart)


class RoomSessions(SessionManager):
    """Has rooms for sessions that it has created, and for no others: so jupyter-server-documents.

    Its ``YDocSessionManager`` looks the room up wherever this one does.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rooms: dict[str, str] = {}

    def _room(self, session_id: str) -> str:
        if session_id not in self._rooms:
            msg = f"No room found for session '{session_id}'."
            raise LookupError(msg)
        return self._rooms[session_id]

    async def create_session(self, *args: Any, **kwargs: Any) -> Any:
        model = await super().create_session(*args, **kwargs)
        self._rooms[model["id"]] = model["kernel"]["id"]
        return model

    async def row_to_model(self, row: Any, tolerate_culled: bool = False) -> Any:
        model = await super().row_to_model(row, tolerate_culled)
        return {**model, "room": self._rooms.get(model["id"])} if model else None

    async def update_session(self, session_id: str, **update: Any) -> None:
        if "kernel_id" in update:
            await self.get_session(session_id=session_id)
            self._room(session_id)
            self._rooms[session_id] = update["kernel_id"]
        await super().update_session(session_id, **update)

    async def delete_session(self, session_id: str) -> None:
        await self.get_session(session_id=session_id)
        self._room(session_id)
        del self._rooms[session_id]
        await super().delete_session(session_id)


class ForgetfulRoomSessions(RoomSessions):
    """Cannot make a room for a kernel that runs already."""

    async def create_session(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("kernel_id"):
            msg = "injected"
            raise LookupError(msg)
        return await super().create_session(*args, **kwargs)


class CursorSessions(SessionManager):
    """Runs SQL on the synchronous cursor, as jupyter_server_synchronizer's does at each list."""

    async def list_sessions(self) -> Any:
        for session in self.cursor.execute("SELECT * FROM session").fetchall():
            if session["kernel_id"] not in self.kernel_manager:
                ended = (session["kernel_id"],)
                self.cursor.execute("DELETE FROM session WHERE kernel_id=?", ended)
        return await super().list_sessions()


class OwnSessions(SessionManager):
    """A user's own session manager, which knows nothing of ours."""

    async def row_to_model(self, row: Any, tolerate_culled: bool = False) -> Any:
        model = await super().row_to_model(row, tolerate_culled)
        return {**model, "mine": "session"} if model else None


class ElsewhereProvisioner(KernelProvisionerBase):
    """Stands for a kernel on another host: known by a handle, of which it alone makes sense."""

    handle: int | None = None

    @property
    def has_process(self) -> bool:
        return self.handle is not None

    async def poll(self) -> int | None:
        return None if self.handle is not None and identify(self.handle) else 0

    async def wait(self) -> int | None:
        self.handle = None
        return 0

    async def send_signal(self, signum: int) -> None:
        if self.handle is not None and await self.poll() is None:
            os.kill(self.handle, signum)

    async def kill(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGKILL)

    async def terminate(self, restart: bool = False) -> None:
        await self.send_signal(signal.SIGTERM)

    async def cleanup(self, restart: bool = False) -> None:
        pass

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        manager: Any = self.parent
        manager.write_connection_file()
        self.connection_info = manager.get_connection_info()
        command = manager.format_kernel_cmd()
        return await super().pre_launch(cmd=command, **kwargs)

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        scrubbed = LocalProvisioner._scrub_kwargs(kwargs)
        scrubbed["env"].pop("JPY_PARENT_PID", None)
        self.handle = launch_kernel(cmd, independent=True, **scrubbed).pid
        return self.connection_info

    async def get_provisioner_info(self) -> dict[str, Any]:
        return {**await super().get_provisioner_info(), "handle": self.handle}

    async def load_provisioner_info(self, provisioner_info: dict[str, Any]) -> None:
        await super().load_provisioner_info(provisioner_info)
        self.handle = provisioner_info["handle"]


class Ada(IdentityProvider):
    """Knows whoever has the token by name."""

    async def _get_user(self, handler: Any) -> User | None:
        return User("ada") if await super()._get_user(handler) else None


class Denying(Authorizer):
    """Denies what variable DENIED names, and notes what it was asked in the file of ASKED."""

    def is_authorized(self, handler: Any, user: User, action: str, resource: str) -> bool:
        with open(os.environ["ASKED"], "a") as file:
            file.write(f"{handler.request.method} {action} {resource}\n")
        return not {action, resource} & self.denied()

    def denied(self) -> set[str]:
        return set(os.environ["DENIED"].split(","))


class DenyingAsTold(Denying):
    """Denies what the file that variable DENIED names says at the moment."""

    def denied(self) -> set[str]:
        with open(os.environ["DENIED"]) as file:
            return set(file.read().split())

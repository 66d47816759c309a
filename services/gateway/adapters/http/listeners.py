"""Where requests come in: one port on loopback, and the listeners that sandboxes hand over."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import structlog
import uvicorn
from starlette.types import ASGIApp

from quarterdeck.bus.embedded import require_free
from quarterdeck.kernel.errors import Refused, Rejected
from quarterdeck.sidecar.handover import HandoverServer
from services.gateway.adapters.http.identity import Binding, Bound
from services.gateway.domain.refusals import EdgeError
from services.gateway.ports import Doorman

log = structlog.get_logger("quarterdeck.gateway")
MAX_CONNECTIONS = 1_024
MAX_CONNECTIONS_A_RUN = 128
KEEP_ALIVE_S = 75
"""Longer than clients keep an idle connection: they close it, and never send on one that we just closed."""
GRACE_S = 2
"""How long answers that are under way may take when a listener closes."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the process's: several servers live in it."""
        yield


class _Served:
    """One listening socket and the server on it."""

    def __init__(self, app: ASGIApp, listening: socket.socket, *, max_connections: int) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=max_connections,
            timeout_graceful_shutdown=GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            reset_contextvars=True,
        )
        if listening.family != socket.AF_UNIX:
            # Inherited by what is accepted. Without it an answer in two writes waits 40 ms for the client's
            # delayed acknowledgement; asyncio sets it only on sockets that name their protocol number.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server = _Server(config)
        self._listening = listening
        self._serving: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))

    def leave(self) -> None:
        """Accept no more and end soon; does not wait."""
        self._server.should_exit = True

    async def close(self) -> None:
        self.leave()
        if self._serving is not None:
            await asyncio.gather(self._serving, return_exceptions=True)
        self._listening.close()


class Listeners:
    def __init__(self, app: ASGIApp, doorman: Doorman, *, host: str, port: int, handover: Path) -> None:
        self._app = app
        self._doorman = doorman
        self._host = host
        self._port = port
        self._handover = HandoverServer(handover, self._taken)
        self._public: _Served | None = None
        self._of_runs: dict[str, list[_Served]] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises SetupProblem: QD-SET-003 for a port in use, QD-SET-008 for the handover socket."""
        require_free(self._port, "QUARTERDECK_GATEWAY_PORT")
        listening = socket.create_server((self._host, self._port), backlog=MAX_CONNECTIONS)
        listening.setblocking(False)
        self._public = _Served(self._app, listening, max_connections=MAX_CONNECTIONS)
        self._public.start()
        try:
            await self._handover.start()
        except BaseException:
            await self._public.close()
            raise

    async def stop(self) -> None:
        await self._handover.close()
        served = [one for run in self._of_runs.values() for one in run]
        self._of_runs.clear()
        if self._public is not None:
            served.append(self._public)
        await asyncio.gather(*(one.close() for one in served), *self._leaving)

    def end_run(self, run_id: str) -> None:
        """Close what the run was handed over with; answers under way get GRACE_S."""
        for served in self._of_runs.pop(run_id, []):
            task = asyncio.create_task(served.close())
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    async def _taken(self, listener: socket.socket, token: str, traceparent: str) -> None:
        """A sandbox hands over its listener. Raises Refused for a token that is not good, Unavailable."""
        try:
            caller = await self._doorman.admit(token, traceparent)
        except EdgeError as error:
            raise Refused(
                Rejected(code=error.code, reason=error.reason, message=error.message, hint=error.hint)
            ) from None
        run_id = caller.run.run_id
        binding = Binding(token, traceparent, died=lambda: self.end_run(run_id))
        served = _Served(Bound(self._app, binding), listener, max_connections=MAX_CONNECTIONS_A_RUN)
        served.start()
        self._of_runs.setdefault(run_id, []).append(served)
        log.info("listening for a run", run_id=run_id)

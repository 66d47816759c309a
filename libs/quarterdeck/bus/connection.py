"""One place that opens connections to NATS, and one that speaks JetStream's JSON API."""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from quarterdeck.kernel.errors import SetupProblem, Unavailable

log = structlog.get_logger("quarterdeck.bus")
ANSWER_TIMEOUT_S = 5.0
RECONNECT_WAIT_S = 0.25
QUIET_S = 30.0
"""How long the same error is not logged again."""


async def connect(
    url: str,
    *,
    name: str,
    nkey_seed: Path | None = None,
    patience_s: float = 10.0,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> Nats:
    """A connection that reconnects for ever. A permission denial looks like a time-out to the caller, so
    every asynchronous error is logged (or given to `on_error`).

    Raises Unavailable (QD-BUS-001) when nothing answers at `url` within `patience_s`, and SetupProblem when
    the key is missing or refused.
    """
    options: dict[str, Any] = {"reconnect_time_wait": RECONNECT_WAIT_S}
    if nkey_seed is not None:
        if not nkey_seed.is_file():
            raise SetupProblem(
                f"the bus key {nkey_seed} is not there", code="QD-SET-004", hint="`quarterdeck up` makes it"
            )
        options["nkeys_seed"] = str(nkey_seed)
    client = Nats()
    errors = _Errors(name, on_error)
    connecting = asyncio.create_task(
        client.connect(
            url,
            name=name,
            max_reconnect_attempts=-1,
            error_cb=errors.report,
            connect_timeout=2,
            max_outstanding_pings=3,
            ping_interval=5,
            **options,
        )
    )
    # nats-py counts the first connection as a reconnection: left alone it would try for ever.
    await asyncio.wait({connecting, errors.denied}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    if not connecting.done():
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await client.close()
        raise errors.as_problem(url, nkey_seed)
    try:
        await connecting
    except (NatsError, OSError, ValueError) as error:
        raise Unavailable(f"can't connect to {url}: {error}", code="QD-BUS-001") from None
    errors.connected = True
    return client


class _Errors:
    """What nats-py reports on the side: kept while the first connection is made, passed on afterwards."""

    def __init__(self, name: str, on_error: Callable[[Exception], Awaitable[None]] | None) -> None:
        self.connected = False
        self.denied: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._name = name
        self._on_error = on_error
        self._last = "no answer"
        self._quiet_until = 0.0

    async def report(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if not self.connected:
            self._last = text
            if "authorization" in text.lower() and not self.denied.done():
                self.denied.set_result(None)
        elif self._on_error is not None:
            await self._on_error(error)
        elif text != self._last or asyncio.get_running_loop().time() > self._quiet_until:
            # A server that is gone is an error four times a second.
            self._last, self._quiet_until = text, asyncio.get_running_loop().time() + QUIET_S
            log.warning("bus error", connection=self._name, error=text)

    def as_problem(self, url: str, nkey_seed: Path | None) -> SetupProblem | Unavailable:
        if self.denied.done():
            what = f"the key {nkey_seed}" if nkey_seed else "to talk without a key"
            return SetupProblem(
                f"the bus at {url} refused {what}",
                code="QD-SET-005",
                hint="use the key that `quarterdeck up` made in the data directory of that server",
            )
        return Unavailable(
            f"nothing answers at {url}: {self._last}",
            code="QD-BUS-001",
            hint="start it with `quarterdeck up`, or name another address with --url",
        )


async def disconnect(connection: Nats) -> None:
    """Send what is to be sent and close; a server that is gone is no reason to fail."""
    if connection.is_connected:
        with contextlib.suppress(NatsError, OSError, TimeoutError):
            await connection.flush(timeout=1)
    if not connection.is_connected:
        # What waits here can't be sent any more: nats-py would fail on it in the middle of its cleaning up.
        connection._pending, connection._pending_data_size = [], 0
    with contextlib.suppress(NatsError, OSError):
        await connection.close()


async def api(
    connection: Nats,
    subject: str,
    request: dict[str, Any] | None = None,
    *,
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> dict[str, Any]:
    """One request to `$JS.API.<subject>`. An error that the server answers is in the reply's `error`.

    Raises Unavailable when it does not answer.
    """
    try:
        body = json.dumps(request).encode() if request is not None else b""
        reply = await connection.request(f"$JS.API.{subject}", body, timeout=timeout_s)
    except NoRespondersError:
        raise Unavailable("the server runs without JetStream", code="QD-BUS-004") from None
    except (NatsError, TimeoutError) as error:
        raise Unavailable(f"JetStream did not answer {subject}: {error or type(error).__name__}") from None
    answer: dict[str, Any] = json.loads(reply.data)
    return answer

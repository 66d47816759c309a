"""One place that opens connections to NATS, and one that speaks JetStream's JSON API."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import nats
import structlog
from nats.aio.client import Client as Nats
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from quarterdeck.kernel.errors import SetupProblem, Unavailable

log = structlog.get_logger("quarterdeck.bus")
ANSWER_TIMEOUT_S = 5.0
RECONNECT_WAIT_S = 0.25


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

    async def report(error: Exception) -> None:
        log.warning("bus error", connection=name, error=str(error) or type(error).__name__)

    options: dict[str, Any] = {}
    if nkey_seed is not None:
        if not nkey_seed.is_file():
            raise SetupProblem(
                f"the bus key {nkey_seed} is not there", code="QD-SET-004", hint="`quarterdeck up` makes it"
            )
        options["nkeys_seed"] = str(nkey_seed)
    deadline = asyncio.get_running_loop().time() + patience_s
    while True:
        try:
            return await nats.connect(
                url,
                name=name,
                max_reconnect_attempts=-1,
                reconnect_time_wait=RECONNECT_WAIT_S,
                allow_reconnect=True,
                error_cb=on_error or report,
                connect_timeout=2,
                max_outstanding_pings=3,
                ping_interval=5,
                **options,
            )
        except (NatsError, OSError, TimeoutError) as error:
            if "authorization" in str(error).lower():
                raise SetupProblem(
                    f"the bus at {url} refused the key {nkey_seed}", code="QD-SET-005", hint=str(error)
                ) from None
            if asyncio.get_running_loop().time() > deadline:
                raise Unavailable(
                    f"nothing answers at {url}: {error or type(error).__name__}",
                    code="QD-BUS-001",
                    hint="start it with `quarterdeck up`, or name another address with --url",
                ) from None
            await asyncio.sleep(RECONNECT_WAIT_S)


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

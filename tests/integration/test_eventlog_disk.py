"""A full disk under the log, on a file system of the test's own."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCENARIO = """
import asyncio, json, os, sys
from pathlib import Path

from quarterdeck.bus import embedded
from quarterdeck.bus.connection import connect
from quarterdeck.bus.embedded import EmbeddedServer
from quarterdeck.bus.streams import declare
from quarterdeck.eventlog import jetstream
from quarterdeck.eventlog.commit import EventLog
from quarterdeck.eventlog.jetstream import JetStreamStore
from quarterdeck.kernel.errors import Unavailable
from quarterdeck.system import SystemIds
from quarterdeck.testkit import counter
from quarterdeck.testkit.counter import add

jetstream.ACK_TIMEOUT_S = 1.0
embedded.SPACE_TO_RESTART_BYTES = 4 << 20


def fill(path):
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError:
                return


async def main(disk):
    server = await EmbeddedServer.start(disk / "nats")
    keeping = asyncio.create_task(server.keep_writable(every_s=0.2))
    connection = await connect(server.url, name="full")
    await declare(connection)
    store = JetStreamStore(connection, "full", monitor_url=server.monitor_url)
    log = EventLog(counter, store, SystemIds())
    acknowledged, refused = [], []

    async def attempt(number, parts):
        try:
            answer = await log.handle(add(f"c{number}", parts=parts))
            acknowledged.append([f"c{number}", answer.total])
        except Unavailable as error:
            refused.append([error.code, error.hint, error.message])

    for number in range(5):
        await attempt(number, 3)
    fill(disk / "filler")
    number = 5
    while not any("write error" in message for _, _, message in refused) and number < 2000:
        await attempt(number, 1 + number % 3)
        number += 1
    full = len(refused)
    (disk / "filler").unlink()
    for again in range(100):
        before = len(acknowledged)
        await attempt(number + again, 2)
        if len(acknowledged) > before:
            break
        await asyncio.sleep(0.1)
    keeping.cancel()
    events = await store.load(jetstream.Family("counter", "acme"))
    print(json.dumps({
        "acknowledged": acknowledged,
        "refused": refused[:full],
        "went_on": len(acknowledged) > before,
        "written": [[e.meta.causation_id, e.event.total] for e in events],
    }))
    await connection.close()
    await server.stop()

asyncio.run(main(Path(sys.argv[1])))
"""


async def on_a_small_disk(directory: Path) -> dict[str, Any]:
    """Run the scenario where `directory` is a tmpfs of 24 MB that nobody else sees."""
    mount = 'mount -t tmpfs -o size=24m,mode=0700 tmpfs "$0" && exec "$@"'
    inside = ["unshare", "-Urm", "--propagation", "private", "sh", "-c", mount, str(directory)]
    try:
        able = subprocess.run([*inside, "true"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("needs `unshare` (util-linux) to mount a small file system")
    if able.returncode != 0:
        pytest.skip(f"this machine lets nobody mount a small file system: {able.stderr.strip()}")
    process = await asyncio.create_subprocess_exec(
        *inside,
        sys.executable,
        "-c",
        SCENARIO,
        str(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, errors = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, errors.decode()[-3_000:]
    told: dict[str, Any] = json.loads(out.decode().splitlines()[-1])
    return told


async def test_a_full_disk_is_named_and_survived(tmp_path: Path) -> None:
    """QD-LOG-003 says what to do; nothing acknowledged is lost; with space freed the same process goes on."""
    told = await on_a_small_disk(tmp_path)
    messages = [message for _, _, message in told["refused"]]
    assert any("batch" in message for message in messages), "a batch could not be staged"
    assert any("write error" in message for message in messages), "a stream stopped writing for good"
    for code, hint, _ in told["refused"]:
        assert code == "QD-LOG-003"
        assert "free space" in hint
    assert told["went_on"], "nothing was written after space was freed"
    last_of = {}
    for command, total in told["written"]:
        last_of[command] = total
    assert [total for _, total in told["written"]] == list(range(1, len(told["written"]) + 1))
    for command, total in told["acknowledged"]:
        assert last_of[command] == total

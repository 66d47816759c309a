"""The report desk: who may publish, what is stored once, what is refused."""

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from examples.analyst.desk import MAX_BODY_BYTES, ReportDesk
from tests.unit.examples.driver import ANALYST

TOKEN = "desk-token"
REPORT = {"title": "T", "markdown": "# T\n\ntext"}


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[ReportDesk]:
    async with ReportDesk(tmp_path / "reports", TOKEN) as running:
        yield running


async def post(
    desk: ReportDesk, body: Any = None, *, key: str = "", path: str = "/reports"
) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Idempotency-Key": key} if key else {})
    content = body if isinstance(body, bytes) else json.dumps(REPORT if body is None else body).encode()
    async with httpx.AsyncClient(base_url=f"http://{desk.address}") as client:
        return await client.post(path, content=content, headers=headers)


async def test_a_report_is_stored_and_can_be_read_again(desk: ReportDesk, tmp_path: Path) -> None:
    """The answer names where; the Markdown lies in a private directory and comes back with the token."""
    answer = await post(desk)
    assert answer.status_code == 201
    stored = tmp_path / "reports" / f"{answer.json()['id']}.md"
    assert stored.read_text() == REPORT["markdown"]
    assert stat.S_IMODE(stored.parent.stat().st_mode) == 0o700
    assert [(report.title, report.url) for report in desk.received] == [("T", answer.json()["url"])]
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
        assert (await client.get(answer.json()["url"])).text == REPORT["markdown"]
        assert (await client.get(f"http://{desk.address}/reports/../desk")).status_code == 404
    async with httpx.AsyncClient() as client:
        assert (await client.get(answer.json()["url"])).status_code == 401


WRONG = ["", "Bearer", "Bearer wrong", f"bearer {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer ü"]


@pytest.mark.parametrize("header", [None, *WRONG])
async def test_without_the_token_nothing_is_stored(
    header: str | None, desk: ReportDesk, tmp_path: Path
) -> None:
    """401 for every other Authorization header, byte for byte."""
    headers = {} if header is None else {"Authorization": header.encode()}
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{desk.address}/reports", json=REPORT, headers=headers)
    assert answer.status_code == 401
    assert desk.received == []
    assert list((tmp_path / "reports").iterdir()) == []


async def test_the_same_key_is_one_report_also_when_asked_at_once(desk: ReportDesk) -> None:
    """Eight requests with one key: eight equal answers, one report."""
    answers = await asyncio.gather(*(post(desk, key="k1") for _ in range(8)))
    assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
    assert (len(desk.received), desk.repeated) == (1, 7)


async def test_a_key_is_remembered_across_a_restart(tmp_path: Path) -> None:
    """A desk on the same directory gives the old answer and stores nothing new."""
    async with ReportDesk(tmp_path, TOKEN) as first:
        before = await post(first, key="k1")
    async with ReportDesk(tmp_path, TOKEN) as second:
        after = await post(second, key="k1")
        assert (after.text, second.received, second.repeated) == (before.text, [], 1)


async def test_a_key_stands_for_one_body_and_no_key_for_none(desk: ReportDesk) -> None:
    """The same key with another report is refused; without a key every request is a report."""
    await post(desk, key="k1")
    assert (await post(desk, REPORT | {"title": "other"}, key="k1")).status_code == 422
    assert (await post(desk, key="k2")).status_code == 201
    await post(desk)
    await post(desk)
    assert len(desk.received) == 4


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        ([], 400),
        ({"title": "T"}, 400),
        ({"title": " ", "markdown": "x"}, 400),
        ({"title": 1, "markdown": "x"}, 400),
        ({"title": "T" * 201, "markdown": "x"}, 400),
        (b"x" * (MAX_BODY_BYTES + 1), 413),
    ],
)
async def test_what_is_no_report_is_refused_with_a_reason(body: Any, status: int, desk: ReportDesk) -> None:
    """A status and words, and nothing stored."""
    answer = await post(desk, body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert desk.received == []


async def test_other_paths_and_chunked_bodies_are_refused(desk: ReportDesk) -> None:
    """404 and 411."""

    async def pieces() -> AsyncIterator[bytes]:
        yield b"{}"

    assert (await post(desk, path="/elsewhere")).status_code == 404
    async with httpx.AsyncClient() as client:
        answer = await client.post(f"http://{desk.address}/reports", content=pieces())
    assert answer.status_code == 411


async def test_a_store_that_is_full_is_said(desk: ReportDesk, tmp_path: Path) -> None:
    """507, and the next try with the same key succeeds once there is room."""
    (tmp_path / "reports").rmdir()
    assert (await post(desk, key="k1")).status_code == 507
    (tmp_path / "reports").mkdir()
    assert (await post(desk, key="k1")).status_code == 201
    assert len(desk.received) == 1


async def test_a_taken_port_and_an_empty_token_are_errors(desk: ReportDesk, tmp_path: Path) -> None:
    """Neither starts a desk."""
    with pytest.raises(OSError, match="in use"):
        await ReportDesk(tmp_path, TOKEN, desk.port).start()
    with pytest.raises(ValueError, match="token"):
        ReportDesk(tmp_path, "")


async def test_after_the_stop_nothing_listens(tmp_path: Path) -> None:
    """The port is free again, and a second stop does nothing."""
    desk = ReportDesk(tmp_path, TOKEN)
    await desk.start()
    address = desk.address
    await desk.stop()
    await desk.stop()
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(f"http://{address}/reports/x")


async def test_the_program_takes_its_token_from_a_pipe(tmp_path: Path) -> None:
    """Started alone: the token is on standard input, in neither arguments nor environment, and works."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, ANALYST / "desk.py", "--dir", tmp_path / "reports",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(f"{TOKEN}\n".encode())
        await process.stdin.drain()
        async with asyncio.timeout(20):
            url = (await process.stdout.readline()).decode().split()[-1]
        proc = Path(f"/proc/{process.pid}")
        assert TOKEN.encode() not in (proc / "cmdline").read_bytes() + (proc / "environ").read_bytes()
        async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as client:
            assert (await client.post(url, json=REPORT)).status_code == 201
    finally:
        process.terminate()
        await process.wait()
    assert len(list((tmp_path / "reports").glob("*.md"))) == 1

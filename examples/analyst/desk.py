"""The report desk: a small HTTP service outside, to which reports are published. It knows nothing of agents.

    POST /reports        {"title", "markdown"} with `Authorization: Bearer <token>`; answers 201 {"id", "url"}
    GET  /reports/<id>   the Markdown of a stored report, with the same token

`Idempotency-Key` is honoured: the same key with the same body gives the same answer and is stored once, also
after a restart; the same key with another body is refused (422). Else: 400, 401, 404, 408, 411, 413, 507.
after a restart; the same key with another body is refused (422). Else 400, 401, 404, 408, 411, 413, 507.
never through an argument or the environment, which other processes could read.
"""

import argparse
import asyncio
import contextlib
import getpass
import hashlib
import hmac
import json
import os
import re
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "127.0.0.1"
MAX_BODY_BYTES = 1_000_000
MAX_TITLE_CHARS = 200
READ_LIMIT_S = 10
Answer = tuple[HTTPStatus, str, bytes]
REPORT_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Report:
    """What was stored. `body_sha256` is of the request's bytes; `idempotency_key` is empty when none came."""

    id: str
    title: str
    url: str
    body_sha256: str
    idempotency_key: str


class Refusal(Exception):
    """An HTTP answer other than success, with words for whoever reads it."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class ReportDesk:
    """Serves from a thread of its own. Raises OSError at `start` when the port is taken.

    `received` lists the reports stored since the start, in order; `repeated` counts the requests that were
    answered from what was stored before.
    """

    def __init__(self, directory: Path, token: str, port: int = 0) -> None:
        if not token:
            raise ValueError("the desk needs a token that is not empty")
        self._directory, self._wanted_port = directory, port
        self._expected = f"Bearer {token}".encode()
        self._lock = threading.Lock()
        self._server: ThreadingHTTPServer | None = None
        self.received: list[Report] = []
        self.repeated = 0

    @property
    def port(self) -> int:
        assert self._server is not None, "the desk is not started"
        return int(self._server.server_address[1])

    @property
    def address(self) -> str:
        """`host:port`, as an allowlist names it."""
        return f"{HOST}:{self.port}"

    async def start(self) -> None:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        handler = type("Handler", (_Handler,), {"desk": self})
        self._server = ThreadingHTTPServer((HOST, self._wanted_port), handler)
        # Polls often, so that stopping does not take half a second.
        threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="report-desk", daemon=True
        ).start()

    async def stop(self) -> None:
        """Stops listening; stored reports stay. A second stop does nothing."""
        server, self._server = self._server, None
        if server is not None:
            await asyncio.to_thread(server.shutdown)
            server.server_close()

    async def __aenter__(self) -> "ReportDesk":
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def admits(self, authorization: str) -> bool:
        # Latin-1 is how the server decoded the header: this gives the bytes back as they came.
        return hmac.compare_digest(authorization.encode("latin-1"), self._expected)

    def accept(self, body: bytes, key: str) -> Report:
        """Store a report, or find the one that the key stored before. Raises Refusal."""
        title, markdown = _read_report(body)
        digest = hashlib.sha256(body).hexdigest()
        # The id derives from the key: a repeated request finds its report by name, also after a restart.
        report_id = hashlib.sha256(key.encode()).hexdigest()[:32] if key else uuid.uuid4().hex
        with self._lock:
            record = self._directory / f"{report_id}.json"
            if record.exists():
                stored = Report(**json.loads(record.read_text(encoding="utf-8")))
                if stored.body_sha256 != digest:
                    raise Refusal(
                        HTTPStatus.UNPROCESSABLE_ENTITY, "this Idempotency-Key came with another report"
                    )
                self.repeated += 1
                return stored
            report = Report(report_id, title, f"http://{self.address}/reports/{report_id}", digest, key)
            try:
                _write_whole(self._directory / f"{report_id}.md", markdown)
                _write_whole(record, json.dumps(asdict(report), indent=2))
            except OSError as error:
                raise Refusal(
                    HTTPStatus.INSUFFICIENT_STORAGE, f"the report could not be stored: {error}"
                ) from error
            self.received.append(report)
            return report

    def markdown_of(self, report_id: str) -> str:
        path = self._directory / f"{report_id}.md"
        if not REPORT_ID.fullmatch(report_id) or not path.is_file():
            raise Refusal(HTTPStatus.NOT_FOUND, "there is no such report")
        return path.read_text(encoding="utf-8")


class _Handler(BaseHTTPRequestHandler):
    """One request a connection (HTTP/1.0), so that nothing is answered after the desk stopped."""

    desk: ReportDesk
    timeout = READ_LIMIT_S
    server_version, sys_version = "ReportDesk", ""

    def do_POST(self) -> None:
        self._answer(self._post)

    def do_GET(self) -> None:
        self._answer(self._get)

    def _post(self) -> Answer:
        body = self._body()
        self._authorize()
        if self.path != "/reports":
            raise Refusal(HTTPStatus.NOT_FOUND, "reports are posted to /reports")
        report = self.desk.accept(body, self.headers.get("Idempotency-Key", "").strip())
        return (
            HTTPStatus.CREATED,
            "application/json",
            json.dumps({"id": report.id, "url": report.url}).encode(),
        )

    def _get(self) -> Answer:
        self._authorize()
        text = self.desk.markdown_of(self.path.removeprefix("/reports/"))
        return HTTPStatus.OK, "text/markdown; charset=utf-8", text.encode()

    def _authorize(self) -> None:
        if not self.desk.admits(self.headers.get("Authorization", "")):
            raise Refusal(HTTPStatus.UNAUTHORIZED, "a valid bearer token is needed")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"[0-9]{1,12}", length):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED, "the request needs a Content-Length")
        if int(length) > MAX_BODY_BYTES:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"at most {MAX_BODY_BYTES:,} bytes are taken")
        try:
            return self.rfile.read(int(length))
        except TimeoutError as error:
            raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "the body did not come") from error

    def _answer(self, handle: Callable[[], Answer]) -> None:
        try:
            status, kind, content = handle()
        except Refusal as refusal:
            status, kind = refusal.status, "application/json"
            content = json.dumps({"error": str(refusal)}).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(content)
        if status in (HTTPStatus.LENGTH_REQUIRED, HTTPStatus.REQUEST_ENTITY_TOO_LARGE):
            self._linger()

    def _linger(self) -> None:
        """Closing with an unread body resets the connection, and its sender would not see the answer."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1)
        left = 4 * MAX_BODY_BYTES
        with contextlib.suppress(OSError):  # the sender went away or says no more: nothing is lost
            while left > 0 and (piece := self.connection.recv(65_536)):
                left -= len(piece)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent: in-process it would write into somebody's terminal."""


def _read_report(body: bytes) -> tuple[str, str]:
    try:
        report = json.loads(body)
    except ValueError as error:
        raise Refusal(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error
    title, markdown = (report.get("title"), report.get("markdown")) if isinstance(report, dict) else ("", "")
    if (
        not isinstance(title, str)
        or not isinstance(markdown, str)
        or not title.strip()
        or not markdown.strip()
    ):
        raise Refusal(HTTPStatus.BAD_REQUEST, "a report has a title and markdown, both text and not empty")
    if len(title) > MAX_TITLE_CHARS:
        raise Refusal(HTTPStatus.BAD_REQUEST, f"a title has at most {MAX_TITLE_CHARS} characters")
    return title, markdown


def _write_whole(path: Path, text: str) -> None:
    """All of it or nothing: a reader, or a restart, never sees half a file."""
    draft = path.with_suffix(path.suffix + ".draft")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _read_token(descriptor: int) -> str:
    if os.isatty(descriptor):
        return getpass.getpass("Token of the desk: ")
    with os.fdopen(descriptor, encoding="utf-8", closefd=False) as file:
        return file.readline().strip()


async def _serve(desk: ReportDesk) -> None:
    async with desk:
        print(f"report desk on http://{desk.address}/reports", flush=True)
        await asyncio.Event().wait()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="A service that takes reports. Its token is read from a pipe."
    )
    parser.add_argument("--dir", type=Path, required=True, help="where reports are stored")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--token-fd", type=int, default=0, help="the descriptor that the token is read from")
    options = parser.parse_args()
    token = _read_token(options.token_fd)
    if not token:
        parser.error("the token is empty; write it to standard input, followed by a line feed")
    try:
        asyncio.run(_serve(ReportDesk(options.dir, token, options.port)))
    except OSError as error:
        parser.error(f"the desk can't start: {error}")
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())

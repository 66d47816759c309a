"""The tool endpoint: MCP over streamable HTTP, stateless. A call that waits for a person is a stream that the
server keeps alive with pings, so that no time-out between drops it."""

import asyncio
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from quarterdeck.kernel.errors import QuarterdeckError
from services.gateway.adapters.http.bodies import plain_error
from services.gateway.adapters.http.identity import Admission
from services.gateway.domain.refusals import EdgeError
from services.gateway.ports import Caller, ToolCalls

KEY = "quarterdeck.caller"


class McpEndpoint:
    def __init__(self, tools: ToolCalls, admit: Admission, *, version: str, max_body_bytes: int) -> None:
        self._tools = tools
        self._admit = admit
        server: Server[Any] = Server(
            "quarterdeck", version=version, on_list_tools=self._list, on_call_tool=self._call
        )
        self._sessions = StreamableHTTPSessionManager(
            server, stateless=True, max_request_body_size=max_body_bytes
        )
        self._living: asyncio.Task[None] | None = None
        self._ending = asyncio.Event()

    async def start(self) -> None:
        ready = asyncio.Event()
        self._living = asyncio.create_task(self._live(ready))
        await ready.wait()

    async def stop(self) -> None:
        self._ending.set()
        if self._living is not None:
            await self._living

    async def _live(self, ready: asyncio.Event) -> None:
        """Its task group must be entered and left by one task."""
        async with self._sessions.run():
            ready.set()
            await self._ending.wait()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            if request.method != "POST":
                raise EdgeError(
                    "this endpoint keeps no sessions: there is nothing to listen to or to end",
                    code="QD-GTW-024",
                    status=405,
                    reason="method",
                    hint="POST JSON-RPC messages to it",
                )
            caller = await self._admit(request)
        except QuarterdeckError as error:
            response = plain_error(error)
            response.headers["allow"] = "POST"
            await response(scope, receive, send)
            return
        await self._sessions.handle_request({**scope, KEY: caller}, receive, send)

    async def _list(
        self, context: ServerRequestContext[Any], params: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(
            tools=[
                types.Tool(
                    name=tool.name,
                    description=tool.description,
                    input_schema={"type": "object", **tool.input_schema},
                )
                for tool in _caller(context).run.tools
            ]
        )

    async def _call(
        self, context: ServerRequestContext[Any], params: types.CallToolRequestParams
    ) -> types.CallToolResult:
        result = await self._tools.call(_caller(context), params.name, dict(params.arguments or {}))
        text = types.TextContent(type="text", text=result.text)
        return types.CallToolResult(content=[text], is_error=result.is_error)


def _caller(context: ServerRequestContext[Any]) -> Caller:
    assert context.request is not None
    caller = context.request.scope[KEY]
    assert isinstance(caller, Caller)
    return caller

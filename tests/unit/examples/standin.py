"""What an agent sees of the world, over real HTTP: a model that plays turns, and MCP with one tool."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tests.unit.examples.driver import filled


@dataclass
class World:
    """Set what happens before the agent runs; look at what it did afterwards."""

    transcript: dict[str, Any]
    inputs: Path
    denies: bool = False
    budget_llm_calls: int = 99
    cut_off: Literal["", "ended", "torn"] = ""
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    published: list[dict[str, str]] = field(default_factory=list)
    denied: int = 0

    @property
    def tool_results(self) -> list[str]:
        """What the agent told the model last of all its tools."""
        return [message["content"] for message in self.asked[-1]["messages"] if message["role"] == "tool"]

    def publish(self, title: str, markdown: str) -> str:
        if self.denies:
            self.denied += 1
            raise ToolError("declined by user:ada: the figures are not final")
        self.published.append({"title": title, "markdown": markdown})
        return json.dumps({"id": "1", "url": "http://desk.example/reports/1"})

    async def answer(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked)
        if len(self.asked) > self.budget_llm_calls:
            error = {
                "message": "QD-BUD-001: mission/x has 0.00 USD left" + " of its budget" * 9,
                "type": "budget",
                "code": "QD-BUD-001",
            }
            return JSONResponse({"error": error}, status_code=402)
        turn = self._turn(asked["messages"])
        return StreamingResponse(_chunks(turn, self.cut_off), media_type="text/event-stream")

    def _turn(self, messages: list[dict[str, Any]]) -> dict[str, Any]:
        if self.denied:
            chosen: dict[str, Any] = self.transcript["after_denial"][0]
        else:
            chosen = self.transcript["turns"][sum(message["role"] == "assistant" for message in messages)]
        results = [message["content"] for message in messages if message["role"] == "tool"]
        calls = []
        for call in chosen["tool_calls"]:
            arguments = call["arguments"]
            raw = (
                arguments
                if isinstance(arguments, str)
                else json.dumps(filled(arguments, results, self.inputs))
            )
            calls.append({"name": call["name"], "arguments": raw})
        return {"text": chosen["text"], "tool_calls": calls}


async def _chunks(turn: dict[str, Any], cut_off: str) -> AsyncIterator[str]:
    """One answer as Chat Completions stream it: arguments come in two pieces."""
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": turn["text"]}]
    for index, call in enumerate(turn["tool_calls"]):
        half = len(call["arguments"]) // 2
        head = {"name": call["name"], "arguments": call["arguments"][:half]}
        deltas.append(
            {"tool_calls": [{"index": index, "id": f"c{index}", "type": "function", "function": head}]}
        )
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": call["arguments"][half:]}}]})
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if cut_off:
        choices = choices[:1]
    else:
        reason = "tool_calls" if turn["tool_calls"] else "stop"
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    for choice in choices:
        chunk = {
            "id": "x",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": "m",
            "choices": [choice],
        }
        yield f"data: {json.dumps(chunk)}\n\n"
    if cut_off == "torn":
        raise ConnectionResetError("the model's server is gone")
    if not cut_off:
        yield "data: [DONE]\n\n"


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[World]:
    """The world on a loopback port for as long as the block lasts."""
    server = MCPServer("standin", log_level="ERROR")
    server.add_tool(world.publish, name="publish_report", description="Publish a report.")
    server.custom_route("/v1/chat/completions", methods=["POST"])(world.answer)
    config = uvicorn.Config(server.streamable_http_app(), log_config=None, ws="none", lifespan="on")
    listener = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(config)
    task = asyncio.create_task(running.serve(sockets=[listener]))
    world.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    try:
        yield world
    finally:
        running.should_exit = True
        await task
        listener.close()

"""Small rules of the edge: tokens, URLs, arguments, identities."""

import base64
import json
from typing import Any

import httpx
import pytest
from starlette.requests import Request

from quarterdeck.contracts.mission import RunContext, Tool
from quarterdeck.kernel.digest import digest
from quarterdeck.kernel.errors import ContractViolation, SetupProblem
from services.gateway.adapters.endpoint import HttpEndpoint
from services.gateway.adapters.http.identity import token_of
from services.gateway.adapters.providers.http import http_providers
from services.gateway.domain.dialects import OpenAiChat
from services.gateway.domain.refusals import EdgeError
from services.gateway.handlers.actions import Action, action_id, checked_arguments
from services.gateway.handlers.doorman import workspace_of
from services.gateway.handlers.steps import question_of
from services.gateway.ports import Asked, Caller

RUN = RunContext(
    workspace="acme",
    crew="ops",
    agent="triage",
    mission_id="m1",
    run_id="r1",
    task="main",
    attempt=1,
    model="openai:m",
    tools=(),
    expires_at_ms=1,
)


def tool(**changed: Any) -> Tool:
    fields: dict[str, Any] = {
        "name": "publish",
        "description": "",
        "method": "POST",
        "url": "https://example.com/x",
        "input_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
    }
    return Tool(**(fields | changed))


def request(**headers: str) -> Request:
    raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": raw})


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ({"authorization": "Bearer qdm1.a.b"}, "qdm1.a.b"),
        ({"authorization": "bearer  qdm1.a.b"}, "qdm1.a.b"),
        ({"x_api_key": "qdm1.a.b"}, "qdm1.a.b"),
        ({"authorization": "Bearer sk-x", "x_api_key": "qdm1.a.b"}, "qdm1.a.b"),
        ({"authorization": "Bearer sk-x"}, "sk-x"),
    ],
)
def test_a_token_is_found_where_clients_put_it(headers: dict[str, str], token: str) -> None:
    """Either header, either case; of two the one that can be a mission token."""
    assert token_of(request(**headers)) == token


@pytest.mark.parametrize("headers", [{}, {"authorization": "Basic abc"}, {"x_api_key": ""}])
def test_no_token_is_401(headers: dict[str, str]) -> None:
    """QD-GTW-001."""
    with pytest.raises(EdgeError, match="QD-GTW-001"):
        token_of(request(**headers))


def encoded(payload: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(payload).encode()).rstrip(b"=").decode()


def test_a_token_says_whom_to_ask() -> None:
    """The workspace is read unverified, for routing."""
    assert workspace_of(f"qdm1.{encoded({'workspace': 'acme'})}.sig") == "acme"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "qdm1",
        "qdm2." + encoded({"workspace": "acme"}) + ".sig",
        "qdm1." + encoded({"workspace": "acme.*.>"}) + ".sig",
        "qdm1." + encoded({"workspace": 7}) + ".sig",
        "qdm1." + encoded([]) + ".sig",
        "qdm1.!!!.sig",
        "qdm1." + "a" * 5_000 + ".sig",
    ],
)
def test_a_hostile_token_reaches_no_subject(token: str) -> None:
    """Nothing that could stand for another subject is asked of anybody."""
    with pytest.raises(EdgeError, match="QD-GTW-001"):
        workspace_of(token)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://example.com/x", "example.com:443"),
        ("https://example.com:8443/x", "example.com:8443"),
        ("http://127.0.0.1:9000/x", "127.0.0.1:9000"),
        ("http://localhost/x", "localhost:80"),
        ("http://[::1]:9/x", "::1:9"),
    ],
)
def test_where_a_tool_may_go(url: str, target: str) -> None:
    """https anywhere, http to loopback."""
    assert HttpEndpoint(httpx.AsyncClient()).target(tool(url=url)) == target


@pytest.mark.parametrize(
    "url", ["http://example.com/", "http://127.0.0.1.evil.example/", "ftp://127.0.0.1/", "/x", "https:///x"]
)
def test_where_a_tool_may_not_go(url: str) -> None:
    """QD-GTW-015."""
    with pytest.raises(EdgeError, match="QD-GTW-015"):
        HttpEndpoint(httpx.AsyncClient()).target(tool(url=url))


@pytest.mark.parametrize("url", ["", "ftp://x/v1", "api.openai.com/v1"])
def test_a_base_url_must_be_one(url: str) -> None:
    """QD-SET-010, naming the setting."""
    with pytest.raises(SetupProblem, match="PROVIDER_OPENAI_URL"):
        http_providers(
            httpx.AsyncClient(), openai=url, anthropic="https://x", ollama="http://x", compatible=None
        )


def test_arguments_are_checked_and_canonical() -> None:
    """The digest of what is stored is the digest that the approval is bound to."""
    content = checked_arguments(tool(), {"z": "ü", "n": 1.0})
    assert content == '{"n":1,"z":"ü"}'.encode()
    for wrong in ({"n": "x"}, {"big": 2**60}):
        with pytest.raises(ContractViolation):
            checked_arguments(tool(), wrong)


@pytest.mark.parametrize(
    "schema",
    [{"type": 7}, {"$ref": "https://example.com/schema.json"}, {"properties": {"n": {"$ref": "#/no"}}}],
)
def test_a_schema_that_can_not_be_used_refuses(schema: dict[str, Any]) -> None:
    """And nothing is fetched from the network for it."""
    with pytest.raises(ContractViolation, match="QD-GTW-014"):
        checked_arguments(tool(input_schema=schema), {"n": 1})


def test_arguments_have_a_size() -> None:
    """More than an ask can carry is refused before it is sent."""
    with pytest.raises(ContractViolation, match="bytes"):
        checked_arguments(tool(), {"text": "x" * (600 << 10)})


def test_an_action_is_the_same_in_every_attempt() -> None:
    """Mission, task, tool, arguments and occurrence make its id; the run does not."""

    def made(**changed: Any) -> str:
        caller = Caller(
            token="t", run=RunContext(**({f: getattr(RUN, f) for f in RUN.__struct_fields__} | changed))
        )
        return Action(
            caller=caller,
            tool=tool(),
            target="example.com:443",
            arguments={},
            arguments_sha256=digest({}),
            occurrence=0,
        ).id

    assert made() == made(run_id="r2", attempt=2) == action_id("m1", "main", "publish", digest({}), 0)
    assert made() != made(task="other")
    assert len(made()) == 32


def test_how_an_answer_is_delivered_is_no_part_of_the_question() -> None:
    """Key order, streaming and the agent's own model name don't matter; everything else does."""
    dialect = OpenAiChat()

    def question(**body: Any) -> str:
        messages = [{"role": "user", "content": "a"}]
        return question_of(Asked(dialect=dialect, body={"messages": messages, **body}, headers={}), "m")[1]

    assert question(a=1, b=2) == question(b=2, a=1, stream=True, model="x", stream_options={})
    assert question(a=1) != question(a=2)
    assert question(seed=2**70) != question(seed=2**70 + 1)

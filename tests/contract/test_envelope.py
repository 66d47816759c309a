"""`proto/envelope.md` and the headers on the wire, held against each other and against CloudEvents itself."""

import re
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import msgspec
import pytest
import yaml
from cloudevents.core.bindings.http import HTTPMessage, from_http_event

from quarterdeck.bus.wire import Answer, ErrorBody
from quarterdeck.contracts.envelope import Meta, as_headers, read_meta, request_meta
from quarterdeck.kernel.errors import Rejected
from quarterdeck.kernel.time import from_rfc3339
from quarterdeck.testkit.contract_files import PROTO

TEXT = (PROTO / "envelope.md").read_text()
SAMPLES = [msgspec.json.decode(file.read_bytes()) for file in sorted((PROTO / "samples").glob("*.json"))]
by_type = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample["headers"]["ce-type"])
DOCUMENT: Any = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())


@by_type
def test_the_cloudevents_sdk_reads_our_events(sample: dict[str, Any]) -> None:
    """The SDK reads headers and body as a binary-mode event, with every attribute and the same data."""
    stamps = sample["headers"]
    event = from_http_event(HTTPMessage(headers=stamps, body=msgspec.json.encode(sample["body"])))
    assert event.get_specversion() == "1.0"
    assert event.get_id() == stamps["ce-id"]
    assert event.get_type() == stamps["ce-type"]
    assert event.get_source() == stamps["ce-source"]
    assert event.get_subject() == stamps["ce-subject"]
    assert event.get_dataschema() == stamps["ce-dataschema"]
    moment = event.get_time()
    assert moment is not None and int(moment.timestamp() * 1000) == from_rfc3339(stamps["ce-time"])
    for name in ("correlationid", "causationid", "actor"):
        assert event.get_extension(name) == stamps.get(f"ce-{name}")
    assert event.get_data() == sample["body"]


def test_the_sdk_decodes_a_name_that_is_not_ascii() -> None:
    """What we percent-encode in a header, the SDK and we decode to the same text."""
    actor = 'user:zoë "50%"\r\nce-type: forged'
    stamps = as_headers({**SAMPLES[0]["headers"], "ce-actor": actor})
    assert from_http_event(HTTPMessage(headers=stamps, body=b"{}")).get_extension("actor") == actor
    assert read_meta(stamps).actor == actor


def schema_of(trait: str) -> dict[str, Any]:
    headers: dict[str, Any] = DOCUMENT["components"]["messageTraits"][trait]["headers"]
    return headers


def test_headers_fit_the_published_schema() -> None:
    """An event's headers are those of the AsyncAPI document, all that it requires and none besides."""
    published = jsonschema.Draft202012Validator({**schema_of("event"), "additionalProperties": False})
    for sample in SAMPLES:
        published.validate(sample["headers"])


def test_the_text_names_every_header() -> None:
    """The table of headers has all of an event's and a request's, and no others."""
    named = set(re.findall(r"^\| `([^`]+)`", TEXT, re.MULTILINE))
    published = {*schema_of("event")["properties"], *schema_of("request")["properties"]}
    assert named == published - {"Nats-Msg-Id"}
    assert "`Nats-Msg-Id`" in TEXT


def test_the_text_shows_answers_as_they_are() -> None:
    """The three answers in the text decode as answers, each with exactly the members that the code writes."""
    block = TEXT.partition("```json\n")[2].partition("```")[0]
    reply, refusal, error = (msgspec.json.decode(line) for line in block.splitlines())
    assert [list(answer) for answer in (reply, refusal, error)] == [["reply"], ["refusal"], ["error"]]
    assert set(refusal["refusal"]) == set(Rejected.__struct_fields__)
    assert set(error["error"]) == set(ErrorBody.__struct_fields__)
    for answer in (reply, refusal, error):
        msgspec.json.decode(msgspec.json.encode(answer), type=Answer)


@pytest.mark.parametrize(
    ("present", "id"),
    [
        ({"ce-id": "mine", "Nats-Msg-Id": "other"}, "mine"),
        ({"Nats-Msg-Id": "other"}, "other"),
        ({}, "commands-9"),
    ],
    ids=["ce-id", "Nats-Msg-Id", "neither"],
)
def test_a_requests_id_is_found_in_the_order_told(present: dict[str, str], id: str) -> None:
    """ce-id, else Nats-Msg-Id, else the place in the stream; an unstamped request is by user:unknown."""
    meta = request_meta(present, otherwise_id="commands-9", at_ms=5)
    assert meta == Meta(id=id, at_ms=5, actor="user:unknown")

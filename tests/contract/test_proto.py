"""What `proto/` promises to other languages is what the code does, today and for everything ever written."""

import json
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, cast

import jsonschema  # type: ignore[import-untyped]  # it ships no types
import msgspec
import pytest
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from quarterdeck.bus.streams import STREAMS
from quarterdeck.bus.wire import encode_answer
from quarterdeck.contracts.budget import LimitReply, Reserved
from quarterdeck.contracts.envelope import body, headers, read_event
from quarterdeck.contracts.registry import Event, EventType
from quarterdeck.kernel.errors import Rejected, Unavailable
from quarterdeck.testkit.contract_asyncapi import STAYS_INSIDE, STREAM_OF
from quarterdeck.testkit.contract_files import PROTO, drift, events, main, requests, sample_problem

SAMPLES = sorted((PROTO / "samples").glob("*.json"))
RESERVED = "quarterdeck.budget.reserved.v1"
each_sample = pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.stem)


def read(file: Path) -> Any:
    return msgspec.json.decode(file.read_bytes())


@cache
def published(name: str) -> jsonschema.Draft202012Validator:
    content = read(PROTO / "schemas" / f"{name}.json")
    jsonschema.Draft202012Validator.check_schema(content)
    return jsonschema.Draft202012Validator(content)


def valid(content: Any, name: str) -> None:
    published(name).validate(content)


@pytest.fixture
def proto(tmp_path: Path) -> Path:
    """A copy of proto/ to spoil."""
    return shutil.copytree(PROTO, tmp_path / "proto")


# -- the files are what the code says ---------------------------------------------------------------------


def test_nothing_has_drifted() -> None:
    """Schemas, document and samples in proto/ are those of today's contracts."""
    assert drift(PROTO) == []


def test_every_event_has_a_sample() -> None:
    """There is one sample for each version of each event, and none for anything else."""
    assert [file.stem for file in SAMPLES] == sorted(events())


def test_every_message_has_a_schema() -> None:
    """Each event, request and reply has a schema under its own URN, with a title and a description."""
    names = {"answer", *events(), *requests(), *(f"{name}.reply" for name in requests())}
    assert {file.stem for file in (PROTO / "schemas").iterdir()} == names
    for name in names:
        content = read(PROTO / "schemas" / f"{name}.json")
        assert content["$id"] == f"urn:quarterdeck:schema:{name}"
        assert content["title"] and content["description"]


def test_a_message_of_a_test_is_no_contract() -> None:
    """What a module outside the contracts registers is published nowhere."""
    from quarterdeck.testkit import counter

    assert counter.Added not in {kind.struct for kind in events().values()}


# -- samples ----------------------------------------------------------------------------------------------


@each_sample
def test_a_sample_is_read_and_written_as_it_was(file: Path) -> None:
    """Today's code reads the sample by its headers, and writes the same subject, headers and body."""
    sample = read(file)
    content = msgspec.json.encode(sample["body"])
    recorded = read_event(7, sample["subject"], sample["headers"], content)
    assert body(recorded.event) == content
    assert headers(recorded) == sample["headers"]
    assert recorded.type.subject(recorded.workspace, recorded.event) == sample["subject"]
    assert recorded.type.type == file.stem


@each_sample
def test_a_sample_fits_its_published_schema(file: Path) -> None:
    """The body validates, and no longer does when a member that the schema requires is left out."""
    content = read(file)["body"]
    valid(content, file.stem)
    for name in published(file.stem).schema["required"]:
        assert not published(file.stem).is_valid({k: v for k, v in content.items() if k != name}), name


def doctored(change: dict[str, Any]) -> EventType:
    """budget.reserved v1 with some of its fields another type, or gone (None)."""
    fields = msgspec.structs.fields(Reserved)
    types = {field.name: field.type for field in fields} | change
    struct = msgspec.defstruct(
        "Doctored",
        [(name, kind) for name, kind in types.items() if kind is not None],
        bases=(Event,),
        frozen=True,
        kw_only=True,
    )
    kind = events()[RESERVED]
    return EventType(kind.service, kind.name, kind.version, cast(type[Event], struct), kind.aggregate)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, ""),
        ({"expires_at_ms": None}, "/expires_at_ms is gone"),
        ({"crew": None, "team": str}, "missing required field `team`"),
        ({"amount_microusd": str}, "Expected `str`"),
        ({"amount_microusd": float}, "/amount_microusd was 12500, is 12500.0"),
        ({"note": str | None}, "missing required field `note`"),
    ],
    ids=["same", "removed", "renamed", "retyped", "widened", "added"],
)
def test_a_changed_event_no_longer_stands_by_its_sample(change: dict[str, Any], problem: str) -> None:
    """Whoever removes, renames, retypes or adds a field of a shipped version is told by its sample."""
    found = sample_problem(read(PROTO / "samples" / f"{RESERVED}.json"), doctored(change))
    assert problem in found if problem else found == ""


# -- the check sees what it is for ------------------------------------------------------------------------


def spoil(file: Path, **changes: Any) -> None:
    content = read(file)
    for name, field in changes.items():
        content["properties"].pop(name)
        content["properties"].update(field or {})
    file.write_text(json.dumps(content, ensure_ascii=False))


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"crew": None}, "/properties/crew is new"),
        ({"crew": {"team": {"type": "string"}}}, "/properties/team is gone"),
        ({"crew": {"crew": {"type": "integer"}}}, '/properties/crew/type was "integer", is "string"'),
    ],
    ids=["removed", "renamed", "retyped"],
)
def test_a_schema_that_differs_is_named(proto: Path, changes: dict[str, Any], named: str) -> None:
    """--check says which file differs from the code and where."""
    spoil(proto / "schemas" / f"{RESERVED}.json", **changes)
    (line,) = drift(proto)
    assert line.startswith(f"schemas/{RESERVED}.json: ") and named in line


def test_missing_and_stray_files_are_named(proto: Path) -> None:
    """--check names a schema, a document and a sample that are missing, and those that nothing has."""
    (proto / "asyncapi.yaml").unlink()
    (proto / "schemas" / f"{RESERVED}.json").unlink()
    (proto / "samples" / f"{RESERVED}.json").rename(proto / "samples" / "quarterdeck.budget.gone.v1.json")
    (proto / "schemas" / "quarterdeck.budget.gone.v1.json").write_text("{}")
    assert sorted(drift(proto)) == [
        "asyncapi.yaml: is missing",
        "samples/quarterdeck.budget.gone.v1.json: no event has this type any more",
        f"samples/{RESERVED}.json: is missing",
        "schemas/quarterdeck.budget.gone.v1.json: no message has this type",
        f"schemas/{RESERVED}.json: is missing",
    ]


def test_writing_mends_the_files_and_leaves_samples_alone(
    proto: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--write brings schemas and document back; a sample that is there stays as it is, right or wrong."""
    (proto / "asyncapi.yaml").write_text("asyncapi: 2.0.0\n")
    (proto / "schemas" / f"{RESERVED}.json").unlink()
    sample = proto / "samples" / f"{RESERVED}.json"
    broken = sample.read_text().replace('"crew"', '"team"')
    sample.write_text(broken)
    assert main(["--write", "--proto", str(proto)]) == 1
    assert capsys.readouterr().err.startswith(f"samples/{RESERVED}.json: is no longer read")
    assert sample.read_text() == broken
    shutil.copy(PROTO / "samples" / sample.name, sample)
    assert main(["--check", "--proto", str(proto)]) == 0


# -- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "outcome",
    [
        LimitReply(scope="workspace", limit_microusd=None, changed=True),
        Rejected(code="QD-BUD-002", reason="over_limit", message="no", details={"scope": "workspace"}),
        Unavailable("not now", retry_after_ms=250),
    ],
    ids=["reply", "refusal", "error"],
)
def test_an_answer_fits_its_published_schema(outcome: Any) -> None:
    """An answer on the wire has exactly one of reply, refusal and error, and fits; with two it doesn't."""
    answer = msgspec.json.decode(encode_answer(outcome))
    valid(answer, "answer")
    if "reply" in answer:
        valid(answer["reply"], "ask.budget.set-limit.reply")
    with pytest.raises(jsonschema.ValidationError):
        both = {
            "refusal": {"code": "a", "reason": "b", "message": "c"},
            "error": {"code": "a", "message": "b"},
        }
        valid(both, "answer")


# -- AsyncAPI ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((PROTO / "asyncapi.yaml").read_text())
    return parsed


def references(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        if isinstance(content.get("$ref"), str):
            yield content["$ref"]
        content = list(content.values())
    if isinstance(content, list):
        for inner in content:
            yield from references(inner)


def test_every_reference_resolves(document: dict[str, Any]) -> None:
    """Each $ref of the document, and each of the schemas that it leads to, is found."""
    resource = DRAFT202012.create_resource
    found: Registry[Any] = Registry().with_resource("file:///asyncapi.yaml", resource(document))
    for file in (PROTO / "schemas").iterdir():
        found = found.with_resource(f"file:///schemas/{file.name}", Resource.from_contents(read(file)))
    resolver = found.resolver("file:///asyncapi.yaml")
    all_references = set(references(document))
    assert len(all_references) > 300
    for reference in all_references:
        there = resolver.lookup(reference)
        for inner in references(there.contents) if reference.startswith("./") else ():
            there.resolver.lookup(inner)


def test_the_document_has_the_registrys_subjects(document: dict[str, Any]) -> None:
    """Its addresses are the subjects of all requests and events, and the dead letters."""
    requested = {f"{name}.{{workspace}}" for name in requests()}
    happened = {
        f"evt.{kind.service}.{{workspace}}.{{aggregate_id}}.{kind.name}" for kind in events().values()
    }
    addresses = {channel["address"] for channel in document["channels"].values()}
    assert addresses == requested | happened | {"dlq.{service}.{consumer}", None}


def test_the_document_says_who_sends_and_receives(document: dict[str, Any]) -> None:
    """Each event is sent, and each request that its service takes from the bus is received and answered."""
    operations = document["operations"].values()
    received = {op["channel"]["$ref"].rpartition("/")[2] for op in operations if op["action"] == "receive"}
    sent = {op["channel"]["$ref"].rpartition("/")[2] for op in operations if op["action"] == "send"}
    assert received == requests().keys() - STAYS_INSIDE
    assert sent == {f"evt.{kind.service}.{kind.name}" for kind in events().values()} | {"dlq"}
    assert all("reply" in op for op in operations if op["action"] == "receive")


def test_every_channel_lies_in_a_stream(document: dict[str, Any]) -> None:
    """The stream that a channel names holds its subject."""
    subjects = {stream["name"]: stream["subjects"] for stream in STREAMS}
    for channel in document["channels"].values():
        if channel["address"] is not None:
            prefix = channel["address"].partition(".")[0]
            assert channel["description"].startswith(f"Stream {STREAM_OF[prefix]} ")
            assert subjects[STREAM_OF[prefix]] == [f"{prefix}.>"]

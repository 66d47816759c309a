"""The recorded model's programs are real: here they run on the shipped file and on hard ones."""

import csv
import json
import shutil
import statistics
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price

from tests.unit.examples.driver import ANALYST, SHIPPED, Played, load_transcript, play

DAYS = [f"{day:02d}" for day in range(1, 29)]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

HARD: dict[str, tuple[str, list[str]]] = {
    "semicolons": (
        "Datum;Ort;Wert\n"
        + "".join(f"{d}.03.2024;{'Köln' if int(d) % 2 else 'Bonn'};{3 * int(d)},5\n" for d in DAYS),
        ["semicolon-separated", "2024-03-01 to 2024-03-28", "3.5 to 84.5", "`Wert` rises over time"],
    ),
    "byte-order-mark": (
        "\ufeffname,age\n" + "".join(f"p{n},{20 + n}\n" for n in range(12)),
        ["with a byte order mark", "| `name` | text |", "20 to 31"],
    ),
    "quoted-newlines": (
        "id,note\n" + "".join(f'{n},"first, line\nsecond ""{n}"""\n' for n in range(1, 20)),
        ["19 rows, 2 columns", "`id` looks like a row number"],
    ),
    "one-column": (
        "remark\nhello, world\nplain\na, b, c\n",
        ["3 rows, 1 column", "one column", "3 values, all different"],
    ),
    "missing": (
        "a,b,c\n" + "".join(f"{n if n % 3 else ''},{'NA' if n % 2 else 'x'},\n" for n in range(1, 50)),
        ["`c` is empty", "| `a` | number | 67% |", "| `b` | category | 49% |"],
    ),
    "unicode": (
        "名前,Größe\n" + "".join(f"{'東京' if n % 3 else '大阪'},{n * 1.5}\n" for n in range(30)),
        ["`名前`", "`東京`", "0.0 to 43.5"],
    ),
    "one-row": ("a,b,when\n1,foo,2020-01-01\n", ["A first look at", "1 row, 3 columns", "so few rows"]),
    "huge-numbers": (
        "big,small\n" + "".join(f"{n}e307,{n}e-300\n" for n in range(-9, 10)) + "1e999,2\n",
        ["-9e+307 to 9e+307", "Left out of `big`: 1 cell that read as no number."],
    ),
    "many-dates": (
        "iso,us,words,mixed\n"
        + "".join(
            f'2021-{m:02d}-15T10:30:00Z,{m}/15/2021,"{name} {m}, 2021",'
            + (f"2021-{m:02d}-01\n" if m % 2 else f"{m:02d}.{m:02d}.2021\n")
            for m, name in enumerate(MONTHS, 1)
        ),
        ["| `iso` | date | 100% |", "| `us` | date | 100% |", "| `words` | date | 100% |",
         "| `mixed` | date | 100% |", "2021-01-15 to 2021-12-15"],
    ),
    "header-only": ("a,b,c\n", ["0 rows, 3 columns", "nothing to find yet"]),
    "no-header": (
        "".join(f"2020-01-{d},{d},x{int(d) % 3}\n" for d in DAYS),
        ["28 rows, 3 columns", "`column_3`"],
    ),
    "nothing-in-it": ('""\n', ["0 rows, 0 columns", "nothing to find yet"]),
    "codes": ("zip,n\n" + "".join(f"0{n:04d},{n % 7}\n" for n in range(40)), ["| `zip` | text |"]),
    "uneven": ("a,b,c\n1,2\n3,4,5,6\n7,8,9\n", ["2 rows have more or fewer fields than the header"]),
    "same-names": ("a,a,,a\n1,2,3,4\n5,6,7,8\n", ["`a (2)`", "`column_3`", "`a (4)`"]),
    "constant": ("a,b\n" + "5,x\n" * 40, ["Rows that repeat an earlier row: 39."]),
    "wide": (
        ",".join(f"c{n}" for n in range(60)) + "\n" + ",".join("1" * 60) + "\n",
        ["1 row, 60 columns", "and 20 more columns"],
    ),
}  # fmt: skip


def report_of(folder: Path, played: Played) -> str:
    assert not played.failures, played.failures[0].text
    report = (folder / "outputs" / "report.md").read_text(encoding="utf-8")
    assert played.published == [{"title": played.results[-3].text, "markdown": report}]
    return report


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """An input folder and a working folder, both empty."""
    inputs, work = tmp_path / "in", tmp_path / "work"
    inputs.mkdir()
    work.mkdir()
    return inputs, work


async def test_the_steady_transcript_publishes_what_the_shipped_file_says(tmp_path: Path) -> None:
    """Every program succeeds, and the report's figures are those that another way of computing gives."""
    played = await play(load_transcript("steady"), SHIPPED.parent, tmp_path)
    report = report_of(tmp_path, played)
    assert played.published[0]["title"] == "What 1,461 rows of seattle-weather.csv say"
    with SHIPPED.open(newline="") as file:
        rows = list(csv.DictReader(file))
    high, low, rain = (
        [float(row[name]) for row in rows] for name in ("temp_max", "temp_min", "precipitation")
    )
    august = statistics.fmean(
        value for row, value in zip(rows, high, strict=True) if row["date"][5:7] == "08"
    )
    wettest = rows[rain.index(max(rain))]["date"].replace("/", "-")
    bursts = sum(sorted(rain)[-(len(rain) // 10) :]) / sum(rain)
    for part in (
        "47,838 bytes, 1,461 rows, 6 columns",
        "2012-01-01 to 2015-12-31",
        f"rise together\n\nTheir correlation is {statistics.correlation(high, low):+.2f}",
        f"{august:.2f} in Aug",
        f"comes in bursts\n\nThe tenth of the rows with the highest values holds {bursts:.0%}",
        f"{max(rain)} | {wettest}",
        f"median {statistics.median(high)}, mean {statistics.fmean(high):.2f}",
        "█████",
        "## With a grain of salt",
        "## How it was made",
    ):
        assert part in report, part
    assert report.count("\n### ") == 3


@pytest.mark.parametrize("name", HARD)
async def test_a_hard_file_is_read_as_a_person_would(name: str, folders: tuple[Path, Path]) -> None:
    """No program fails on it, and the report says of it what is true."""
    text, expected = HARD[name]
    inputs, work = folders
    (inputs / f"{name}.csv").write_bytes(text.encode())
    report = report_of(work, await play(load_transcript("steady"), inputs, work))
    for part in expected:
        assert part in report, part


async def test_text_that_is_not_utf8_is_read_and_said_so(folders: tuple[Path, Path]) -> None:
    """Windows-1252 and UTF-16 come out right."""
    inputs, work = folders
    for encoding, words in (("cp1252", "not UTF-8, read as Windows-1252"), ("utf-16", "UTF-16")):
        (inputs / "a.csv").write_bytes("ort,n\nKöln,1\nKöln,2\nKöln,3\nKöln,4\n".encode(encoding))
        report = report_of(work, await play(load_transcript("steady"), inputs, work))
        assert words in report
        assert "`Köln` is the most frequent `ort`" in report


async def test_what_a_file_holds_cannot_become_markup(folders: tuple[Path, Path]) -> None:
    """Names and values with Markdown, HTML and table syntax stay inside code spans, charts stay closed."""
    inputs, work = folders
    nasty = "![x](http://evil/) <script>`| a"
    rows = "".join(f'"``` {nasty}",{n}\n' for n in [1, 2, 3, 4] * 10)
    (inputs / "nasty.csv").write_text(f'"{nasty}",n\n{rows}', encoding="utf-8")
    report = report_of(work, await play(load_transcript("steady"), inputs, work))
    fenced = report.split("```")
    assert len(fenced) % 2 == 1
    prose = "".join(part for place, part in enumerate(fenced) if place % 2 == 0)
    outside = "".join(part for place, part in enumerate(prose.split("`")) if place % 2 == 0)
    assert "<" not in outside
    assert "evil" not in outside


def test_any_table_gets_a_report(tmp_path: Path) -> None:
    """A hundred odd tables: a whole report each, and no nonsense figure in any."""
    program = Path(__file__).with_name("any_table.py")
    command = [sys.executable, program, ANALYST / "transcripts" / "scripts", tmp_path, "7000", "100"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert ran.returncode == 0, ran.stderr


async def test_a_long_file_is_read_up_to_a_bound(folders: tuple[Path, Path]) -> None:
    """One row past the bound, the report says how much was read. The bound is lowered, to be quick."""
    inputs, work = folders
    (inputs / "long.csv").write_text("a,b\n" + "".join(f"{n % 97},{n % 89}\n" for n in range(501)))
    whole = json.dumps(load_transcript("steady"))
    assert whole.count("50_000, 500_000") == 1
    lowered = json.loads(whole.replace("50_000, 500_000", "500, 500_000"))
    report = report_of(work, await play(lowered, inputs, work))
    assert "Only the first 500 rows were read" in report
    assert "500 rows, 2 columns" in report


async def test_the_detour_completes_at_a_price(tmp_path: Path) -> None:
    """The detour publishes the same report with at least 60 % more steps and cost, after two failures."""
    cost: dict[str, Decimal] = {}
    runs: dict[str, Played] = {}
    for name in ("steady", "detour"):
        (tmp_path / name).mkdir()
        transcript = load_transcript(name)
        played = runs[name] = await play(transcript, SHIPPED.parent, tmp_path / name)
        usage = Usage(input_tokens=played.input_tokens, output_tokens=played.output_tokens)
        cost[name] = calc_price(usage, model_ref=transcript["priced_as"]).total_price
    assert runs["detour"].published == runs["steady"].published
    assert len(runs["detour"].failures) == 2
    assert runs["detour"].steps >= 1.6 * runs["steady"].steps
    assert cost["detour"] >= Decimal("1.6") * cost["steady"]
    assert cost["detour"] < Decimal("0.50"), "it fits the mission's budget"
    assert runs["detour"].llm_calls <= 16, "it fits the agent's turns"


async def test_the_same_transcript_asks_the_same_questions(folders: tuple[Path, Path]) -> None:
    """Two plays give the same results, byte for byte: a second attempt can be answered from the first."""
    inputs, work = folders
    (inputs / "small.csv").write_text("day,n\n" + "".join(f"2020-01-{d},{int(d) ** 2}\n" for d in DAYS))
    first = await play(load_transcript("detour"), inputs, work)
    shutil.rmtree(work)
    work.mkdir()
    second = await play(load_transcript("detour"), inputs, work)
    assert [result.text for result in first.results] == [result.text for result in second.results]


def test_the_transcripts_agree_with_their_sources() -> None:
    """What is committed is what build.py makes of the scripts."""
    build = ANALYST / "transcripts" / "build.py"
    checked = subprocess.run([sys.executable, build, "--check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize("name", ["steady", "detour"])
def test_a_transcript_has_the_recorded_form(name: str) -> None:
    """The fields, the kinds of values, the end without tool calls, and words for a denial."""
    transcript = load_transcript(name)
    assert set(transcript) == {"name", "priced_as", "delay_ms", "turns", "after_denial"}
    assert transcript["name"] == name
    assert isinstance(transcript["delay_ms"], int)
    for turn in transcript["turns"] + transcript["after_denial"]:
        assert set(turn) == {"text", "tool_calls"}
        assert turn["text"]
        for call in turn["tool_calls"]:
            assert set(call) == {"name", "arguments"}
            assert all(isinstance(value, str) for value in call["arguments"].values())
    assert transcript["turns"][-1]["tool_calls"] == []
    assert "outputs/report.md" in transcript["after_denial"][0]["text"]

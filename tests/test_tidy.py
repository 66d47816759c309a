"""The rules of the house. Each test says what to do about what it finds."""

import ast
import importlib
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from services.all import NAMES

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 70
LONG_FILES = {
    "libs/quarterdeck/client/summaries.py": "one short function an event, in the order of the contracts",
}
"""Path to the reason why it is longer."""
BANNED_NAMES = {"manager", "managers", "util", "utils", "helper", "helpers", "data", "info", "misc", "common"}
TRANSCRIPT_SCRIPTS = "examples/analyst/transcripts/scripts/"
"""What a recorded model writes, byte for byte: a model's code, not ours."""
READS_THE_ENVIRONMENT = {
    "libs/quarterdeck/cli/": "the command line, beside each service's __main__",
    "services/sandbox/adapters/init.py": "a program of its own, inside the sandbox, that makes the agent's",
}
AREAS = {
    "MIS": {"services/mission"},
    "BUD": {"services/budget"},
    "APR": {"services/approval", "services/gateway"},
    "VLT": {"services/vault"},
    "SBX": {"services/sandbox"},
    "GTW": {"services/gateway", "libs/quarterdeck/sidecar"},
    "EVL": {"services/eval"},
    "JRN": {"services/journal", "libs/quarterdeck/client"},
    "CLI": {"libs/quarterdeck/cli", "libs/quarterdeck/client", "libs/quarterdeck/kernel"},
    "ART": {"libs/quarterdeck/bus", "libs/quarterdeck/cli", "services/sandbox"},
    "BUS": {"libs/quarterdeck/", "services/journal"},
    "LOG": {"libs/quarterdeck/"},
    "SET": {"libs/quarterdeck/", "services/gateway"},
    "GEN": {"libs/quarterdeck/"},
}
"""Who may give out the codes of an area."""
SHARED_CODES = {
    "QD-ART-001": "a file is too large for an artifact",
    "QD-BUS-001": "nothing answers on the bus",
    "QD-BUS-005": "the server refused a stream or a consumer",
    "QD-GEN-001": "an error that has no code of its own",
    "QD-JRN-009": "the file of signed heads can't be read or written",
    "QD-LOG-003": "the event log can't write",
    "QD-SET-008": "the data directory can't be used",
}
"""Codes that several packages give out, with the one meaning they have in each."""
COMMAND_LINE = {"libs/quarterdeck/cli", "libs/quarterdeck/client"}
"""Two packages, one program: a code may be raised in one and looked at in the other."""
CODE = re.compile(r"QD-[A-Z]{3}-\d{3}")


@cache
def _tracked() -> tuple[str, ...]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return tuple(name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file())


def _python(*folders: str) -> list[str]:
    return [name for name in _tracked() if name.endswith(".py") and name.startswith(folders)]


@cache
def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8", errors="replace")


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(_text(name))


@cache
def _nodes(name: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(_tree(name)))


def _functions(name: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in _nodes(name):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _none(found: list[str], what_to_do: str) -> None:
    assert not found, f"{what_to_do}\n  " + "\n  ".join(found)


# -- size and names ------------------------------------------------------------------------------------------


def test_files_are_short() -> None:
    """A file that is too long holds two subjects."""
    sizes = {name: _text(name).count("\n") for name in _python("libs/", "services/")}
    long = {name: lines for name, lines in sizes.items() if lines > MAX_FILE_LINES}
    _none(
        [f"{name}: {lines} lines" for name, lines in long.items() if name not in LONG_FILES],
        f"more than {MAX_FILE_LINES} lines: split it by subject",
    )
    _none(sorted(LONG_FILES.keys() - long.keys()), "no longer long: take it off LONG_FILES")


def test_functions_are_short() -> None:
    """A function is read in one look."""
    found = [
        f"{name}:{node.lineno}: {node.name} has {lines} lines"
        for name in _python("")
        for node in _functions(name)
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > MAX_FUNCTION_LINES
    ]
    _none(found, f"more than {MAX_FUNCTION_LINES} lines: give its parts names")


def test_names_say_what_is_inside() -> None:
    """Nobody looks for anything in a module called utils."""
    found = [name for name in _python("") if BANNED_NAMES & set(name.removesuffix(".py").split("/"))]
    _none(found, "this name says nothing: name the module after its subject")


def test_every_module_says_what_it_is() -> None:
    """The first line of a module is the answer to whether it is the right one."""
    modules = [name for name in _python("") if not name.startswith(TRANSCRIPT_SCRIPTS)]
    _none(
        [name for name in modules if _text(name).strip() and not ast.get_docstring(_tree(name))],
        "no docstring: say in a line what it is for",
    )


def test_nothing_is_left_for_later() -> None:
    """What is missing stands in an issue or in the changelog, where somebody finds it."""
    marks = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in _tracked()
        if marks.search(_text(name))
        for number, line in enumerate(_text(name).splitlines(), 1)
        if marks.search(line)
    ]
    _none(found, "do it, or say in the documentation that it is missing")


# -- the rooms -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", NAMES)
def test_every_service_has_the_same_rooms(service: str) -> None:
    """Who has seen one service finds the way in the next."""
    home = ROOT / "services" / service
    rooms = ("__init__", "__main__", "app", "domain", "handlers", "settings")
    missing = [r for r in rooms if not ((home / f"{r}.py").is_file() or (home / r / "__init__.py").is_file())]
    _none(missing, f"services/{service} lacks a room that every service has")


@pytest.mark.parametrize("service", NAMES)
def test_every_service_decides_or_says_that_it_does_not(service: str) -> None:
    """A domain is a decider. The journal alone only folds what others decided, into read models."""
    domain = importlib.import_module(f"services.{service}.domain")
    decider = {"initial", "decide", "evolve"} <= set(vars(domain))
    projects = (ROOT / "services" / service / "projection").is_dir()
    door = ast.get_docstring(_tree(f"services/{service}/__init__.py")) or ""
    assert decider != ("Decides nothing" in door), "the front door and the domain tell different stories"
    assert decider or projects, "neither a decider nor a projection: what is it for?"


@pytest.mark.parametrize("service", NAMES)
def test_the_front_door_says_what_goes_in_and_out(service: str) -> None:
    """What it decides or answers, consumes, and emits or writes: each begins a line."""
    door = ast.get_docstring(_tree(f"services/{service}/__init__.py")) or ""
    for words in ("Decides|Answers", "Consumes", "Emits|Writes"):
        assert re.search(rf"^(?:{words})\b", door, re.MULTILINE), f"no line begins with {words}"


# -- effects -------------------------------------------------------------------------------------------------


def test_only_the_outermost_reads_the_environment() -> None:
    """A setting that is read deep inside is one that nobody finds and no test controls."""
    found = []
    for name in _python("libs/", "services/"):
        if name.endswith("/__main__.py") or name.startswith(tuple(READS_THE_ENVIRONMENT)):
            continue
        for node in _nodes(name):
            read = isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")
            taken = (
                isinstance(node, ast.ImportFrom)
                and node.module == "os"
                and {"environ", "getenv"} & {alias.name for alias in node.names}
            )
            if read or taken:
                found.append(f"{name}:{getattr(node, 'lineno', 0)}")
    _none(found, "make it a field of the service's settings, or an option of the command")


def test_nothing_prints() -> None:
    """Services log; the command line writes through quarterdeck.cli.out."""
    found = [
        f"{name}:{node.lineno}"
        for name in _python("libs/", "services/")
        for node in _nodes(name)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    _none(found, "print() reaches whoever happens to hold stdout: log it or return it")


def test_the_repository_knows_no_machine() -> None:
    """What is written on one machine is true on every other."""
    words = ("/work/main", "/work/shared", "/work/.", "/tmp/qd", "/root/", "/Users/")
    hosts = ("pypi" + ".org", "python" + "hosted", "npm" + "js", "debian" + ".org")
    places = re.compile("|".join(map(re.escape, (*words, *hosts))) + r"|/home/[a-z]\w*/")
    found = [
        f"{name}:{number}: {line.strip()[:100]}"
        for name in _tracked()
        if name != "tests/test_tidy.py" and places.search(_text(name))
        for number, line in enumerate(_text(name).splitlines(), 1)
        if places.search(line)
    ]
    _none(found, "a path of one machine or the host of a registry: it does not belong here")


# -- codes ---------------------------------------------------------------------------------------------------


def _area(name: str) -> str:
    """The package of a module: services/<name>, libs/quarterdeck/<name>."""
    parts = name.split("/")
    return "/".join(parts[: 3 if parts[0] == "libs" else 2])


@cache
def _codes() -> dict[str, dict[str, list[str]]]:
    """Code to package to places; only whole string literals, so that prose may name any code."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in _python("libs/", "services/"):
        if name.startswith("libs/quarterdeck/testkit/"):
            continue  # makes up histories of every service
        for node in _nodes(name):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
                found[node.value][_area(name)].append(f"{name}:{node.lineno}")
    return found


def test_every_code_comes_from_its_area() -> None:
    """QD-BUD-… is the budget's to give out: the code alone says where to look."""
    found = [
        f"{code} in {place}"
        for code, areas in _codes().items()
        for area, places in areas.items()
        for place in places
        if not any(area == home or (home[-1] == "/" and area.startswith(home)) for home in AREAS[code[3:6]])
    ]
    _none(found, "take a code of the package's own area (AREAS)")


def test_no_two_packages_give_one_code_two_meanings() -> None:
    """A code that several packages give out is named here with the one meaning it has."""
    several = {
        code for code, areas in _codes().items() if len(areas) > 1 and not areas.keys() <= COMMAND_LINE
    }
    unnamed = [f"{code}: {dict(_codes()[code])}" for code in sorted(several - SHARED_CODES.keys())]
    _none(unnamed, "the same code in several packages: give one of them another, or name it in SHARED_CODES")
    _none(sorted(SHARED_CODES.keys() - several), "no longer shared: take it off SHARED_CODES")


@cache
def _returned() -> dict[tuple[str, str], str]:
    """(package, function) to the class that it is annotated to return: what makes refusals and errors."""
    found = {}
    for name in _python("libs/", "services/"):
        for node in _functions(name):
            if isinstance(node.returns, ast.Name) and node.returns.id[0].isupper():
                found[_area(name), node.name] = node.returns.id
    return found


def _made(area: str, call: ast.Call) -> str:
    """The class that a call makes, itself or through a function of its package; empty when it is none."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name if name[:1].isupper() else _returned().get((area, name), "")


def _word(call: ast.Call) -> str | None:
    """The machine's word for a refusal, where it is written out."""
    words = [k.value.value for k in call.keywords if k.arg == "reason" and isinstance(k.value, ast.Constant)]
    return str(words[0]) if words else None


def test_a_code_is_always_the_same_kind_of_error() -> None:
    """One code, one class, one reason: what is a refusal here is not an outage there."""
    kinds: dict[str, dict[tuple[str, str | None], str]] = defaultdict(dict)
    for name in _python("libs/", "services/"):
        if name.startswith("libs/quarterdeck/testkit/"):
            continue
        for call in _nodes(name):
            if not isinstance(call, ast.Call) or _made(_area(name), call) in ("", "Check"):
                continue  # doctor's checks quote the code that a start would give
            for given in (*call.args, *(keyword.value for keyword in call.keywords)):
                if isinstance(given, ast.Constant) and CODE.fullmatch(str(given.value)):
                    kinds[given.value][_made(_area(name), call), _word(call)] = f"{name}:{call.lineno}"
    _none(
        [f"{code}: {found}" for code, found in sorted(kinds.items()) if len(found) > 1],
        "the same code for different things: give one of them a code of its own",
    )


def test_every_refusal_has_a_test_that_names_it() -> None:
    """A rule that no test breaks is a rule that nobody holds to."""
    tested = "\n".join(_text(name) for name in _python("tests/") if name != "tests/test_tidy.py")
    found = []
    for name in _python("services/"):
        calls = [node for node in _nodes(name) if isinstance(node, ast.Call)]
        if not any(_made(_area(name), call) == "Rejected" for call in calls):
            continue
        codes = {
            node.value
            for call in calls
            if _made(_area(name), call) in ("Rejected", "Problem")
            for node in ast.walk(call)
            if isinstance(node, ast.Constant) and CODE.fullmatch(str(node.value))
        }
        found += [f"{code} of {name}" for code in sorted(codes) if code not in tested]
    _none(found, "write the case in which it is refused, by hand, and name the code")


# -- tests and documentation ---------------------------------------------------------------------------------


def test_every_test_states_its_claim() -> None:
    """A test's docstring is what is lost when it fails."""
    found = [
        f"{name}:{node.lineno}: {node.name}"
        for name in _python("tests/")
        for node in _functions(name)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    _none(found, "say in a sentence what is true when it passes")


def test_every_skip_gives_its_reason() -> None:
    """A test that was not run says at the end what was missing."""
    found = []
    for name in _python("tests/"):
        called = {id(node.func): node for node in _nodes(name) if isinstance(node, ast.Call)}
        for node in _nodes(name):
            if not isinstance(node, ast.Attribute) or node.attr not in ("skip", "skipif", "xfail"):
                continue
            call = called.get(id(node))
            reasons = [keyword.value for keyword in call.keywords if keyword.arg == "reason"] if call else []
            if call and ast.unparse(node) in ("pytest.skip", "pytest.xfail"):
                reasons += call.args
            if not reasons or any(isinstance(given, ast.Constant) and not given.value for given in reasons):
                found.append(f"{name}:{node.lineno}")
    _none(found, "say what is missing and how to get it")


def test_every_make_target_that_is_named_is_there() -> None:
    """A command in the documentation works when it is copied."""
    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    phony = re.search(r"^\.PHONY: (.+)$", _text("Makefile"), re.MULTILINE)
    assert phony is not None
    found = []
    for name in (name for name in _tracked() if name.endswith(".md")):
        fenced = re.findall(r"```.*?```", _text(name), re.DOTALL)
        code = "\n".join((*fenced, *re.findall(r"`[^`\n]+`", _text(name))))
        named = re.findall(r"(?:^|`|\s)make ((?:[A-Z_]+=\S+ )*)([a-z-]+)", code, re.MULTILINE)
        found += [f"{name}: make {target}" for _, target in named if target not in targets]
    _none(found, "the Makefile has no such target")
    _none(sorted(set(phony[1].split()) ^ targets), "a target and .PHONY don't agree")

"""The entry point: registers every command, and gives whatever goes wrong one message and one exit code."""

import contextlib
import importlib
import importlib.metadata
import os
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from quarterdeck.cli.invocation import (
    DEFAULT_DATA_DIR,
    DataDirOption,
    Everywhere,
    JsonOption,
    UrlOption,
    UserOption,
    WorkspaceOption,
    command,
    epilog,
)
from quarterdeck.cli.out import screen, show_error
from quarterdeck.kernel.errors import (
    ContractViolation,
    QuarterdeckError,
    Refused,
    SetupProblem,
)

OK, FAILED, USAGE, REFUSED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
EXIT_CODES = """[dim]Exit codes[/]
  0    done
  1    what was asked for failed: a mission, a verification
  2    wrong usage
  3    refused by a rule
  4    not reachable, or this machine can't do it
  130  interrupted"""
NOTHING_RUNS = "QD-CLI-001"

EXAMPLES = [
    "quarterdeck doctor                 what this machine can do",
    "quarterdeck up                     start everything, stay up",
    "quarterdeck apply -f demo.yaml     crews, tools, budgets, policy",
    "quarterdeck mission submit --crew analysts --goal 'Profile it' --input a.csv",
    "quarterdeck approval approve 3f9a  the beginning of an id is enough",
    "quarterdeck journal verify         has anybody changed the record?",
]

GROUPS = (
    ("mission", "Missions", "Give a crew work, watch it, stop it."),
    ("approval", "Missions", "What waits for a person: look at it, approve it, deny it."),
    ("budget", "Rules", "Limits, and what is spent and reserved against them."),
    ("secret", "Rules", "Credentials: kept encrypted, decided on each use, revocable at once."),
    ("journal", "Record", "Every event: watch, search, rebuild a mission, verify."),
    ("eval", "Record", "A mission in numbers, and against its baseline."),
)
COMMANDS = (
    ("up", "Start here", ["quarterdeck up", "quarterdeck --data-dir /srv/quarterdeck up"]),
    ("run", "Start here", ["quarterdeck run", "quarterdeck run --input path/to.csv"]),
    (
        "doctor",
        "Start here",
        ["quarterdeck doctor", "quarterdeck doctor --json | jq '.checks[] | select(.ok | not)'"],
    ),
    ("apply", "Start here", ["quarterdeck apply -f workspace.yaml --set desk=127.0.0.1:8400"]),
)


def build(names: Collection[str]) -> typer.Typer:
    """The command with the subcommands `names`; each one's module is imported here."""
    app = typer.Typer(
        name="quarterdeck",
        help="Budgets, approvals, secrets, sandboxes, evals and a journal for AI agents.",
        epilog=f"{epilog(EXAMPLES)}\n\n{EXIT_CODES}",
        rich_markup_mode="rich",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_everywhere)
    for name, panel, examples in COMMANDS:
        if name in names:
            function = getattr(importlib.import_module(f"quarterdeck.cli.{name}"), name)
            command(app, name, examples=examples, panel=panel)(function)
    for name, panel, about in GROUPS:
        if name in names:
            group = importlib.import_module(f"quarterdeck.cli.{name}").group
            app.add_typer(group, name=name, help=about, rich_help_panel=panel, no_args_is_help=True)
    return app


def _flags_without_type(command: Any) -> None:
    """A flag takes no value, so its help names no type; typer would say <bool>."""
    for option in command.params:
        if getattr(option, "is_flag", False):
            option.metavar = ""
    for inner in getattr(command, "commands", {}).values():
        _flags_without_type(inner)


def _named(arguments: Sequence[str]) -> Collection[str]:
    """The subcommands whose names stand anywhere among the arguments; all, when none does.

    Importing every one of them takes three times as long as the one that was asked for.
    """
    every = [name for name, *_ in (*COMMANDS, *GROUPS)]
    return [name for name in every if name in arguments] or every


def _version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"quarterdeck {importlib.metadata.version('quarterdeck')}\n")
        raise typer.Exit


def _everywhere(
    ctx: typer.Context,
    *,
    data_dir: DataDirOption = None,
    workspace: WorkspaceOption = None,
    user: UserOption = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    ctx.obj = Everywhere(data_dir=data_dir, workspace=workspace, user=user, url=url, as_json=as_json)


def run(arguments: Sequence[str]) -> int:
    """One call of the command; its exit code. Prints, and never raises."""
    as_json = "--json" in arguments
    try:
        app = typer.main.get_command(build(_named(arguments)))
        _flags_without_type(app)
        code = app.main(list(arguments), prog_name="quarterdeck", standalone_mode=False)
        return int(code or OK)
    except QuarterdeckError as error:
        show_error(screen(sys.stderr), error, as_json=as_json)
        return exit_code(error)
    except typer.TyperException as error:
        return _usage(error, as_json=as_json)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except SystemExit:  # how typer answers a reader that went away, as `| head` does
        _let_go_of_stdout()
        return OK
    except Exception as error:  # noqa: BLE001  # a bug: say so in one line, keep the trace where it is found
        show_error(screen(sys.stderr), _bug(error), as_json=as_json)
        return FAILED


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def _let_go_of_stdout() -> None:
    """What is still buffered goes nowhere; flushing it at the end would complain about the closed pipe."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else 1)
        os.close(nowhere)


def exit_code(error: QuarterdeckError) -> int:
    """2 for what the person wrote, 3 for a rule, 4 for what is not there, 1 for a bug on the other side."""
    if isinstance(error, Refused):
        return REFUSED
    if error.code.startswith("QD-GEN"):
        return FAILED
    written = isinstance(error, ContractViolation) or error.code.startswith(("QD-CLI", "QD-ART-001"))
    if isinstance(error, ContractViolation | SetupProblem) and written and error.code != NOTHING_RUNS:
        return USAGE
    return UNAVAILABLE


def _usage(error: typer.TyperException, *, as_json: bool) -> int:
    """A wrong option or argument. A bare group or command shows its help instead."""
    message = error.format_message()
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "quarterdeck"
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        return USAGE
    if path.endswith("secret put") and "extra argument" in message:
        # The message quotes the argument, and that may well be the secret.
        message = "a secret's value never stands on the command line"
        hint = "give it on stdin or at the prompt; your shell's history has this one now: replace it"
        problem = SetupProblem(message, code="QD-CLI-031", hint=hint)
        show_error(screen(sys.stderr), problem, as_json=as_json)
        return USAGE
    problem = SetupProblem(message.rstrip("."), code="QD-CLI-002", hint=f"{path} --help")
    show_error(screen(sys.stderr), problem, as_json=as_json)
    return USAGE


def _bug(error: Exception) -> QuarterdeckError:
    trace = "".join(traceback.format_exception(error))
    kept = Path(os.environ.get("QUARTERDECK_DATA_DIR") or DEFAULT_DATA_DIR) / "logs" / "cli-errors.log"
    try:
        with kept.open("a", encoding="utf-8") as file:
            file.write(trace + "\n")
    except OSError:
        kept = Path()
    where = f"its trace is in {kept}" if kept.name else trace.strip().splitlines()[-2].strip()
    return QuarterdeckError(f"a bug: {type(error).__name__}: {error}", code="QD-GEN-001", hint=where)

"""One call of the command: where it works, as whom, how it answers; and how a function becomes a command."""

import asyncio
import getpass
import inspect
import os
import re
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.markup import escape

from quarterdeck.cli.datadir import DataDir
from quarterdeck.cli.out import Screen, screen
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.kernel.ids import is_name

DEFAULT_DATA_DIR = Path(".quarterdeck")
DEFAULT_WORKSPACE = "demo"
EVERYWHERE = "Everywhere"
_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}")

DataDirOption = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        help="Where everything is kept. QUARTERDECK_DATA_DIR, else .quarterdeck.",
        rich_help_panel=EVERYWHERE,
    ),
]
WorkspaceOption = Annotated[
    str | None,
    typer.Option(
        "--workspace",
        "-w",
        metavar="NAME",
        help=f"Default {DEFAULT_WORKSPACE}.",
        rich_help_panel=EVERYWHERE,
    ),
]
UserOption = Annotated[
    str | None,
    typer.Option(
        "--as", metavar="USER", help="Who is asking. Default: your login name.", rich_help_panel=EVERYWHERE
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        metavar="NATS",
        help="A bus elsewhere, instead of what runs on the data directory. QUARTERDECK_NATS_URL; its key: "
        "QUARTERDECK_NATS_NKEY.",
        rich_help_panel=EVERYWHERE,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="Answer (and fail) in JSON, for programs.", rich_help_panel=EVERYWHERE),
]


@dataclass(frozen=True, kw_only=True)
class Everywhere:
    """The options that stand before the command or behind it; behind wins."""

    data_dir: Path | None = None
    workspace: str | None = None
    user: str | None = None
    url: str | None = None
    as_json: bool = False

    def over(self, before: "Everywhere | None") -> "Everywhere":
        if before is None:
            return self
        given = {name: mine for name, mine in vars(self).items() if mine}
        return replace(before, **given)


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """What a command function gets as its first argument."""

    home: DataDir
    workspace: str
    workspace_given: bool
    """Whether the person named the workspace, or it is the default."""
    actor: str
    """`user:<name>`."""
    url: str | None = None
    """A bus that is not the data directory's own, and `nkey`, the seed file that opens it."""
    nkey: Path | None = None
    json: bool
    out: Screen
    err: Screen

    @classmethod
    def of(cls, options: Everywhere) -> "Invocation":
        """Raises SetupProblem (QD-CLI-002) for a workspace or a user that can't be one."""
        workspace = options.workspace or DEFAULT_WORKSPACE
        if not is_name(workspace):
            raise SetupProblem(
                f"{workspace!r} can't be a workspace's name",
                code="QD-CLI-002",
                hint="1 to 63 of a-z, 0-9 and -, for example `-w demo`",
            )
        user = options.user or _login()
        if not _USER.fullmatch(user):
            raise SetupProblem(
                f"{user!r} can't be a user's name",
                code="QD-CLI-002",
                hint="letters, digits and . _ @ + -, for example `--as ada`",
            )
        nkey = os.environ.get("QUARTERDECK_NATS_NKEY")
        return cls(
            home=DataDir(
                options.data_dir or Path(os.environ.get("QUARTERDECK_DATA_DIR") or DEFAULT_DATA_DIR)
            ),
            url=options.url or os.environ.get("QUARTERDECK_NATS_URL"),
            nkey=Path(nkey) if nkey else None,
            workspace=workspace,
            workspace_given=options.workspace is not None,
            actor=f"user:{user}",
            json=options.as_json,
            out=screen(sys.stdout),
            err=screen(sys.stderr),
        )

    @property
    def data_dir(self) -> Path:
        return self.home.path

    def note(self, text: str) -> None:
        """A dim line on stderr: something worth knowing that is not the answer."""
        if not self.json:
            self.err.print(f"[dim]{escape(text)}[/]")


Command = TypeVar("Command", bound=Callable[..., int | Coroutine[Any, Any, int | None] | None])


def command(
    app: typer.Typer, name: str, *, examples: Sequence[str] = (), panel: str | None = None
) -> Callable[[Command], Command]:
    """Register a function as the command `name` of `app`.

    Its first parameter is the Invocation (or typer's Context, whose `obj` then is the Invocation), the others
    are typer's; the options of `EVERYWHERE` are added. It may be a coroutine function. What it returns is the
    exit code; None is 0.
    """

    def register(function: Command) -> Command:
        app.command(
            name, help=_paragraphs(function), epilog=epilog(examples), rich_help_panel=panel,
            no_args_is_help=False,
        )(_bound(function))  # fmt: skip
        return function

    return register


def _paragraphs(function: Callable[..., Any]) -> str:
    """A docstring as typer wants it: it keeps line ends, so that a paragraph has to be one line."""
    return "\n\n".join(" ".join(part.split()) for part in (inspect.getdoc(function) or "").split("\n\n"))


def epilog(examples: Sequence[str]) -> str:
    return "\n".join(["[dim]Examples[/]", *(f"  {escape(line)}" for line in examples)]) if examples else ""


def _bound(function: Callable[..., Any]) -> Callable[..., int]:
    first, *own = inspect.signature(function, eval_str=True).parameters.values()

    def run(ctx: typer.Context, **given: Any) -> int:
        behind = Everywhere(**{name: given.pop(name) for name in shared})
        ctx.obj = Invocation.of(behind.over(ctx.find_object(Everywhere)))
        outcome = function(ctx if first.annotation is typer.Context else ctx.obj, **given)
        if inspect.iscoroutine(outcome):
            outcome = asyncio.run(outcome)
        return int(outcome or 0)

    shared = {
        "data_dir": (DataDirOption, None),
        "workspace": (WorkspaceOption, None),
        "user": (UserOption, None),
        "url": (UrlOption, None),
        "as_json": (JsonOption, False),
    }
    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=default)
        for name, (kind, default) in shared.items()
    ]
    own = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature = inspect.Signature([context, *own, *options], return_annotation=int)
    # typer reads these two to find a command's parameters.
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {
        parameter.name: parameter.annotation for parameter in signature.parameters.values()
    }
    run.__name__ = function.__name__
    return run


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user id without a name
        return f"uid-{os.getuid()}"

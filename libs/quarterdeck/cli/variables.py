"""`--set name=value`: what fills the `${name}` of a workspace file."""

from collections.abc import Sequence
from typing import Annotated

import typer

from quarterdeck.kernel.errors import SetupProblem

Variables = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Fill ${NAME} in the file. Repeatable."),
]


def variables(settings: Sequence[str] | None) -> dict[str, str]:
    """Raises SetupProblem (QD-CLI-002) for what is no NAME=VALUE, and for a name given twice."""
    given: dict[str, str] = {}
    for setting in settings or ():
        name, equals, value = setting.partition("=")
        if not name or not equals or name in given:
            raise SetupProblem(
                f"--set {setting}: {'given twice' if name in given else 'a name and a value are wanted'}",
                code="QD-CLI-002",
                hint="--set desk=127.0.0.1:8400",
            )
        given[name] = value
    return given

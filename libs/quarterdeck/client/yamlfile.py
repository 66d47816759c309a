"""YAML in which every mistake has a line: no duplicate keys, no aliases, `${name}` filled in from outside."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from quarterdeck.kernel.errors import SetupProblem

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
Place = tuple[str | int, ...]
"""Where a value stands: keys and 0-based indices from the top."""
_VARIABLE = re.compile(r"\$(\$|\{([^{}]*)\})")


class YamlFile:
    """A file's values and the line of each."""

    def __init__(self, path: Path, variables: Mapping[str, str]) -> None:
        """Raises SetupProblem: QD-CLI-010 missing, -020 not YAML as we take it, -022 a variable not given."""
        self.path = path
        self._variables = variables
        self._lines: dict[Place, int] = {}
        self._seen: set[int] = set()
        text = _text(path)
        try:
            self._loader = yaml.SafeLoader(text)
            node = self._loader.get_single_node()
            self.content: Any = self._value(node, ()) if node is not None else None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = (
                mark.line + 1 if mark is not None else text.count("\n", 0, getattr(error, "position", 0)) + 1
            )
            raise self._problem(
                line, str(getattr(error, "problem", None) or getattr(error, "reason", ""))
            ) from None
        except RecursionError:
            raise self._problem(1, "nested too deep") from None

    def line(self, place: Place) -> int:
        """The line of the value at `place`, or of the nearest one around it."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)

    def problem(self, place: Place, message: str, *, code: str, hint: str = "") -> SetupProblem:
        """`file:line, crews[0].model: message`."""
        named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place).lstrip(".")
        where = f"{self.path}:{self.line(place)}" + (f", {named}" if named else "")
        return SetupProblem(f"{where}: {message}", code=code, hint=hint)

    def _problem(self, line: int, message: str) -> SetupProblem:
        return SetupProblem(
            f"{self.path}:{line}: {message}",
            code="QD-CLI-020",
            hint="it is read as YAML 1.1, UTF-8, at most 1 MiB",
        )

    def _value(self, node: yaml.Node, place: Place) -> Any:
        line = node.start_mark.line + 1
        if place in self._lines or len(place) > MAX_DEPTH:
            raise self._problem(
                line, f"{place[-1]!r} stands twice" if place in self._lines else "nested too deep"
            )
        self._lines[place] = line
        if (
            id(node) in self._seen
        ):  # an alias is the node of its anchor once more; a few of them make millions
            raise self._problem(line, "anchors and aliases are not read")
        self._seen.add(id(node))
        match node:
            case yaml.MappingNode():
                return {
                    (name := self._key(key)): self._value(value, (*place, name)) for key, value in node.value
                }
            case yaml.SequenceNode():
                return [self._value(value, (*place, index)) for index, value in enumerate(node.value)]
        value = self._loader.construct_object(node)
        return self._filled(value, place) if isinstance(value, str) else value

    def _key(self, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise self._problem(node.start_mark.line + 1, "a key has to be plain text")
        return str(node.value)

    def _filled(self, text: str, place: Place) -> str:
        def fill(found: re.Match[str]) -> str:
            if found[1] == "$":
                return "$"
            name = found[2]
            if name not in self._variables:
                raise self.problem(
                    place,
                    f"${{{name}}} has no value",
                    code="QD-CLI-022",
                    hint=f"give it one with --set {name}=…",
                )
            return self._variables[name]

        return _VARIABLE.sub(fill, text)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise SetupProblem(
                f"{path} has more than {MAX_BYTES:,} bytes", code="QD-CLI-020", hint="is it the right file?"
            )
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise SetupProblem(
            f"{path} is not there", code="QD-CLI-010", hint=f"paths are looked up from {Path.cwd()}"
        ) from None
    except OSError as error:
        raise SetupProblem(f"{path} can't be read: {error.strerror}", code="QD-CLI-015") from None
    except UnicodeDecodeError:
        raise SetupProblem(
            f"{path} is not UTF-8 text", code="QD-CLI-020", hint="is it the right file?"
        ) from None

"""What ARCHITECTURE.md promises can be found: every invariant has a number, and every named test exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "ARCHITECTURE.md").read_text()
ROWS = re.findall(r"^\| (INV-\d+) \| (.+?) \| (.+?) \|$", TEXT, re.MULTILINE)


def test_every_invariant_is_held_by_tests_that_exist() -> None:
    """A row names at least one test, as a file or as `file::function`, and it is there."""
    assert len(ROWS) >= 20
    for number, _, holders in ROWS:
        named = re.findall(r"`(tests/[^`]+)`", holders)
        assert named, number
        for name in named:
            path, _, function = name.partition("::")
            assert (ROOT / path).is_file(), f"{number}: {path}"
            assert not function or f"def {function}(" in (ROOT / path).read_text(), f"{number}: {name}"


def test_every_number_in_the_code_is_listed_once() -> None:
    """Code that names an invariant names one of the list, and no number stands for two things."""
    numbers = [number for number, _, _ in ROWS]
    assert len(numbers) == len(set(numbers))
    used = {
        number
        for folder in ("libs", "services", "tests")
        for path in (ROOT / folder).rglob("*.py")
        for number in re.findall(r"INV-\d+", path.read_text())
    }
    assert used <= set(numbers), sorted(used - set(numbers))

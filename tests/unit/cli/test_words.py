"""Times, variables and ids as a person writes them."""

import pytest

from quarterdeck.cli.find import one
from quarterdeck.cli.variables import variables
from quarterdeck.cli.when import at_ms
from quarterdeck.kernel.errors import SetupProblem
from quarterdeck.system import SystemClock


@pytest.mark.parametrize(
    ("text", "distance_ms"), [("30s", 30_000), ("5m", 300_000), ("2h", 7_200_000), ("1d", 86_400_000)]
)
def test_a_time_may_be_said_as_a_distance(text: str, distance_ms: int) -> None:
    """`2h` is two hours before now."""
    said = at_ms(text, "--from")
    assert said is not None
    assert abs(SystemClock().now_ms() - distance_ms - said) < 5_000


def test_a_time_may_be_said_exactly() -> None:
    """RFC 3339 with its offset; nothing stays nothing."""
    assert at_ms("2026-05-01T14:30:00Z", "--from") == 1_777_645_800_000
    assert at_ms("2026-05-01T16:30:00+02:00", "--from") == 1_777_645_800_000
    assert at_ms(None, "--from") is None


@pytest.mark.parametrize("text", ["soon", "", "2026-13-01", "5 fortnights", "9" * 20 + "h"])
def test_what_is_no_time_is_told(text: str) -> None:
    """QD-CLI-002 names the option."""
    with pytest.raises(SetupProblem) as problem:
        at_ms(text, "--to")
    assert problem.value.code == "QD-CLI-002"
    assert "--to" in problem.value.message


def test_variables_are_names_and_values() -> None:
    """The first = separates; a value may be empty or have more of them."""
    assert variables(["desk=127.0.0.1:1", "q=a=b", "none="]) == {
        "desk": "127.0.0.1:1",
        "q": "a=b",
        "none": "",
    }
    assert variables(None) == {}


@pytest.mark.parametrize("settings", [["desk"], ["=x"], ["a=1", "a=2"]])
def test_what_is_no_variable_is_told(settings: list[str]) -> None:
    """No name, no =, or the same name twice."""
    with pytest.raises(SetupProblem) as problem:
        variables(settings)
    assert problem.value.code == "QD-CLI-002"


def test_the_beginning_of_an_id_is_enough_when_it_is_the_only_one() -> None:
    """A whole id wins over being the beginning of another."""
    assert one("ab", ["abc", "xyz"], "approval", "demo") == "abc"
    assert one("ab", ["ab", "abc"], "approval", "demo") == "ab"
    with pytest.raises(SetupProblem) as several:
        one("a", ["abc", "abd"], "approval", "demo")
    assert "abc, abd" in several.value.hint
    with pytest.raises(SetupProblem) as none:
        one("q", ["abc"], "approval", "demo")
    assert (several.value.code, none.value.code) == ("QD-CLI-003", "QD-CLI-003")

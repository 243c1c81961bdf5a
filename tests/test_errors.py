import pytest

from genebert.errors import SHOWN, Problems, UserError, problem


def test_a_problem_is_one_line_with_place_fault_and_remedy() -> None:
    assert problem("a.bed, line 3", "end 5 is not after start 9", "Swap them.") == (
        "a.bed, line 3: end 5 is not after start 9. Swap them."
    )


def test_no_problems_raise_nothing() -> None:
    found = Problems("The peaks cannot be used:")
    found.raise_any()
    assert found.lines == []


def test_problems_are_reported_together() -> None:
    found = Problems("The peaks cannot be used:")
    found.add("line 1", "start is -4", "Correct it.")
    found.extend(["line 2: end is 'x'. Correct it."])
    with pytest.raises(UserError) as error:
        found.raise_any()
    assert str(error.value) == (
        "The peaks cannot be used:\n  - line 1: start is -4. Correct it.\n  - line 2: end is 'x'. Correct it."
    )


@pytest.mark.parametrize(("count", "last"), [(SHOWN, f"line {SHOWN - 1}"), (SHOWN + 3, "and 3 more problems")])
def test_a_long_list_is_cut_and_the_rest_counted(count: int, last: str) -> None:
    found = Problems("Too much:")
    for line in range(count):
        found.add(f"line {line}", "wrong", "Correct it.")
    with pytest.raises(UserError) as error:
        found.raise_any()
    lines = str(error.value).splitlines()
    assert len(lines) == 1 + min(count, SHOWN) + (count > SHOWN)
    assert last in lines[-1]


def test_two_collections_share_nothing() -> None:
    Problems("a").add("x", "y", "z")
    assert Problems("b").lines == []

from pathlib import Path

import pytest

from genebert.errors import UserError
from genebert.risk.relatives import group_of


def test_relatives_have_one_number_also_through_others(tmp_path: Path) -> None:
    table = tmp_path / "king.kin0"
    table.write_text("ID1\tID2\tKinship\na\tb\t0.25\nb\tc\t0.05\nc\td\t0.04\ne\tstranger\t0.25\n")
    group = group_of(list("abcdef"), ["", "", "", "", "one", "one"], table)
    assert group[0] == group[1] == group[2]
    assert group[4] == group[5]
    assert len(set(group.tolist())) == 3


def test_without_families_everyone_is_alone() -> None:
    assert sorted(group_of(list("abc"), [""] * 3, None).tolist()) == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n1\t2\n", "line 1: it is no table of kinship; its columns are a, b. Name the columns sample1, sample2"),
        ("sample1\tsample2\tkinship\na\tb\tclose\n", "line 2: kinship is 'close'. Give a number."),
    ],
)
def test_a_table_that_is_no_kinship_is_refused(tmp_path: Path, text: str, message: str) -> None:
    table = tmp_path / "kinship.tsv"
    table.write_text(text)
    with pytest.raises(UserError) as error:
        group_of(["a", "b"], ["", ""], table)
    assert message in str(error.value)

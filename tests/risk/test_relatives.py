from pathlib import Path

import pytest

from genebert.errors import UserError
from genebert.risk.relatives import group_of, read_kinship


def test_relatives_have_one_number_also_through_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "king.kin0"
    table.write_text("ID1\tID2\tKinship\na\tb\t0.25\nb\tc\t0.05\nc\td\t0.04\ne\tstranger\t0.25\n")
    pairs = read_kinship(table).among(list("abcdef"), table, Path("cohort.vcf"))
    told = capsys.readouterr().err
    assert f"warning: 1 of 6 samples of {table}, such as stranger, are not among the individuals: passed over" in told
    assert f"2 related pairs of {table} stay together" in told
    group = group_of(list("abcdef"), ["", "", "", "", "one", "one"], pairs)
    assert group[0] == group[1] == group[2]
    assert group[4] == group[5]
    assert len(set(group.tolist())) == 3


def test_without_families_everyone_is_alone() -> None:
    assert sorted(group_of(list("abc"), [""] * 3, []).tolist()) == [0, 1, 2]


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
        read_kinship(table)
    assert message in str(error.value)


def test_a_kinship_of_other_samples_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "kinship.tsv"
    table.write_text("sample1\tsample2\tkinship\nx\ty\t0.25\n")
    message = r"no sample in common with the individuals of cohort.vcf \(the first: x there, a in cohort.vcf\)"
    with pytest.raises(UserError, match=message):
        read_kinship(table).among(["a", "b"], table, Path("cohort.vcf"))

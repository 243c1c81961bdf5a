from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from genebert.errors import UserError
from genebert.risk.phenotypes import Columns, Phenotypes, check_variety, match_samples, read_phenotypes

HEADER = "sample\tdisease\tage\tsex\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def rows(*lines: str, header: str = "sample disease age sex") -> str:
    return "".join("\t".join(line.split()) + "\n" for line in (header, *lines))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "pheno.tsv"


def read(path: Path, text: str, **columns: object) -> Phenotypes:
    return read_phenotypes(write(path, text), Columns(**columns))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "trait", "values"),
    [
        (["0", "1", "0"], "binary", [0, 1, 0]),
        (["1", "2", "1"], "binary", [0, 1, 0]),
        (["control", "Case", "control"], "binary", [0, 1, 0]),
        (["unaffected", "affected", "unaffected"], "binary", [0, 1, 0]),
        (["1.5", "2", "-3e2"], "quantitative", [1.5, 2, -300]),
    ],
)
def test_the_values_say_what_the_trait_is(table: Path, words: list[str], trait: str, values: list[float]) -> None:
    found = read(table, rows(*(f"s{i} {word}" for i, word in enumerate(words)), header="sample disease"))
    assert found.trait == trait
    assert found.numbers.tolist() == values


@pytest.mark.parametrize("missing", ["NA", ".", "-9", "-9.0", "nan"])
def test_individuals_without_a_phenotype_are_left_out_and_counted(table: Path, missing: str) -> None:
    found = read(table, rows("a 1", f"b {missing}", "c 0", header="sample disease"))
    assert found.samples == ["a", "c"]
    assert found.missing == 1


def test_the_missing_value_of_plink_may_be_written_as_others_are(table: Path) -> None:
    """Phenotypes that went through pandas are 1.0, 2.0 and -9.0: they were once a quantitative trait."""
    found = read(table, rows("a 1.0 30.0", "b -9.0 40.0", "c 2.0 50.0", "d 1.0 60.0", header="sample disease age"))
    assert (found.trait, found.missing, found.numbers.tolist()) == ("binary", 1, [0, 1, 0])
    text = rows("a 1 30.0", "b 0 -9.0", "c 1 50.0", header="sample disease age")
    with pytest.raises(UserError, match="line 3: covariate age of sample b is missing"):
        read(table, text, covariates=["age"])


def test_zero_and_one_can_be_a_number_if_so_said(table: Path) -> None:
    found = read(table, rows("a 1", "b 0", "c 2", header="sample disease"), trait="quantitative")
    assert found.numbers.tolist() == [1, 0, 2]


def test_files_of_plink_are_read(table: Path) -> None:
    found = read(table, rows("f1 a 1", "f1 b 2", header="#FID IID PHENO1"), family="#FID")
    assert found.samples == ["a", "b"]
    assert found.name == "pheno1"
    assert found.family == ["f1", "f1"]


def test_words_become_columns_of_zeros_and_ones(table: Path) -> None:
    text = rows("a 1 30 M north", "b 0 40 F south", "c 0 50 F west", header="sample disease age sex site")
    covariates = read(table, text, covariates=["Age", "sex", "site"]).covariates
    assert covariates.names == ("age", "sex=M", "site=south", "site=west")
    assert covariates.numbers.tolist() == [[30, 1, 0, 0], [40, 0, 1, 0], [50, 0, 0, 1]]
    assert np.allclose(covariates.design.mean(axis=0), [1, 0, 0, 0, 0])
    assert np.allclose(covariates.design[:, 1:].std(axis=0), 1)


BAD_TABLES = [
    ("no samples", rows("1 2", header="name disease"), {}, "line 1: it has no column of samples; its columns are name"),
    (
        "two candidates",
        rows("a 1 2", header="sample x y"),
        {},
        "it does not say which column is the phenotype; its columns are sample, x, y. Name it with --phenotype.",
    ),
    (
        "unknown phenotype",
        rows("a 1 3 M"),
        {"phenotype": "bmi"},
        "line 1: it has no column 'bmi'; its columns are sample, disease, age, sex. Correct --phenotype.",
    ),
    (
        "unknown covariate",
        rows("a 1 3 M"),
        {"covariates": ["pc1"], "family": "kin"},
        "line 1: there is no column 'pc1'; the columns are sample, disease, age, sex. Correct --covariates.\n"
        "  - line 1: there is no column 'kin'; the columns are sample, disease, age, sex. Correct --family.",
    ),
    (
        "duplicated samples",
        rows("a 1 3 M", "b 0 3 M", "a 0 3 M"),
        {},
        "lines 2, 4: sample a is there 2 times. Keep one line of each sample.",
    ),
    ("no name", HEADER + "\t1\t3\tM\n", {}, "line 2: the sample has no name. Fill it in, or remove the line."),
    (
        "odd word",
        rows("a case 3 M", "b control 3 F", "c ill 3 M"),
        {},
        "line 4: disease is 'ill'. Give 0 and 1, 1 and 2, or control and case; NA where it is not known.",
    ),
    (
        "word among numbers",
        rows("a 1.5 3 M", "b 2.5 3 F", "c 3.5 3 F", "d high 3 M"),
        {},
        "line 5: disease is 'high'. Give a number; NA where it is not known.",
    ),
    (
        "two odd numbers",
        rows("a 3 3 M", "b 5 3 F"),
        {},
        "disease is 3 and 5, which does not tell cases from controls. Write 1 for cases and 0 for controls",
    ),
    (
        "zero, one and two",
        rows("a 0 3 M", "b 1 3 F", "c 2 3 F"),
        {},
        "disease is 0, 1 or 2: cases and controls with 0 for missing, as in PLINK, or a number. Write NA for what is",
    ),
    (
        "missing covariates",
        rows("a 1 NA M", "b 0 3 .", "c 0 4 F"),
        {"covariates": ["age", "sex"]},
        "line 2: covariate age of sample a is missing. Fill it in, remove the line, or leave the covariate out.\n"
        "  - line 3: covariate sex of sample b is missing.",
    ),
    (
        "word among covariates",
        rows("a 1 30 M", "b 0 old M", "c 0 4 F"),
        {"covariates": ["age"]},
        "line 3: covariate age is 'old', and other lines have numbers. Give a number.",
    ),
    (
        "infinite covariate",
        rows("a 1 30 M", "b 0 inf M", "c 0 4 F"),
        {"covariates": ["age"]},
        "line 3: covariate age is 'inf', and other lines have numbers. Give a number.",
    ),
    (
        "many words",
        rows(*(f"s{i} {i % 2} 3 w{i}" for i in range(12))),
        {"covariates": ["sex"]},
        "line 1: covariate sex has 12 different words, such as 'w0' and 'w1'. Give numbers, or at most 10 words.",
    ),
    (
        "one word",
        rows("a 1 30 M", "b 0 31 M"),
        {"covariates": ["sex"]},
        "covariate sex: it is M for all individuals. Leave it out.",
    ),
    (
        "covariate -9",
        rows("a 1 30 M", "b 0 -9 F", "c 0 4 F"),
        {"covariates": ["age"]},
        "line 3: covariate age of sample b is missing. Fill it in, remove the line, or leave the covariate out.",
    ),
    (
        "columns that are no covariates",
        rows("1 a 1 2", header="fid sample disease kin"),
        {"phenotype": "Disease", "covariates": ["disease", "Sample", "FID", "kin"], "family": "kin"},
        "line 1: covariate disease is the column of the phenotype. Leave it out of --covariates.\n"
        "  - line 1: covariate Sample is the column of the samples. Leave it out of --covariates.\n"
        "  - line 1: covariate FID is the column of the family. Leave it out of --covariates.\n"
        "  - line 1: covariate kin is the column of the family. Leave it out of --covariates.",
    ),
    ("ragged", HEADER + "a\t1\n", {}, "line 2: it has 2 columns, and the header has 4."),
]


@pytest.mark.parametrize(
    ("text", "columns", "message"), [case[1:] for case in BAD_TABLES], ids=[c[0] for c in BAD_TABLES]
)
def test_a_table_that_cannot_be_used_is_refused(table: Path, text: str, columns: dict, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(table, text, **columns)
    assert message in str(error.value)
    assert str(table) in str(error.value)


def matched(table: Path, lines: Sequence[str], samples: Sequence[str], **columns: object) -> Phenotypes:
    return match_samples(read(table, rows(*lines), **columns), Path("cohort.vcf"), samples)


def test_individuals_are_those_of_both_files_in_the_order_of_the_vcf(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = matched(table, ["a 1 3 M", "b 0 4 M", "c 1 5 F"], ["d", "c", "a"], covariates=["age"])
    assert found.samples == ["c", "a"]
    assert found.numbers.tolist() == [1, 1]
    assert found.covariates.numbers.tolist() == [[5], [3]]
    told = capsys.readouterr().err
    assert f"warning: 1 of 3 samples of {table} are not in cohort.vcf: left out" in told
    assert "warning: 1 of 3 samples of cohort.vcf have no phenotype: left out" in told


def test_individuals_without_genotypes_do_not_bear_on_covariates(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A site that only they have was once a covariate that is 0 for all, and their missing ages a mistake."""
    lines = ["a 1 3 A", "b 0 4 B", "c 1 NA C", "d 0 6 B"]
    path = write(table, rows(*lines))
    read_all = read_phenotypes(path, Columns("disease", ["age", "sex"]), ["d", "b", "a", "x"])
    found = match_samples(read_all, Path("cohort.vcf"), ["d", "b", "a", "x"])
    assert found.samples == ["d", "b", "a"]
    assert found.covariates.names == ("age", "sex=B")
    assert f"warning: 1 of 4 samples of {table} are not in cohort.vcf" in capsys.readouterr().err


def test_a_phenotype_that_nobody_has_is_told_to_be(table: Path) -> None:
    with pytest.raises(UserError, match=r"column disease: no individual has a value \(2 are missing\)"):
        read(table, rows("a NA 3 M", "b -9 4 M"))


def test_files_without_a_common_sample_are_refused(table: Path) -> None:
    message = r"no sample in common with the VCF cohort.vcf \(the first: a there, x1 in cohort.vcf\)"
    with pytest.raises(UserError, match=message):
        matched(table, ["a 1 3 M"], ["x1"])


BAD_COHORTS = [
    (
        "one class",
        ["1"] * 20,
        {},
        "column disease: all 20 individuals with genotypes are cases. Give cases and controls.",
    ),
    ("few cases", ["1"] * 3 + ["0"] * 20, {}, "there are 3 cases for 5 folds. Give at least 10, or fewer --folds."),
    ("few", ["1.5", "2.5", "3.5"], {}, "there are 3 individuals for 5 folds. Give at least 10, or fewer --folds."),
    (
        "one value",
        ["7.5"] * 20,
        {"trait": "quantitative"},
        "column disease: all its values are 7.5. Give different values.",
    ),
]


@pytest.mark.parametrize(("words", "columns", "message"), [c[1:] for c in BAD_COHORTS], ids=[c[0] for c in BAD_COHORTS])
def test_a_cohort_to_learn_nothing_from_is_refused(table: Path, words: list[str], columns: dict, message: str) -> None:
    found = read(table, rows(*(f"s{i} {word}" for i, word in enumerate(words)), header="sample disease"), **columns)
    with pytest.raises(UserError) as error:
        check_variety(found, folds=5)
    assert message in str(error.value)


def test_constant_and_collinear_covariates_are_named(table: Path) -> None:
    lines = [f"s{i} {i % 2} {i} {2 * i + 1} {i * i}" for i in range(20)]
    found = read(table, rows(*lines, header="sample disease age twice square"), covariates=["age", "twice", "square"])
    with pytest.raises(UserError) as error:
        check_variety(found, folds=5)
    assert "covariate twice: it follows from the others (they are collinear). Leave it out." in str(error.value)
    assert "square" not in str(error.value)
    lines = [f"s{i} {i % 2} 41" for i in range(20)]
    found = read(table, rows(*lines, header="sample disease age"), covariates=["age"])
    with pytest.raises(UserError, match="covariate age: it is 41 for all individuals"):
        check_variety(found, folds=5)


@pytest.mark.parametrize("coding", [("ill", "well"), ("3", "8"), ("2", "1")])
def test_a_covariate_that_recodes_the_phenotype_is_named(table: Path, coding: tuple[str, str]) -> None:
    lines = [f"s{i} {i % 2} {coding[i % 2]} {i * i}" for i in range(40)]
    found = read(
        table, rows(*lines, header="sample disease status age"), phenotype="disease", covariates=["status", "age"]
    )
    with pytest.raises(UserError, match=r"covariate status.*: it says the same as the phenotype") as error:
        check_variety(found, folds=5)
    assert "age" not in str(error.value)


def test_more_covariates_than_individuals_allow_are_refused(table: Path) -> None:
    generator = np.random.default_rng(0)
    names = [f"c{j}" for j in range(5)]
    lines = [f"s{i} {i % 2} " + " ".join(map(str, generator.standard_normal(5))) for i in range(41)]
    text = rows(*lines, header=" ".join(["sample", "disease", *names]))
    check_variety(read(table, text, phenotype="disease", covariates=names[:4]), folds=5)
    message = "there are 5 columns of covariates, and the smallest sets that models are fitted to have 24 of the 41"
    with pytest.raises(UserError, match=message):
        check_variety(read(table, text, phenotype="disease", covariates=names), folds=5)


def test_a_family_that_is_not_known_is_none(table: Path) -> None:
    words = ["f1", "", ".", "NA", "nan", "0", "-9", "f1", "10"]
    text = "sample\tdisease\tkin\n" + "".join(f"s{i}\t{i % 2}\t{word}\n" for i, word in enumerate(words))
    assert read(table, text, family="kin").family == ["f1", *[""] * 6, "f1", "10"]


def test_names_of_columns_are_those_of_the_file(table: Path) -> None:
    text = rows("a 1 3 5", "b 0 4 6", "c x 4 6", header="sample label:Ill line Trait:B")
    with pytest.raises(UserError, match="line 4: label:Ill is 'x'"):
        read(table, text, phenotype="Label:Ill")
    found = read(table, text.replace("x", "0"), phenotype="label:Ill", covariates=["line", "TRAIT:B"])
    assert found.covariates.numbers.tolist() == [[3, 5], [4, 6], [4, 6]]

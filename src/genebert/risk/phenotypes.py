"""Phenotypes and covariates of individuals, from a table with a header (numpy and pandas only)."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.console import say
from genebert.errors import Problems, UserError, problem
from genebert.inputs.intervals import column_name, read_table
from genebert.risk.covariates import LINE, Covariates, is_missing, read_covariates

Trait = Literal["binary", "quantitative"]
SAMPLE_COLUMNS = ("sample", "sample_id", "iid")
"""Names of the column of samples; the last one is that of PLINK."""
FAMILY_COLUMN = "fid"
"""The column of families of PLINK, which is no phenotype."""
PHENOTYPE_COLUMNS = ("phenotype", "disease")
"""Taken as the phenotype if none is named."""
PER_COVARIATE = 5
"""Fewest individuals for each covariate that models are fitted to."""
NO_FAMILY = "0"
"""What says that there is no family, as in PLINK, beside what says that it is not known."""
CASE_WORDS = {"case": 1.0, "control": 0.0, "affected": 1.0, "unaffected": 0.0, "yes": 1.0, "no": 0.0}
CODINGS = ({0.0: 0.0, 1.0: 1.0}, {1.0: 0.0, 2.0: 1.0})
"""Numbers that stand for controls and cases: 0 and 1, or, as in PLINK, 1 and 2."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the table are read.

    Attributes:
        phenotype: of the phenotype; None for the only candidate.
        covariates: of the covariates.
        family: of the family, or None.
        trait: "auto" for what the values say.
    """

    phenotype: str | None = None
    covariates: Sequence[str] = ()
    family: str | None = None
    trait: Literal["auto", "binary", "quantitative"] = "auto"


@dataclass(frozen=True)
class Phenotypes:
    """What is known about n individuals.

    Attributes:
        path: the table.
        samples: names.
        name: of the phenotype's column.
        trait: whether they are cases and controls, or have a number.
        numbers: 1 for cases and 0 for controls, or the number; float64, shape (n,).
        covariates: see `Covariates`.
        family: as written, "" where none is; n of them.
        missing: number of individuals left out as their phenotype is not known.
        absent: number of further ones left out as they have no genotypes.
    """

    path: Path
    samples: list[str]
    name: str
    trait: Trait
    numbers: NDArray[np.float64]
    covariates: Covariates
    family: list[str]
    missing: int
    absent: int = 0

    def __len__(self) -> int:
        return len(self.samples)

    def of(self, rows: NDArray[np.int64]) -> "Phenotypes":
        """Return some individuals, in the order of their rows."""
        return replace(
            self,
            samples=[self.samples[i] for i in rows],
            numbers=self.numbers[rows],
            covariates=replace(self.covariates, numbers=self.covariates.numbers[rows]),
            family=[self.family[i] for i in rows],
        )

    def with_covariates(self, names: Sequence[str], values: NDArray[np.float64]) -> "Phenotypes":
        """Return them with further covariates, float64, shape (n, names)."""
        return replace(self, covariates=self.covariates.joined(names, values))


def read_phenotypes(path: Path, columns: Columns, genotyped: Collection[str] = ()) -> Phenotypes:
    """Read a TSV or CSV with a header; column names do not depend on case.

    Individuals whose phenotype is missing ("", ".", NA, NaN, -9) are left out and counted.

    Args:
        path: of the table.
        columns: what is where.
        genotyped: samples that have genotypes. If any is in the table, others are left out and counted, before anything
            is made of their covariates.

    Raises:
        UserError: the table cannot be used; all problems are listed with their lines.
    """
    table = read_table(path, LINE)
    sample, name = _column_of_samples(table, path), _column_of_phenotypes(table, path, columns)
    found = Problems(f"The phenotypes {path} cannot be used:")
    for option, wanted in (("--covariates", columns.covariates), ("--family", [columns.family or sample])):
        for column in wanted:
            _check_column(table, column, option, found)
    _check_roles(sample, name, columns, found)
    _check_samples(table, sample, found)
    found.raise_any()
    missing = is_missing(table[name])
    if missing.all():
        what = f"no individual has a value ({len(table):,} are missing)"
        raise UserError(problem(f"{path}, column {name}", what, "Fill it in, or name another with --phenotype."))
    known = table[~missing]
    has_genotypes = known[sample].isin(genotyped)
    absent = int((~has_genotypes).sum()) if has_genotypes.any() else 0
    known = (known[has_genotypes] if absent else known).reset_index(drop=True)
    trait = _trait_of(known, name, columns, path)
    values = _values(known, name, trait, found)
    covariates = read_covariates(known, list(map(column_name, columns.covariates)), sample, found)
    found.raise_any()
    family = _families(known[column_name(columns.family)]) if columns.family else [""] * len(known)
    return Phenotypes(path, known[sample].tolist(), name, trait, values, covariates, family, int(missing.sum()), absent)


def _column_of_samples(table: pd.DataFrame, path: Path) -> str:
    for name in SAMPLE_COLUMNS:
        if name in table:
            return name
    what = f"it has no column of samples; its columns are {_listed(table)}"
    raise UserError(problem(f"{path}, line 1", what, "Name the column of samples `sample`."))


def _column_of_phenotypes(table: pd.DataFrame, path: Path, columns: Columns) -> str:
    if columns.phenotype:
        if column_name(columns.phenotype) in table:
            return column_name(columns.phenotype)
        what = f"it has no column {columns.phenotype!r}; its columns are {_listed(table)}"
        raise UserError(problem(f"{path}, line 1", what, "Correct --phenotype."))
    used = {*SAMPLE_COLUMNS, FAMILY_COLUMN, LINE, *map(column_name, columns.covariates)}
    candidates = [name for name in table if name not in used and name != column_name(columns.family or "")]
    named = [name for name in PHENOTYPE_COLUMNS if name in candidates]
    if len(named) == 1 or len(candidates) == 1:
        return (named or candidates)[0]
    what = f"it does not say which column is the phenotype; its columns are {_listed(table)}"
    raise UserError(problem(f"{path}, line 1", what, "Name it with --phenotype."))


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(name for name in table if name != LINE)


def _check_column(table: pd.DataFrame, name: str, option: str, found: Problems) -> None:
    if column_name(name) not in table:
        found.add("line 1", f"there is no column {name!r}; the columns are {_listed(table)}", f"Correct {option}.")


def _check_roles(sample: str, phenotype: str, columns: Columns, found: Problems) -> None:
    """Note covariates that are something else already."""
    roles = {FAMILY_COLUMN: "of the family", column_name(columns.family or ""): "of the family"}
    roles |= {sample: "of the samples", phenotype: "of the phenotype"}
    for name in columns.covariates:
        if column_name(name) in roles:
            what = f"covariate {name} is the column {roles[column_name(name)]}"
            found.add("line 1", what, "Leave it out of --covariates.")


def _families(names: pd.Series) -> list[str]:
    return names.mask(is_missing(names) | (names == NO_FAMILY), "").tolist()


def _check_samples(table: pd.DataFrame, column: str, found: Problems) -> None:
    for line in table.loc[table[column] == "", LINE]:
        found.add(f"line {line}", "the sample has no name", "Fill it in, or remove the line.")
    for name, lines in table[table[column] != ""].groupby(column, sort=False)[LINE]:
        if len(lines) > 1:
            where = ", ".join(map(str, lines))
            found.add(f"lines {where}", f"sample {name} is there {len(lines)} times", "Keep one line of each sample.")


def _trait_of(known: pd.DataFrame, name: str, columns: Columns, path: Path) -> Trait:
    """Return what the values say: two classes if they are words or a coding of them, else numbers."""
    if columns.trait != "auto":
        return columns.trait
    numbers = pd.to_numeric(known[name], errors="coerce")
    values = set(numbers.dropna())
    if values == {0.0, 1.0, 2.0}:
        what = f"{name} is 0, 1 or 2: cases and controls with 0 for missing, as in PLINK, or a number"
        remedy = "Write NA for what is missing, or say --trait quantitative."
        raise UserError(problem(path, what, remedy))
    if len(values) == 2 and values not in [set(coding) for coding in CODINGS]:
        listed = " and ".join(f"{value:g}" for value in sorted(values))
        what = f"{name} is {listed}, which does not tell cases from controls"
        raise UserError(problem(path, what, "Write 1 for cases and 0 for controls, or say --trait quantitative."))
    words = known[name].str.lower().isin(list(CASE_WORDS)).sum()
    return "binary" if words > len(known) / 2 or len(values) <= 2 else "quantitative"


def _values(known: pd.DataFrame, name: str, trait: Trait, found: Problems) -> NDArray[np.float64]:
    numbers = pd.to_numeric(known[name], errors="coerce")
    if trait == "binary":
        coding = CODINGS[1] if (numbers == 2).any() else CODINGS[0]
        values = known[name].str.lower().map(CASE_WORDS).fillna(numbers.map(coding)).to_numpy(np.float64)
        remedy = "Give 0 and 1, 1 and 2, or control and case; NA where it is not known."
    else:
        values = numbers.to_numpy(np.float64)
        remedy = "Give a number; NA where it is not known."
    for line, text in known.loc[~np.isfinite(values), [LINE, name]].itertuples(index=False):
        found.add(f"line {line}", f"{name} is {text!r}", remedy)
    return values


def match_samples(phenotypes: Phenotypes, vcf: Path, samples: Sequence[str]) -> Phenotypes:
    """Return the individuals that a VCF has too, in its order; the others, of both files, are counted and told.

    Raises:
        UserError: the files have no sample in common.
    """
    row = {name: i for i, name in enumerate(phenotypes.samples)}
    shared = np.array([row[name] for name in samples if name in row], dtype=np.int64)
    if not len(shared):
        example = f"{phenotypes.samples[0]} there, {samples[0]} in {vcf}" if len(phenotypes) and samples else "none"
        what = f"it has no sample in common with the VCF {vcf} (the first: {example})"
        remedy = "Name samples as the VCF does; `bcftools query -l` lists its names."
        raise UserError(problem(phenotypes.path, what, remedy))
    absent, every = phenotypes.absent + len(phenotypes) - len(shared), phenotypes.absent + len(phenotypes)
    if absent:
        say(f"warning: {absent:,} of {every:,} samples of {phenotypes.path} are not in {vcf}: left out")
    if len(samples) > len(shared):
        without = len(samples) - len(shared)
        say(f"warning: {without:,} of {len(samples):,} samples of {vcf} have no phenotype: left out")
    return phenotypes.of(shared)


def check_variety(phenotypes: Phenotypes, folds: int) -> None:
    """Check that there is something to learn, and enough of it for the folds.

    Raises:
        UserError: one class or value only, too few cases, controls or individuals; covariates that say the same, or
            are too many.
    """
    found = Problems(f"The phenotypes {phenotypes.path} cannot be learned from:")
    name, least = phenotypes.name, 2 * folds
    remedy = f"Give at least {least}, or fewer --folds."
    if phenotypes.trait == "binary":
        cases, n = int(phenotypes.numbers.sum()), len(phenotypes)
        counts = {"cases": cases, "controls": n - cases}
        if 0 in counts.values():
            only = "case" if cases else "control"
            what = f"all {n} individuals with genotypes are {only}s"
            found.add(f"column {name}", what, "Give cases and controls.")
        else:
            for kind, count in counts.items():
                if count < least:
                    found.add(f"column {name}", f"there are {count} {kind} for {folds} folds", remedy)
    elif len(phenotypes) < least:
        found.add(f"column {name}", f"there are {len(phenotypes)} individuals for {folds} folds", remedy)
    elif np.ptp(phenotypes.numbers) == 0:
        found.add(f"column {name}", f"all its values are {phenotypes.numbers[0]:g}", "Give different values.")
    columns, smallest = len(phenotypes.covariates.names), len(phenotypes) * (folds - 2) // folds
    if smallest < PER_COVARIATE * columns:
        what = f"there are {columns} columns of covariates, and the smallest sets that models are fitted to have"
        what += f" {smallest} of the {len(phenotypes)} individuals"
        found.add("covariates", what, f"Give fewer: at least {PER_COVARIATE} individuals for each are needed.")
    phenotypes.covariates.check(phenotypes.numbers, found)
    found.raise_any()

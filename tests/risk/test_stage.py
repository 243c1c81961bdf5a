"""The stage `risk` on a cohort whose disease comes from what the toy predictor says of its haplotypes."""

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from toy_genotypes import indexed, write_cohort
from toy_risk import toy_cohort
from toys import World, read_fasta

from genebert.cli import main
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.haplotype_effects import haplotype_effects
from genebert.haplotypes import read_haplotypes
from genebert.inputs.genome import Genome
from genebert.predictor import Predictor
from genebert.risk import stage
from genebert.risk.covariates import Covariates
from genebert.risk.design import Genotypes, region_effects
from genebert.risk.phenotypes import Phenotypes
from genebert.risk.stage import risk
from genebert.settings import RiskSettings
from genebert.stage import read_manifest

N = 90
METHODS = [
    "GeneBERT",
    "GeneBERT attention",
    "GeneBERT + polygenic score",
    "polygenic score",
    "burden",
    "covariates",
]
TABLES = {
    "predictions": ["sample", "fold", "phenotype", *METHODS],
    "metrics": ["method", "measure", "value", "low", "high", "n"],
    "comparisons": ["method", "against", "measure", "difference", "low", "high"],
    "calibration": ["method", "bin", "predicted", "observed", "low", "high", "n"],
    "regions": [
        "rank",
        "region",
        "chrom",
        "start",
        "end",
        "weight",
        "p",
        "q",
        "carriers_cases",
        "carriers_controls",
        "variants",
        "mean_change_cases",
        "mean_change_controls",
        "top_tf",
        "top_tf_change",
    ],
    "attention": ["region", "attention"],
    "tfs": ["tf", "direction", "p", "q", "carriers_cases", "carriers_controls", "variants", "regions"],
    "convergence": ["region", "tf", "direction", "variant", "id", "carriers_cases", "carriers_controls", "change"],
    "convergence_tfs": [
        *("tf", "direction", "region", "variant", "id", "tf_change", "carriers_cases", "carriers_controls")
    ],
    "individuals": ["sample", "rank", "region", "change", "contribution"],
}


@dataclass(frozen=True)
class Case:
    """The inputs of `genebert risk`."""

    folder: Path
    world: World
    corpus: Path
    model: Path
    vcf: Path
    table: pd.DataFrame

    @property
    def pheno(self) -> Path:
        return self.folder / "pheno.tsv"

    def run(self, out: str = "out", table: pd.DataFrame | None = None, **changes: Any) -> Path:
        (self.table if table is None else table).to_csv(self.pheno, sep="\t", index=False)
        given = {"vcf": self.vcf, "phenotypes": self.pheno, "model": self.model, "genome": self.world.genome}
        given |= {"corpus": self.corpus, "out": self.folder / out, "device": "cpu", "folds": 3, "permutations": 1000}
        return risk(RiskSettings(**(given | {"phenotype": "disease"} | changes)))

    def read(self, out: Path, name: str) -> pd.DataFrame:
        return pd.read_csv(out / f"{name}.tsv", sep="\t", na_values=["."], keep_default_na=False)


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory, toy_world: World, toy: Corpus) -> Path:
    """Phased genotypes of three SNVs in each region of the toy corpus."""
    generator = np.random.default_rng(0)
    letters = read_fasta(toy_world.genome)
    lines = []
    for chrom, start in sorted(toy.regions[["chrom", "start"]].itertuples(index=False, name=None)):
        for offset in (20, 60, 61):
            ref = letters[chrom][start + offset]
            alt = "ACGT"["ACGT".index(ref) - int(generator.integers(1, 4))]
            calls = generator.binomial(1, 0.15, size=(N, 2))
            lines.append((chrom, start + offset, ref, alt, " ".join(f"{a}|{b}" for a, b in calls)))
    rows = [f"{chrom} {at + 1} v{chrom}_{at} {ref} {alt} {calls}" for chrom, at, ref, alt, calls in sorted(set(lines))]
    path = tmp_path_factory.mktemp("cohort") / "cohort.vcf"
    return indexed(write_cohort(path, [f"s{i}" for i in range(N)], *rows))


@pytest.fixture(scope="session")
def liability(cohort: Path, toy_world: World, toy_folder: Path, toy_predictor: Path, toy: Corpus) -> np.ndarray:
    """What the predictor says that three regions change, summed."""
    with Genome(toy_world.genome) as genome:
        found = read_haplotypes(cohort, genome, toy.regions[["chrom", "start", "end"]])
        effects = haplotype_effects(Predictor.open(toy_predictor, "cpu"), found, toy, [])
    changes = region_effects(found, effects.change.mean(axis=1, dtype=np.float64)).toarray()
    strong = np.argsort(-changes.std(axis=0))[:3]
    return (changes[:, strong] / changes[:, strong].std(axis=0)).sum(axis=1)


@pytest.fixture
def case(
    tmp_path: Path, toy_world: World, toy_folder: Path, toy_predictor: Path, cohort: Path, liability: np.ndarray
) -> Case:
    generator = np.random.default_rng(1)
    number = liability + 0.3 * generator.standard_normal(N)
    table = pd.DataFrame({"sample": [f"s{i}" for i in range(N)], "disease": (number > np.median(number)).astype(int)})
    table = table.assign(number=number, age=generator.integers(20, 80, N), sex=generator.choice(["M", "F"], N))
    table["family"] = np.where(np.arange(N) < 6, "f" + pd.Series(np.arange(N) // 2).astype(str), "")
    return Case(tmp_path, toy_world, toy_folder, toy_predictor, cohort, table)


def test_risk_of_a_cohort(case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    kinship = case.folder / "kinship.tsv"
    kinship.write_text("sample1\tsample2\tkinship\ns4\ts5\t0.25\ns7\ts8\t0.01\n")
    out = case.run(covariates=["age", "sex"], family="family", kinship=kinship, components=2)
    tables = {name: case.read(out, name) for name in TABLES}
    assert {name: list(table) for name, table in tables.items()} == TABLES
    predictions, metrics = tables["predictions"], tables["metrics"].set_index(["method", "measure"])
    assert predictions["sample"].tolist() == case.table["sample"].tolist()
    assert predictions["phenotype"].tolist() == case.table["disease"].tolist()
    assert predictions[METHODS].min().min() > 0
    assert predictions[METHODS].max().max() < 1
    assert (predictions["fold"][:6:2].to_numpy() == predictions["fold"][1:6:2].to_numpy()).all()
    assert metrics.loc[("GeneBERT", "AUROC"), "low"] > 0.6
    assert metrics.loc[("covariates", "AUROC"), "low"] < 0.6
    assert set(metrics.index.get_level_values("measure")) == {"AUROC", "AUPRC", "Brier"}
    assert set(tables["comparisons"]["against"]) == set(METHODS)
    regions = tables["regions"]
    assert regions["p"].is_monotonic_increasing
    assert regions["rank"].tolist() == list(range(1, len(regions) + 1))
    assert (regions["weight"] != 0).any()
    assert set(tables["convergence"]["region"]) <= set(regions["region"])
    facts = read_manifest(out, "risk", verify=True).metrics
    assert facts["covariates"] == ["age", "sex=M", "PC1", "PC2"]
    assert facts["families"] == N - 3
    assert facts["related_pairs"] == 1
    assert facts["missing_calls"]["share"] == 0
    assert facts["cases"] == case.table["disease"].sum()
    told = capsys.readouterr().err
    assert "2 of 2 principal components were found, and are covariates" in told
    assert "GeneBERT: AUROC 0." in told
    assert "For research only" in told
    assert not (out / "scratch").exists()


def test_a_quantitative_trait(case: Case) -> None:
    out = case.run(phenotype="number", cell_types=["B"])
    metrics = case.read(out, "metrics").set_index(["method", "measure"])
    assert set(metrics.index.get_level_values("measure")) == {"Pearson", "R2"}
    assert metrics.loc[("GeneBERT", "Pearson"), "low"] > 0.3
    predictions = case.read(out, "predictions")
    assert np.allclose(predictions["phenotype"], case.table["number"], rtol=1e-5)
    facts = read_manifest(out).metrics
    assert facts["trait"] == "quantitative"
    assert facts["cell_types"] == ["B"]


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def test_the_same_inputs_give_the_same_bytes_also_after_an_interruption(
    case: Case, toy: Corpus, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    regions = case.folder / "regions.bed"
    toy.regions[["chrom", "start", "end"]].head(12).to_csv(regions, sep="\t", header=False, index=False)
    first = case.run("first", regions=regions)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stage, "validate", stop)
        with pytest.raises(KeyboardInterrupt):
            case.run("second", regions=regions)
    assert list((case.folder / "second.partial/scratch").rglob("*.np*"))

    def fail(*_: object) -> None:
        raise AssertionError("it was scored before")

    monkeypatch.setattr("genebert.haplotype_effects._read_block", fail)
    second = case.run("second", regions=regions)
    assert bytes_of(first) == bytes_of(second)
    assert read_manifest(first).metrics == read_manifest(second).metrics
    assert case.run("second", regions=regions) == second
    assert "already there" in capsys.readouterr().err


def test_regions_can_be_those_of_a_file(case: Case, toy: Corpus) -> None:
    table = toy.regions[["chrom", "start", "end"]].head(12).copy()
    table["end"] -= 40
    table["name"] = [f"peak{i}" for i in range(12)]
    bed = case.folder / "regions.bed"
    table.to_csv(bed, sep="\t", header=False, index=False)
    regions = case.read(case.run(regions=bed), "regions").set_index("region")
    assert set(regions.index) == set(table["name"])
    assert ((regions["end"] - regions["start"]) == toy.width).all()
    assert regions.loc["peak3", "start"] == table["start"].iloc[3] - 20


def test_cell_types_only_choose_regions_for_a_predictor_that_knows_none(
    case: Case, sequence_predictor: Path, toy: Corpus
) -> None:
    out = case.run(model=sequence_predictor, cell_types=["B"])
    facts = read_manifest(out).metrics
    assert facts["cell_types"] == ["all"]
    assert facts["regions"] == len(toy.accessible(toy.cell_type_indices(["B"])[0])) < len(toy.regions)


def test_a_sequence_predictor_needs_no_corpus(case: Case, sequence_predictor: Path, toy: Corpus) -> None:
    bed = case.folder / "regions.bed"
    toy.regions[["chrom", "start", "end"]].head(10).to_csv(bed, sep="\t", header=False, index=False)
    out = case.run(model=sequence_predictor, corpus=None, regions=bed)
    assert read_manifest(out).metrics["cell_types"] == ["all"]


def test_mismatches_are_allowed_as_far_as_the_setting_says(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    with gzip.open(case.vcf, "rt") as handle:
        lines = [line.split("\t") for line in handle]
    for row in lines[10::20]:
        row[3] = next(base for base in "ACGT" if base not in row[3:5])
    vcf = case.folder / "mismatched.vcf"
    vcf.write_text("".join("\t".join(row) for row in lines))

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stage, "score", stop)
    with pytest.raises(UserError, match="correct these records, or raise --max-mismatches"):
        case.run(vcf=vcf)
    with pytest.raises(KeyboardInterrupt):
        case.run(vcf=vcf, max_mismatches=0.2)


BAD: dict[str, tuple[Callable[[Case], dict[str, Any]], str]] = {
    "no regions": (lambda case: {"corpus": None}, "--corpus and --regions: neither is given"),
    "no corpus": (
        lambda case: {"corpus": None, "regions": case.world.peaks / "B.narrowPeak"},
        "this model predicts per cell type. Add --corpus, a folder made by prepare.",
    ),
    "unknown cell type": (lambda case: {"cell_types": ["X"]}, "the corpus has no cell type 'X'; it has B, NK, T"),
    "no phenotype": (lambda case: {"phenotypes": case.folder / "none.tsv"}, "no such file or folder (given as pheno"),
    "unknown column": (lambda case: {"phenotype": "bmi"}, "it has no column 'bmi'"),
    "many folds": (lambda case: {"folds": 30}, "for 30 folds. Give at least 60, or fewer --folds."),
    "other samples": (
        lambda case: {"table": case.table.assign(sample=[f"x{i}" for i in range(N)])},
        "it has no sample in common with the VCF",
    ),
    "collinear": (
        lambda case: {"table": case.table.assign(twice=2 * case.table["age"]), "covariates": ["age", "twice"]},
        "covariate twice: it follows from the others (they are collinear)",
    ),
    "many components": (
        lambda case: {"components": 20},
        "there are 20 columns of covariates, and the smallest sets that models are fitted to have 30 of the 90",
    ),
    "one class": (lambda case: {"table": case.table.assign(disease=1)}, "all 90 individuals with genotypes are cases"),
    "no model": (lambda case: {"model": case.corpus}, "it was made by `genebert prepare`"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_and_leaves_nothing(case: Case, name: str) -> None:
    changes, message = BAD[name]
    with pytest.raises(UserError) as error:
        case.run(**changes(case))
    assert message in str(error.value)
    assert not (case.folder / "out").exists()
    assert not (case.folder / "out.partial").exists()


def test_components_are_counted_and_none_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = dict.fromkeys(("vcf", "phenotypes", "model", "genome", "out"), Path("nowhere"))
    settings = RiskSettings(**nowhere, components=3)
    toy = toy_cohort(n=100, regions=10, frequency=(0.1, 0.3))
    genotypes = Genotypes.of(toy.cohort)
    covariates = Covariates((), np.empty((100, 0)))
    phenotypes = Phenotypes(Path("p.tsv"), toy.cohort.samples, "ill", "binary", toy.cases, covariates, [""] * 100, 0)
    found = stage._with_components(settings, genotypes, phenotypes)
    assert found.covariates.names == ("PC1", "PC2", "PC3")
    fewer = genotypes.columns(slice(3))
    assert stage._with_components(settings, fewer, phenotypes).covariates.names == ("PC1", "PC2")
    assert "warning: 2 of 3 principal components were found, and are covariates" in capsys.readouterr().err
    none = genotypes.columns(slice(1))
    with pytest.raises(UserError, match="--components: the 1 variants in the regions have no principal components"):
        stage._with_components(settings, none, phenotypes)
    repeated = phenotypes.with_covariates(found.covariates.names, found.covariates.numbers)
    with pytest.raises(UserError, match=r"covariate PC1: it follows from the others \(they are collinear\)"):
        stage._with_components(settings, genotypes, repeated)


def test_the_command_line(case: Case) -> None:
    case.table.to_csv(case.pheno, sep="\t", index=False)
    words = ["risk", "--vcf", case.vcf, "--phenotypes", case.pheno, "--model", case.model, "--genome"]
    words += [case.world.genome, "--corpus", case.corpus, "--phenotype", "disease", "--covariates", "age,nothing"]
    result = CliRunner().invoke(main, [*map(str, words), "--out", str(case.folder / "out")])
    assert result.exit_code == 2
    assert "line 1: there is no column 'nothing'" in result.output
    assert "Traceback" not in result.output
    shutil.rmtree(case.folder)

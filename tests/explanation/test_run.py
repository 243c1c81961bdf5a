from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toys import WIDTH, World

from genebert.corpus.store import Corpus
from genebert.corpus.training import evidence_moments
from genebert.errors import UserError
from genebert.explanation import run as running
from genebert.explanation.locus import Locus
from genebert.explanation.run import explain
from genebert.explanation.scores import LogOdds, explainable
from genebert.inputs.genome import Genome
from genebert.inputs.motifs import read_motifs
from genebert.methods.base import Examples
from genebert.methods.genebert import shown_of
from genebert.predictor import Predictor
from genebert.region_matrix import Context, RegionMatrix, in_cell_type, region_matrix
from genebert.schema import reverse_complement
from genebert.settings import ExplainSettings
from genebert.stage import read_manifest
from genebert.tokens import sequence_tokens


def settings(out: Path, model: Path, corpus: Path, **changes: object) -> ExplainSettings:
    return ExplainSettings(**{"out": out, "model": model, "corpus": corpus, "device": "cpu", **changes})


def test_log_odds_are_the_mean_over_networks_and_strands(toy_predictor: Path, toy: Corpus) -> None:
    predictor = Predictor.open(toy_predictor, "cpu")
    networks = explainable(predictor, toy)
    assert len(networks) == 2
    region = np.array([4, 9, 20])
    codes = toy.sequence[region]
    score = LogOdds(networks, codes, toy.evidence[region])
    window = np.array([2, 0, 2, 1])
    cell_type = np.array([0, 1, 2, 0])
    matrix = region_matrix(toy, region[window], cell_type, networks[0].config.region_columns)
    where = Context(toy, cell_type, toy.region_positions[region[window]])
    matrix = in_cell_type(matrix, where, toy.width, shown_of(networks[0].config))
    found = score(matrix, torch.from_numpy(window))
    expected = []
    for network in networks:
        for strand in (codes[window], reverse_complement(codes[window])):
            ids, segments = map(torch.from_numpy, sequence_tokens(strand, network.config.k))
            with torch.no_grad():
                logits = network(ids, segments, matrix, torch.from_numpy(strand))
            expected.append(logits[:, 1] - logits[:, 0])
    assert torch.allclose(found, torch.stack(expected).mean(dim=0), atol=1e-4)


def test_the_mean_is_that_of_the_training_regions(toy: Corpus) -> None:
    training = np.asarray(toy.evidence)[toy.split == 0]
    assert 0 < len(training) < len(toy.evidence)
    assert np.allclose(evidence_moments(toy)[0], training.mean(axis=0), atol=1e-4)


class ThirdMotif:
    """Stands in for a predictor that counts the evidence of the third motif in the window's own column."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, matrix: RegionMatrix, window: torch.Tensor) -> torch.Tensor:
        return (matrix.evidence.float()[..., 2] * matrix.own).sum(dim=1) / 16


def test_a_planted_motif_is_found_with_its_effect(
    toy_predictor: Path, toy_folder: Path, toy: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "LogOdds", ThirdMotif)
    out = explain(settings(tmp_path / "out", toy_predictor, toy_folder, pairs=3, top=2))
    table = pd.read_csv(out / "importance.tsv", sep="\t")
    assert sorted(table["measure"].unique()) == [
        f"{what}, {columns}" for what in ("gradient x input", "occlusion") for columns in ("all", "own")
    ]
    means = {
        name: (np.asarray(toy.evidence)[toy.accessible(i), 2] - float(evidence_moments(toy)[0][2])) / 16
        for i, name in enumerate(toy.cell_types)
    }
    overall = np.mean([values.mean() for values in means.values()])
    for row in table.to_dict("records"):
        planted = row["motif"] == toy.motifs[2].id
        values = means[row["cell_type"]] if planted else np.zeros(1)
        assert row["effect"] == pytest.approx(values.mean(), abs=1e-4)
        assert row["absolute"] == pytest.approx(np.abs(values).mean(), abs=1e-4)
        assert row["specific"] == pytest.approx(values.mean() - overall * planted, abs=1e-4)
        assert (row["rank"] == 1) is planted
        assert row["effect_low"] <= row["effect"] + 1e-5 and row["effect"] <= row["effect_high"] + 1e-5
    pairs = pd.read_csv(out / "pairs.tsv", sep="\t")
    assert len(pairs) == 3 * 3
    assert np.allclose(pairs["interaction"], 0, atol=1e-4)
    best = read_motifs(str(out / "motifs/0-B.meme"))
    assert best[0].id == toy.motifs[2].id and len(best) == 2
    assert np.allclose(best[0].probabilities, toy.motifs[2].probabilities, atol=1e-6)
    page = (out / "explanation.html").read_text()
    assert (
        page.count("<svg") == 1 and toy.motifs[2].name in page and "http" not in page.replace("http://www.w3.org", "")
    )


@pytest.fixture(scope="module")
def explained(
    toy_predictor: Path, toy_folder: Path, toy_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return explain(
        settings(
            tmp_path_factory.mktemp("explain") / "out",
            toy_predictor,
            toy_folder,
            genome=toy_world.genome,
            cell_types=["T", "B"],
            per_cell_type=12,
            most_motifs=4,
            pairs=2,
            locus="chr3:1,000-1,030",
        )
    )


def test_what_is_written(explained: Path, toy: Corpus) -> None:
    names = ["explanation.html", "importance.tsv", "locus.tsv", "manifest.json", "motifs", "pairs.tsv"]
    assert sorted(path.name for path in explained.iterdir()) == names
    table = pd.read_csv(explained / "importance.tsv", sep="\t")
    counts = table.groupby("measure")["motif"].nunique()
    assert counts["occlusion, all"] == 4 and counts["gradient x input, own"] == len(toy.motifs)
    metrics = read_manifest(explained).metrics
    assert metrics["regions"] == {"T": 12, "B": 12}
    assert "on 12 accessible regions of each cell type of" in (explained / "explanation.html").read_text()
    assert metrics["motif_files"] == {"T": "motifs/0-T.meme", "B": "motifs/1-B.meme"}


def test_both_measures_of_a_network_agree_to_first_order(explained: Path) -> None:
    table = pd.read_csv(explained / "importance.tsv", sep="\t")
    grid = table.pivot_table(index=["cell_type", "motif"], columns="measure", values="effect").dropna()
    assert np.corrcoef(grid["occlusion, all"], grid["gradient x input, all"])[0, 1] > 0.5


def test_mutations_of_a_locus_are_predictions_of_the_edited_window(
    explained: Path, toy_predictor: Path, toy: Corpus, toy_world: World
) -> None:
    table = pd.read_csv(explained / "locus.tsv", sep="\t")
    assert table["cell_type"].unique().tolist() == ["T", "B"]
    assert len(table) == 2 * 30 * 3
    assert (table["position"].min(), table["position"].max()) == (1000, 1029)
    assert table["chrom"].unique().tolist() == ["chr3"]
    locus = Locus.parse("chr3:1000-1030", toy)
    with Genome(toy_world.genome) as genome:
        codes = genome.fetch("chr3", locus.window, locus.window + WIDTH)
    row = table.iloc[50]
    edited = codes.copy()
    edited[row["position"] - locus.window] = "ACGT".index(row["mutated_to"])
    assert "ACGT"[codes[row["position"] - locus.window]] == row["base"]
    position = np.repeat(toy.line_positions(["chr3"], np.array([locus.window + WIDTH // 2])), 2)
    context = Context(toy, np.repeat(toy.cell_type_indices([row["cell_type"]]), 2), position)
    predictor = Predictor.open(toy_predictor, "cpu")
    both = predictor.ensemble.predict(
        Examples(np.stack([codes, edited]), toy.scanner, context=context, cell_types=len(toy.cell_types))
    )
    before, after = np.log(both[:, 1]) - np.log(both[:, 0])
    assert row["difference"] == pytest.approx(after - before, abs=2e-4)


def test_a_locus_inside_a_region_is_seen_in_its_window(toy: Corpus) -> None:
    region = toy.regions.iloc[5]
    start, chrom = int(region["start"]), region["chrom"]
    assert Locus.parse(f"{chrom}:{start + 3}-{start + 9}", toy) == Locus(chrom, start + 3, start + 9, start)
    assert Locus.parse(f"{chrom.removeprefix('chr')}:{start + 3}-{start + 9}", toy).chrom == chrom
    outside = Locus.parse(f"{chrom}:0-20", toy)
    assert outside.window == 10 - WIDTH // 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chr1", "it is no interval"),
        ("chr1:,-5", "it is no interval"),
        ("chr9:1-5", "the genome has no chromosome chr9; it has chr1, chr2, chr3"),
        ("chr1:5-5", "it is empty"),
        ("chr1:19990-20001", "not within chr1, which has 20,000 bp"),
        ("chr1:0-129", "it has 129 bp, and the model sees 128"),
    ],
)
def test_intervals_that_cannot_be_mutated(text: str, message: str, toy: Corpus) -> None:
    with pytest.raises(UserError, match=message):
        Locus.parse(text, toy)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"locus": "chr1:0-9"}, "Add --genome"),
        ({"cell_types": ["Q"]}, "has no cell type 'Q'"),
        ({"cell_types": ["B"], "locus": "chr1:0-9", "genome": "genome"}, "B is the only one"),
        ({"regions": "chr1\t0\t5\n"}, "none of its intervals overlaps a region"),
        ({"regions": "first"}, "fewer than two accessible regions of B"),
    ],
)
def test_calls_that_cannot_be_answered(
    changes: dict[str, object],
    message: str,
    toy_predictor: Path,
    toy_folder: Path,
    toy_world: World,
    tmp_path: Path,
) -> None:
    if "regions" in changes:
        first = Corpus.open(toy_folder).regions.iloc[0]
        text = str(changes["regions"]).replace("first", f"{first.chrom}\t{first.start}\t{first.end}\n")
        (tmp_path / "some.bed").write_text(text)
        changes = {"regions": tmp_path / "some.bed"}
    if "genome" in changes:
        changes = {**changes, "genome": toy_world.genome}
    with pytest.raises(UserError, match=message):
        explain(settings(tmp_path / "out", toy_predictor, toy_folder, **changes))


def test_predictors_without_cell_types_are_refused(sequence_predictor: Path, toy_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it knows no cell types"):
        explain(settings(tmp_path / "out", sequence_predictor, toy_folder))

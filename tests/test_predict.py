"""Predictions in cell types that were added to a corpus; most else about the stages is in test_finetune.py."""

import math
from pathlib import Path

import pandas as pd
import pyBigWig
import pytest
import toys
from toys import World

from genebert.add_cell_type import add_cell_type
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.predict import evaluate, predict
from genebert.schema import decode
from genebert.settings import AddCellTypeSettings, EvaluateSettings, PredictSettings, VariantsSettings
from genebert.stage import read_manifest
from genebert.tasks.accessibility import Accessibility
from genebert.tasks.labels import labels
from genebert.variants.run import variants


@pytest.fixture(scope="module")
def with_x(toy_world: World, toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy corpus and X, whose peaks are a third each of those of B, NK and T."""
    folder = tmp_path_factory.mktemp("with")
    lines = [(toy_world.peaks / f"{name}.narrowPeak").read_text().splitlines() for name in toys.CELL_TYPES]
    peaks = dict.fromkeys(line for i, one in enumerate(lines) for line in one[i::3])
    path = toys.write_peaks(folder / "X.narrowPeak", peaks)
    chosen = {"corpus": toy_folder, "genome": toy_world.genome, "peaks": [path]}
    return add_cell_type(AddCellTypeSettings(out=folder / "corpus", **chosen))


def test_a_predictor_predicts_in_a_cell_type_that_it_never_saw(
    toy_world: World, toy_folder: Path, toy_predictor: Path, with_x: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t1000\t1128\nchr3\t5000\t5128\n")
    tables = []
    for corpus in (toy_folder, with_x):
        chosen = {"windows": bed, "model": toy_predictor, "genome": toy_world.genome, "corpus": corpus}
        out = predict(PredictSettings(out=tmp_path / corpus.parent.name, device="cpu", **chosen))
        tables.append(pd.read_csv(out / "predictions.tsv", sep="\t"))
    before, after = tables
    assert after["cell_type"].tolist() == ["B", "NK", "T", "X"] * 2
    pd.testing.assert_frame_equal(
        after[after["cell_type"] != "X"].reset_index(drop=True), before, check_dtype=False, atol=1e-5
    )
    assert (before["cell_type_p"] == 1).all()
    (found,) = read_manifest(out).metrics["cell_type_distances"]
    assert (found["cell_type"], found["known"], found["distance"] > 0) == ("X", 3, True)
    assert after["cell_type_p"][after["cell_type"] == "X"].tolist() == pytest.approx([found["p"]] * 2)


def test_predictions_are_put_together_with_labels_of_known_cell_types(
    toy_world: World, toy_predictor: Path, with_x: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t1000\t1060\nchr3\t5000\t5060\n")
    labelled = tmp_path / "known.csv"
    labelled.write_text("chrom,start,end,cell_type,label\nchr3,1000,1060,B,1\nchr3,1000,1060,T,1\nchr1,1000,1060,B,0\n")
    chosen = {"windows": bed, "model": toy_predictor, "genome": toy_world.genome, "corpus": with_x}
    tables = []
    for name, known in (("alone", None), ("together", labelled)):
        out = predict(PredictSettings(out=tmp_path / name, device="cpu", cell_types=["X", "B"], known=known, **chosen))
        tables.append(pd.read_csv(out / "predictions.tsv", sep="\t"))
    alone, together = tables
    assert "known" not in alone
    # in X, two labels of 1 and the share of all, 2/3, as one more; in B, its own is not looked at; elsewhere, none
    assert together["known"].tolist() == pytest.approx([8 / 9, 5 / 6, math.nan, math.nan], nan_ok=True, abs=1e-5)
    odds = alone["p(1)"] / alone["p(0)"] * together["known"] / (1 - together["known"])
    expected = (odds**0.5 / (1 + odds**0.5)).where(together["known"].notna(), alone["p(1)"])
    assert together["p(1)"].tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    manifest = read_manifest(out)
    assert manifest.inputs["known"]["path"] == str(labelled) and manifest.metrics["rows_with_known_labels"] == 2
    chosen |= {"device": "cpu", "cell_types": ["X", "B"], "known": labelled}
    folders = {
        form: predict(PredictSettings(out=tmp_path / form, format=form, **chosen))
        for form in ("parquet", "bed", "bigwig")
    }
    probabilities = pytest.approx(together["p(1)"].tolist(), abs=1e-5)
    assert pd.read_parquet(folders["parquet"] / "predictions.parquet")["p(1)"].tolist() == probabilities
    assert pd.read_csv(folders["bed"] / "predictions.bed", sep="\t", header=None)[6].tolist() == probabilities
    tracks = [pyBigWig.open(str(folders["bigwig"] / f"predictions.{name}.bw")) for name in ("X", "B")]
    at = [track.values("chr3", start, start + 1)[0] for start in (1000, 5000) for track in tracks]
    assert at == probabilities


def test_known_labels_need_a_predictor_of_two_classes_in_cell_types(
    sequence_predictor: Path, toy_sequences: Path, tmp_path: Path
) -> None:
    fasta = tmp_path / "some.fa"
    fasta.write_text(">one\n" + "ACGT" * 16 + "\n")
    settings = PredictSettings(
        out=tmp_path / "out", windows=fasta, model=sequence_predictor, known=toy_sequences, device="cpu"
    )
    with pytest.raises(UserError, match="--known: it has no use here"):
        predict(settings)


def test_a_predictor_is_measured_in_a_cell_type_that_it_never_saw(
    toy_world: World, toy_predictor: Path, with_x: Path, tmp_path: Path
) -> None:
    made = labels(Accessibility(out=tmp_path / "labels", corpus=with_x, genome=toy_world.genome))
    table = pd.read_csv(made / "labels.tsv", sep="\t")
    table[table["cell_type"] == "X"].to_csv(tmp_path / "x.tsv", sep="\t", index=False)
    chosen = {"labels": tmp_path / "x.tsv", "model": toy_predictor, "genome": toy_world.genome, "corpus": with_x}
    out = evaluate(EvaluateSettings(out=tmp_path / "measured", device="cpu", **chosen))
    measured = pd.read_csv(out / "predictions.tsv", sep="\t")
    assert set(measured["cell_type"]) == {"X"}
    (found,) = read_manifest(out).metrics["cell_type_distances"]
    assert measured["cell_type_p"].tolist() == pytest.approx([found["p"]] * len(measured))


def test_variants_are_scored_in_a_cell_type_that_the_predictor_never_saw(
    toy_world: World, toy_predictor: Path, with_x: Path, tmp_path: Path
) -> None:
    with Genome(toy_world.genome) as genome:
        ref = decode(genome.fetch("chr3", 1000, 1001))
    alt = "A" if ref != "A" else "C"
    header = "##fileformat=VCFv4.2\n##contig=<ID=chr3>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    vcf = tmp_path / "one.vcf"
    vcf.write_text(f"{header}chr3\t1001\t.\t{ref}\t{alt}\t.\t.\t.\n")
    chosen = {"vcf": vcf, "model": toy_predictor, "genome": toy_world.genome, "corpus": with_x}
    made = VariantsSettings(out=tmp_path / "scored", device="cpu", everywhere=True, null=0, mutagenesis=0, **chosen)
    metrics = read_manifest(variants(made)).metrics
    assert metrics["cell_types"] == ["B", "NK", "T", "X"]
    assert [one["cell_type"] for one in metrics["cell_type_distances"]] == ["X"]

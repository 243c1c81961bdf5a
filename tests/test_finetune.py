import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toys import World, corpus_of, random_bases, random_corpus, reverse_complement

from genebert import calibration
from genebert.corpus.store import Corpus
from genebert.embedding.run import embed
from genebert.errors import UserError
from genebert.explanation.run import explain
from genebert.finetune import _say_learned_cell_types, _say_usage_untold, _tells_strands, finetune, method_of
from genebert.inputs.genome import Genome
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled, LabelledFiles, read_labelled
from genebert.methods.motif_trees import MotifTrees
from genebert.model.genebert import GeneBertModel
from genebert.predict import evaluate, predict
from genebert.predictor import Predictor
from genebert.report.build import report
from genebert.report.sections.predictor import _predictor_prose
from genebert.schema import decode
from genebert.settings import (
    EmbedSettings,
    EvaluateSettings,
    ExplainSettings,
    FinetuneSettings,
    PredictSettings,
    ReportSettings,
    VariantsSettings,
)
from genebert.stage import read_manifest
from genebert.target import Target, best_threshold
from genebert.tasks.windows import Windows
from genebert.variants.run import variants

WEIGHTS = "members/0-genebert/model.safetensors"


def settings(labels: Path, model: Path, out: Path, **changes: object) -> FinetuneSettings:
    return FinetuneSettings(
        **{
            "labels": labels,
            "model": model,
            "out": out,
            "epochs": 1,
            "batch_size": 16,
            "scratch": False,
            "baselines": [],
            "device": "cpu",
            **changes,
        }
    )


def rows_of(*columns: str, seed: int = 1, length: int = 60) -> list[list[str]]:
    """Sequences that hold GATAAG, CACGTG, both or neither, with what they are labelled, and a split."""
    generator = np.random.default_rng(seed)
    rows = []
    for split, count in (("train", 64), ("valid", 32), ("test", 32)):
        for i in range(count):
            letters = random_bases(length, generator).replace("GATA", "GACA").replace("CACG", "CATG")
            gata, ebox = i % 2, i // 2 % 2
            letters = letters[:10] + "GATAAG" * gata + letters[10 + 6 * gata :]
            letters = letters[:40] + "CACGTG" * ebox + letters[40 + 6 * ebox :]
            known = {"label": str(gata), "label:GATA": str(gata), "label:Ebox": str(ebox) if i % 7 else ""}
            known |= {"value": f"{20 + 3 * gata - 3 * ebox + generator.normal(scale=0.3):.3f}"}
            known |= {"three": ("neither", "one", "both")[gata + ebox]}
            rows.append([letters, *(known[column] for column in columns), split])
    return rows


def write_rows(path: Path, columns: list[str], rows: list[list[str]]) -> Path:
    path.write_text("\n".join(",".join(row) for row in [["sequence", *columns, "split"], *rows]) + "\n")
    return path


def results_of(folder: Path, method: str = "pre-trained") -> dict[str, float]:
    """The values of a method's measures."""
    return {row["metric"]: row["value"] for row in read_manifest(folder).metrics["results"] if row["method"] == method}


def test_every_method_is_measured_on_the_same_rows_with_interval_and_seeds(toy_predictor: Path) -> None:
    metrics = read_manifest(toy_predictor, "finetune").metrics
    found = {(row["method"], row["metric"]): row for row in metrics["results"]}
    assert {method for method, _ in found} == {"ensemble", "pre-trained", "from scratch", "k-mer regression"}
    assert found["pre-trained", "AUROC"]["seeds"] == found["from scratch", "AUROC"]["seeds"] == 2
    table = pd.read_csv(toy_predictor / "test_predictions.tsv", sep="\t")
    assert len(table) == metrics["rows"]["test"]
    assert set(table["chrom"]) == {"chr3"}
    auroc = roc_auc_score(table["label"], table["k-mer regression: 1"])
    assert found["k-mer regression", "AUROC"]["value"] == pytest.approx(auroc, abs=1e-4)
    curves = pd.read_csv(toy_predictor / "curves.tsv", sep="\t")
    assert set(curves["method"]) == {"pre-trained", "from scratch"} and set(curves["seed"]) == {0, 1}


def test_same_seed_same_weights(toy_sequences: Path, toy_model: Path, tmp_path: Path) -> None:
    first, second = (finetune(settings(toy_sequences, toy_model, tmp_path / name)) for name in "ab")
    assert (first / WEIGHTS).read_bytes() == (second / WEIGHTS).read_bytes()


def test_predictions_of_evaluate_and_predict_are_those_of_finetuning(
    toy_sequences: Path, sequence_predictor: Path, tmp_path: Path
) -> None:
    reference = pd.read_csv(sequence_predictor / "test_predictions.tsv", sep="\t")
    measured = evaluate(
        EvaluateSettings(labels=toy_sequences, model=sequence_predictor, out=tmp_path / "e", device="cpu")
    )
    table = pd.read_csv(measured / "predictions.tsv", sep="\t")
    assert np.allclose(table["p(1)"], reference["calibrated: 1"], atol=1e-5)
    ours = {r["metric"]: r["value"] for r in read_manifest(measured).metrics["results"]}
    theirs = {r["metric"]: r["value"] for r in read_manifest(sequence_predictor).metrics["results"]}
    assert ours == pytest.approx(theirs, abs=1e-6)
    everything = predict(
        PredictSettings(windows=toy_sequences, model=sequence_predictor, out=tmp_path / "p", device="cpu")
    )
    predicted = pd.read_csv(everything / "predictions.tsv", sep="\t")
    assert len(predicted) == 120
    assert np.allclose(predicted.loc[predicted["split"] == "test", "p(1)"], table["p(1)"], atol=1e-5)
    assert np.allclose(predicted[["p(0)", "p(1)"]].sum(axis=1), 1, atol=1e-5)


def test_bed_windows_are_predicted_in_every_cell_type_and_fasta_as_sequences(
    toy_world: World, toy_folder: Path, toy_predictor: Path, sequence_predictor: Path, tmp_path: Path
) -> None:
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t1000\t1128\nchr3\t5000\t5128\n")
    out = predict(
        PredictSettings(
            windows=bed,
            model=toy_predictor,
            genome=toy_world.genome,
            corpus=toy_folder,
            out=tmp_path / "bed",
            device="cpu",
        )
    )
    table = pd.read_csv(out / "predictions.tsv", sep="\t")
    assert list(table["cell_type"]) == ["B", "NK", "T"] * 2
    fasta = tmp_path / "windows.fa"
    fasta.write_text(f">one\n{'ACGTA' * 12}\n>two\n{'GGATA' * 12}\n")
    out = predict(PredictSettings(windows=fasta, model=sequence_predictor, out=tmp_path / "fasta", device="cpu"))
    assert list(pd.read_csv(out / "predictions.tsv", sep="\t")["sequence_id"]) == ["one", "two"]


def test_multi_class_labels(toy_world: World, toy_model: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    rows = [
        f"{''.join(generator.choice(list(bases), 60))},{name},{split}"
        for split in ("train",) * 4 + ("valid", "test")
        for name, bases in (("AT", "AT"), ("CG", "CG"), ("all", "ACGT"))
        for _ in range(6)
    ]
    path = tmp_path / "three.csv"
    path.write_text("sequence,label,split\n" + "\n".join(rows) + "\n")
    out = finetune(settings(path, toy_model, tmp_path / "three", epochs=3, learning_rate=2e-3))
    results = {row["metric"]: row["value"] for row in read_manifest(out).metrics["results"]}
    assert set(results) == {"accuracy", "macro-F1", "MCC"}
    assert results["accuracy"] > 0.6  # composition tells them apart
    assert Predictor.open(out, "cpu").target.names == ("AT", "CG", "all")
    vcf = tmp_path / "v.vcf"
    vcf.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    with pytest.raises(
        UserError, match="the model predicts AT, CG, all, and alleles are scored by the log-odds of two"
    ):
        variants(VariantsSettings(vcf=vcf, model=out, genome=toy_world.genome, out=tmp_path / "v", device="cpu"))


def evaluated(labels: Path, model: Path, out: Path) -> Path:
    return evaluate(EvaluateSettings(labels=labels, model=model, out=out, device="cpu"))


def test_a_single_training_chromosome_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    places = [(chrom, start) for chrom in ("chr1", "chr2", "chr3") for start in (100, 400)]
    members = {"B": {0: 1.0, 2: 1.0, 4: 1.0}, "T": {1: 1.0, 3: 1.0, 5: 1.0}}
    for test, told in ((["chr3"], False), (["chr2", "chr3"], True)):
        corpus = corpus_of(places, members, test=test)
        _say_usage_untold(Labelled({}, Target("classes", ("0", "1")), Scanner(corpus.motifs), corpus))
        assert ("warning: toy: all training regions lie on chr1" in capsys.readouterr().err) is told


def test_a_class_that_nothing_measures_is_told(
    toy_model: Path, toy_sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One label 2 made three classes of two without a word."""
    header, first, *rest = toy_sequences.read_text().splitlines()
    letters, _, split = first.split(",")
    assert split == "train"
    path = tmp_path / "slip.csv"
    path.write_text("\n".join([header, f"{letters},2,train", *rest]) + "\n")
    capsys.readouterr()
    finetune(settings(path, toy_model, tmp_path / "slip", network=False, ensemble=["motif-trees"]))
    said = capsys.readouterr().err
    assert f"warning: {path}: class 2 has 1 training rows, and none among valid and test rows" in said
    assert "class 1 has" not in said


@pytest.mark.parametrize("divided", [False, True])
def test_measures_of_the_very_rows_that_were_learned_from_are_told_to_be(
    divided: bool, toy_model: Path, toy_sequences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, given = toy_sequences, {}
    if not divided:  # a file per split, none of which says which
        header, *rows = toy_sequences.read_text().splitlines()
        for name in ("train", "valid", "test"):
            own = [row.removesuffix(f",{name}") for row in rows if row.endswith(f",{name}")]
            given[name] = tmp_path / f"{name}.csv"
            given[name].write_text("\n".join([header.removesuffix(",split"), *own]) + "\n")
        path = given.pop("train")
    out = finetune(settings(path, toy_model, tmp_path / "model", network=False, ensemble=["motif-trees"], **given))
    capsys.readouterr()
    evaluate(EvaluateSettings(labels=path, model=out, out=tmp_path / "again", device="cpu"))
    assert ("warning: the model was fitted to this very file" in capsys.readouterr().err) is not divided


def test_how_many_rows_repeat_another_is_said_in_evaluation(
    sequence_predictor: Path, toy_world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They once vanished without a word."""
    labels = tmp_path / "labels.csv"
    rows = [f"chr3,{start},{start + 60},{label}" for start, label in ((1000, 1), (2000, 0), (1000, 1), (1000, 0))]
    labels.write_text("\n".join(["chrom,start,end,label", *rows]) + "\n")
    out = tmp_path / "e"
    options = {"labels": labels, "model": sequence_predictor, "genome": toy_world.genome, "device": "cpu"}
    assert read_manifest(evaluate(EvaluateSettings(out=out, **options))).metrics["rows"] == 3
    assert "labels.csv: rows left out, since they repeat another: 1\n" in capsys.readouterr().err


def test_several_labels_at_once(toy_model: Path, tmp_path: Path) -> None:
    columns = ["label:GATA", "label:Ebox"]
    rows = rows_of(*columns)
    path = write_rows(tmp_path / "labels.csv", columns, rows)
    out = finetune(settings(path, toy_model, tmp_path / "out", epochs=2, baselines=["kmer-regression"]))
    table = pd.read_csv(out / "test_predictions.tsv", sep="\t")
    results = results_of(out, "k-mer regression")
    for name in ("GATA", "Ebox"):
        known = table[f"label:{name}"].notna()
        expected = roc_auc_score(table.loc[known, f"label:{name}"], table.loc[known, f"k-mer regression: {name}"])
        assert results[f"AUROC: {name}"] == pytest.approx(expected, abs=1e-4)
    assert results["AUROC"] == pytest.approx((results["AUROC: GATA"] + results["AUROC: Ebox"]) / 2)
    measured = evaluated(path, out, tmp_path / "e")
    assert results_of(measured) == pytest.approx(results_of(out), abs=1e-6)
    predicted = pd.read_csv(measured / "predictions.tsv", sep="\t")
    assert np.allclose(predicted[["p(GATA)", "p(Ebox)"]], table[["calibrated: GATA", "calibrated: Ebox"]], atol=1e-5)

    test = [[letters, "0", ebox, "test"] for letters, _, ebox, split in rows if split == "test"]
    some = evaluated(write_rows(tmp_path / "some.csv", columns, test), out, tmp_path / "some")
    assert set(results_of(some)) == {"AUROC", "AUROC: Ebox", "AUPRC", "AUPRC: Ebox"}
    unknown = write_rows(tmp_path / "unknown.csv", columns, [[row[0], "1", "", row[3]] for row in test])
    with pytest.raises(UserError, match=r"unknown.csv: its 32 test rows have fewer than two answers for each label"):
        evaluated(unknown, out, tmp_path / "u")
    one = write_rows(tmp_path / "one.csv", ["label:GATA"], [[row[0], row[1], row[3]] for row in test])
    with pytest.raises(UserError, match=r"one.csv: it lacks label:Ebox, which the model predicts"):
        evaluated(one, out, tmp_path / "o")


def test_numbers(toy_model: Path, tmp_path: Path) -> None:
    rows = rows_of("value")
    path = write_rows(tmp_path / "labels.csv", ["value"], rows)
    out = finetune(settings(path, toy_model, tmp_path / "out", epochs=8, baselines=["kmer-regression"]))
    facts = read_manifest(out).metrics
    train = np.array([float(value) for _, value, split in rows if split == "train"])
    target = Target.from_json(facts["target"])
    assert (target.centre, target.scale) == pytest.approx((train.mean(), train.std()))
    assert facts["calibration"] is None
    (weights,) = facts["branch_weights"]
    assert set(weights) == {"summary", "encoders"} and sum(weights.values()) == pytest.approx(1)
    table = pd.read_csv(out / "test_predictions.tsv", sep="\t")
    assert np.allclose(table["calibrated: value"], table["pre-trained: value"])
    results = results_of(out)
    assert results["Pearson"] == pytest.approx(np.corrcoef(table["value"], table["pre-trained: value"])[0, 1], abs=1e-4)
    assert results["Pearson"] > 0.5 and abs(table["pre-trained: value"].mean() - 20) < 1.5
    measured = evaluated(path, out, tmp_path / "e")
    assert results_of(measured) == pytest.approx(results, abs=1e-6)
    predicted = pd.read_csv(measured / "predictions.tsv", sep="\t")
    assert np.allclose(predicted["predicted"], table["pre-trained: value"], rtol=1e-4)
    alike = write_rows(tmp_path / "alike.csv", ["value"], [[row[0], "3", "test"] for row in rows])
    with pytest.raises(UserError, match=r"alike.csv: its 128 test rows have fewer than two values"):
        evaluated(alike, out, tmp_path / "a")
    nothing = write_rows(tmp_path / "nothing.csv", ["value"], [row for row in rows if row[2] == "train"])
    with pytest.raises(UserError, match=r"nothing.csv: its 0 test rows have fewer than two values"):
        evaluated(nothing, out, tmp_path / "n")


def test_a_baseline_in_the_ensemble_counts_as_much_as_all_seeds(
    toy_sequences: Path, toy_model: Path, tmp_path: Path
) -> None:
    chosen = {"ensemble": ["kmer-regression"], "baselines": ["kmer-regression"], "seeds": 2}
    out = finetune(settings(toy_sequences, toy_model, tmp_path / "out", **chosen))
    metrics = read_manifest(out).metrics
    assert metrics["members"] == ["genebert", "genebert", "kmer-regression"]
    methods = list(dict.fromkeys(row["method"] for row in metrics["results"]))
    assert methods == ["ensemble", "pre-trained", "k-mer regression"]  # trained once
    table = pd.read_csv(out / "test_predictions.tsv", sep="\t")
    average = (table["pre-trained: 1"] + table["k-mer regression: 1"]) / 2
    assert np.allclose(table["ensemble: 1"], average, atol=1e-5)
    log_odds = np.log(average / (1 - average)) / metrics["calibration"]["temperature"]
    assert np.allclose(table["calibrated: 1"], 1 / (1 + np.exp(-log_odds)), atol=1e-4)
    predicted = pd.read_csv(evaluated(toy_sequences, out, tmp_path / "e") / "predictions.tsv", sep="\t")
    assert np.allclose(predicted["p(1)"], table["calibrated: 1"], atol=1e-5)


def test_the_temperature_and_the_threshold_are_chosen_on_validation_rows(
    toy_sequences: Path, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other test rows leave both, and the predictor, as they are."""
    lines = toy_sequences.read_text().splitlines()
    turned = [f"{line[:-6]}{1 - int(line[-6])},test" if line.endswith(",test") else line for line in lines]
    other = tmp_path / "other.csv"
    other.write_text("\n".join(turned) + "\n")
    first, second = (
        finetune(settings(path, toy_model, tmp_path / name, threshold="valid", epochs=3))
        for name, path in (("a", toy_sequences), ("b", other))
    )
    said = "AUPRC, tracks and log-odds are those of class 1, the second of 0, 1"
    assert capsys.readouterr().err.replace("\n", " ").count(said) == 2
    for name in ("predictor.json", WEIGHTS, "members/0-genebert/config.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    labels = pd.read_csv(toy_sequences)
    out = predict(PredictSettings(windows=toy_sequences, model=first, out=tmp_path / "p", device="cpu"))
    label, score = labels["label"].to_numpy(), pd.read_csv(out / "predictions.tsv", sep="\t")["p(1)"].to_numpy()
    valid, test = ((labels["split"] == split).to_numpy() for split in ("valid", "test"))
    threshold = read_manifest(first).metrics["threshold"]
    assert threshold == pytest.approx(best_threshold(label[valid], score[valid]), abs=1e-5)
    assert threshold != 0.5
    found = results_of(first)
    assert found["accuracy"] == pytest.approx(((score >= threshold - 1e-6) == label)[test].mean())
    assert results_of(evaluated(toy_sequences, first, tmp_path / "e")) == pytest.approx(found, abs=1e-6)


@pytest.mark.parametrize("column", ["three", "label"])
def test_weighed_classes_have_the_probabilities_of_the_validation_rows_and_are_decided_as_weighed(
    column: str, toy_model: Path, tmp_path: Path
) -> None:
    """Probabilities of a model trained with --class-weights were once those of equally frequent classes."""
    rows = [
        [letters, three if column == "three" else str(int(three == "both")), split]
        for letters, three, split in rows_of("three")
    ]
    path = write_rows(tmp_path / "labels.csv", ["label"], rows)
    out = finetune(settings(path, toy_model, tmp_path / "out", class_weights=True, epochs=2))
    facts = read_manifest(out).metrics
    names = facts["target"]["names"]
    assert set(facts["calibration"]["offsets"]) == set(names)
    assert np.sum(facts["threshold"]) == pytest.approx(1) if column == "three" else facts["threshold"] < 0.5
    written = predict(PredictSettings(windows=path, model=out, out=tmp_path / "p", device="cpu"))
    predicted = pd.read_csv(written / "predictions.tsv", sep="\t", dtype={"label": str})
    valid = predicted[predicted["split"] == "valid"]
    for name in names:
        assert valid[f"p({name})"].mean() == pytest.approx((valid["label"] == name).mean(), abs=1e-3)
    table = pd.read_csv(out / "test_predictions.tsv", sep="\t", dtype={"label": str})
    guess = table[[f"pre-trained: {name}" for name in names]].to_numpy().argmax(axis=1)
    assert results_of(out)["accuracy"] == pytest.approx((np.array(names)[guess] == table["label"]).mean())
    measured = evaluated(path, out, tmp_path / "e")
    assert results_of(measured) == pytest.approx(results_of(out), abs=1e-6)
    for folder in (measured, written):  # once, nothing said what was decided
        decided = pd.read_csv(folder / "predictions.tsv", sep="\t", dtype=str).query("split == 'test'")
        assert list(decided["predicted"]) == list(np.array(names)[guess])


def test_a_temperature_at_the_end_of_its_search_is_told(
    toy_sequences: Path,
    toy_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(calibration, "_RANGE", (0.02, 0.04))  # lower than what fits
    out = finetune(settings(toy_sequences, toy_model, tmp_path / "out"))
    (told,) = read_manifest(out).metrics["calibration"]["at_bounds"]
    assert (
        "the temperature is 0.0" in told
        and "that is tried" in told
        and f"Calibration: {told}" in capsys.readouterr().err
    )


@pytest.mark.parametrize("mode", ["frozen", "lora", "linear-probe"])
def test_less_than_the_whole_network_can_be_trained(
    mode: str, toy_sequences: Path, toy_model: Path, tmp_path: Path
) -> None:
    out = finetune(settings(toy_sequences, toy_model, tmp_path / "out", mode=mode))
    ((_, fitted),) = Predictor.open(out, "cpu").ensemble.members
    before = GeneBertModel.from_pretrained(toy_model).state_dict()
    after = fitted.model.genebert.state_dict()
    same = all(torch.equal(before[name], value) for name, value in after.items())
    assert same is (mode != "lora")
    assert (fitted.model.summary is None) is (mode == "linear-probe")
    found = evaluated(toy_sequences, out, tmp_path / "e")
    assert results_of(found) == pytest.approx(results_of(out), abs=1e-6)


def test_without_encoders_the_summary_alone_is_fitted_and_nothing_is_compared_with_it_from_scratch(
    toy_model: Path, tmp_path: Path
) -> None:
    labels = write_rows(tmp_path / "labels.csv", ["label"], rows_of("label"))
    changes = {"encoders": False, "scratch": True, "epochs": 20}
    out = finetune(settings(labels, toy_model, tmp_path / "out", **changes))
    results = read_manifest(out, "finetune").metrics["results"]
    assert {row["method"] for row in results} == {"without encoders"}
    assert results_of(out, "without encoders")["AUROC"] > 0.7
    read = _predictor_prose(read_manifest(out), Predictor.open(out).target).text
    assert "predicted from counts of k-mers and the evidence of motifs. The epoch" in read
    network = Predictor.open(out).ensemble.members[0][1].model
    assert network.classifier is None and network.summary is not None


def test_a_predictor_may_have_no_network(
    toy_world: World, toy_folder: Path, toy_labels: Path, toy_model: Path, tmp_path: Path
) -> None:
    """Where trees are better by themselves, as in new cell types they mostly are, nothing else could be used."""
    place = {"genome": toy_world.genome, "corpus": toy_folder}
    options = {"network": False, "ensemble": ["motif-trees"], "scratch": True, **place}
    out = finetune(settings(toy_labels, toy_model, tmp_path / "out", **options))
    metrics, predictor = read_manifest(out).metrics, Predictor.open(out)
    assert metrics["members"] == ["motif-trees"] and metrics["branch_weights"] == []
    assert {row["method"] for row in metrics["results"]} == {MotifTrees.title}

    labelled = read_labelled(LabelledFiles(toy_labels, **place), predictor.scanner)
    trees = MotifTrees().fit(labelled.examples("train"), labelled.examples("valid"), labelled.target, seed=0)
    expected = predictor.ensemble.calibration.apply(labelled.target, trees.predict(labelled.examples("test")))
    measured = evaluate(EvaluateSettings(labels=toy_labels, model=out, out=tmp_path / "test", device="cpu", **place))
    found = pd.read_csv(measured / "predictions.tsv", sep="\t")
    np.testing.assert_allclose(found["p(1)"], expected[:, 1], atol=1e-5)
    assert results_of(measured, MotifTrees.title) == pytest.approx(results_of(out, MotifTrees.title))

    path = report(ReportSettings(out=tmp_path / "report", corpus=toy_folder, predictors=[out])) / "report.html"
    page = path.read_text()
    assert "predicted without a network, by motif-trees." in page and "AUROC: boosted trees on motifs (" in page
    assert "region matrix whose" not in page and "Fine-tuning losses" not in page

    vcf = tmp_path / "one.vcf"
    with Genome(toy_world.genome) as genome:
        ref = decode(genome.fetch("chr3", 1_030, 1_031))
    line = f"chr3\t1031\t.\t{ref}\t{'C' if ref == 'A' else 'A'}\t.\t.\t."
    vcf.write_text(f"##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n{line}\n")
    given = {"model": out, "device": "cpu", "cell_types": ["B"], **place}
    scored = variants(VariantsSettings(vcf=vcf, out=tmp_path / "scored", null=0, everywhere=True, **given))
    (row,) = pd.read_csv(scored / "variants.tsv", sep="\t").itertuples()
    bed = tmp_path / "window.bed"
    bed.write_text("chr3\t1000\t1060\n")
    predicted = pd.read_csv(
        predict(PredictSettings(windows=bed, out=tmp_path / "p", **given)) / "predictions.tsv", sep="\t"
    )
    assert row.reference == pytest.approx(float(np.log(predicted["p(1)"] / predicted["p(0)"]).iloc[0]), abs=1e-4)
    with pytest.raises(UserError, match="it has no network to look into"):
        explain(ExplainSettings(out=tmp_path / "explained", model=out, corpus=toy_folder, device="cpu"))
    with pytest.raises(UserError, match="it has no network"):
        embed(EmbedSettings(out=tmp_path / "embedded", model=out, corpus=toy_folder, device="cpu"))
    with pytest.raises(UserError, match="--no-network: nothing is left to predict with"):
        finetune(settings(toy_labels, toy_model, tmp_path / "none", network=False, **place))


def test_trees_read_the_windows_own_accessibility_if_the_network_does() -> None:
    for own, read in ((True, "own"), (False, "around")):
        options = settings(Path("labels"), Path("model"), Path("out"), own_accessibility=own)
        assert method_of("motif-trees", options).accessibility == read
        assert not hasattr(method_of("kmer-trees", options), "accessibility")


@pytest.mark.parametrize("oriented", [False, True])
def test_strands_are_told_apart_where_windows_are_oriented(
    oriented: bool, toy_world: World, toy_sequences: Path, toy_model: Path, tmp_path: Path
) -> None:
    out = finetune(settings(toy_sequences, toy_model, tmp_path / "out", oriented=oriented))
    assert read_manifest(out).metrics["oriented"] is oriented
    generator = np.random.default_rng(0)
    rows = [random_bases(60, generator) for _ in range(5)]
    found = []
    for name, letters in (("here", rows), ("there", [reverse_complement(row) for row in rows])):
        fasta = tmp_path / f"{name}.fa"
        fasta.write_text("".join(f">{i}\n{row}\n" for i, row in enumerate(letters)))
        written = predict(PredictSettings(windows=fasta, model=out, out=tmp_path / name, device="cpu"))
        found.append(pd.read_csv(written / "predictions.tsv", sep="\t")["p(1)"])
    assert np.allclose(*found, atol=1e-5) is not oriented
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t1000\t1060\n")
    options = {"model": out, "genome": toy_world.genome, "out": tmp_path / "bed", "device": "cpu"}
    vcf = tmp_path / "v.vcf"
    vcf.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n")
    if not oriented:
        predict(PredictSettings(windows=bed, **options))
        return
    with pytest.raises(UserError, match=r"windows.bed: the model is of oriented windows, .* around chr3:1030"):
        predict(PredictSettings(windows=bed, **options))
    with pytest.raises(UserError, match=r"the model is of oriented windows, .* windows around variants are not"):
        variants(VariantsSettings(vcf=vcf, **options))
    labels = tmp_path / "labels.csv"
    labels.write_text("chrom,start,end,label\nchr3,1000,1060,1\nchr3,2000,2060,0\n")
    with pytest.raises(UserError, match=r"labels.csv: the model is of oriented windows"):
        evaluate(EvaluateSettings(labels=labels, **options))


def test_test_rows_that_share_bases_with_pretraining_are_counted(
    toy: Corpus, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Sequences without coordinates were once tested on though pre-training had seen them."""
    rows = rows_of("label")
    test = [row for row in rows if row[2] == "test"]
    seen, held_out = (decode(toy.sequence[np.flatnonzero(toy.split == split)[0]]) for split in (0, 2))
    for row, letters in zip(test, (seen[:60], reverse_complement(seen[20:80]), held_out[:60]), strict=False):
        row[0] = letters
    test[3][0] = seen[:31] + reverse_complement(seen[31]) + test[3][0][:28]  # 31 bases are too few
    test[4][0] = seen[:32] + test[4][0][:28]
    path = write_rows(tmp_path / "labels.csv", ["label"], rows)
    moved = Path(shutil.copytree(toy_model, tmp_path / "model"))
    manifest = moved / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace(str(toy.folder), str(tmp_path / "gone")))
    key = "test_rows_sharing_32_bases_with_pretraining"
    given = (toy_model, None, 3), (moved, toy.folder, 3), (moved, None, None)
    for i, (model, corpus, expected) in enumerate(given):
        capsys.readouterr()
        out = finetune(settings(path, model, tmp_path / f"out{i}", corpus=corpus))
        said = capsys.readouterr().err
        assert read_manifest(out).metrics[key] == expected
        assert ("3 of 32 test rows share 32 bases or more with a region that the model was pre-t" in said) is (
            expected == 3
        )
        assert (f"{tmp_path / 'gone'}, which the model was pre-trained on, is not there" in said) is (expected is None)
        assert ("its cell types are not used, since the labels have no column `cell_type`" in said) is bool(corpus)


def test_a_genome_that_sequences_do_not_need_is_told(
    toy_world: World, toy_model: Path, sequence_predictor: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It was once left unused without a word."""
    path = write_rows(tmp_path / "labels.csv", ["label"], rows_of("label"))
    options = {"genome": toy_world.genome, "device": "cpu"}
    finetune(settings(path, toy_model, tmp_path / "f", **options))
    said = [capsys.readouterr().err]
    evaluate(EvaluateSettings(labels=path, model=sequence_predictor, out=tmp_path / "e", **options))
    said.append(capsys.readouterr().err)
    predict(PredictSettings(windows=path, model=sequence_predictor, out=tmp_path / "p", **options))
    said.append(capsys.readouterr().err)
    expected = f"--genome {toy_world.genome} is not used: {path} has sequences"
    assert ["".join(text.split()).count("".join(expected.split())) for text in said] == [1, 1, 1]


def test_oriented_windows_without_a_strand_are_not_trained_on(
    toy_world: World, toy_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "labels.csv"
    places = [(chrom, start) for chrom in ("chr1", "chr2", "chr3") for start in (1000, 2000)]
    rows = [f"{chrom},{start},{start + 60},{start // 1000},." for chrom, start in places]
    path.write_text("\n".join(["chrom,start,end,label,strand", *rows]) + "\n")
    with pytest.raises(UserError, match=r"labels.csv: the model is of oriented windows, .* around chr1:1030"):
        finetune(settings(path, toy_model, tmp_path / "out", genome=toy_world.genome, oriented=True))
    assert not (tmp_path / "out").exists()


def test_copies_and_overlaps_of_training_rows_are_counted(toy_model: Path, tmp_path: Path) -> None:
    rows = rows_of("label")
    train, test = ([row for row in rows if row[2] == split] for split in ("train", "test"))
    test[0][0], test[1][0] = train[0][0], reverse_complement(train[1][0])  # copies
    test[2][0] = train[2][0][20:] + test[2][0][:20]  # 40 bases in common
    test[3][0] = train[3][0][35:] + test[3][0][:35]  # 25 bases
    path = write_rows(tmp_path / "labels.csv", ["label"], rows)
    metrics = read_manifest(finetune(settings(path, toy_model, tmp_path / "out"))).metrics
    assert metrics["test_rows_with_a_training_sequence"] == 1
    assert metrics["test_rows_sharing_32_bases"] == 3


WRONG_OPTIONS: dict[str, tuple[dict[str, object], str, list[str]]] = {
    "unknown methods": (
        {"baselines": ["svm"], "ensemble": ["genebert"]},
        "label",
        ["--baselines: 'svm' is no method", "--ensemble: 'genebert' is no method", "Choose of", "kmer-regression"],
    ),
    # A linear probe read the encoders all the same, and lora and frozen trained what full does.
    **{
        f"{mode} without encoders": (
            {"mode": mode, "encoders": False},
            "label",
            [f"--mode {mode}: it is about encoders, and --no-encoders, or"],
        )
        for mode in ("linear-probe", "frozen", "lora")
    },
    "a threshold for numbers": ({"threshold": "valid"}, "value", ["labels.csv", "--threshold valid", "Leave it out"]),
    "a threshold for three": ({"threshold": "valid"}, "three", ["--threshold valid"]),
    "weights for numbers": ({"class_weights": True}, "value", ["labels.csv", "--class-weights", "Leave it out"]),
    # The predictor was said to read both strands, and its predictions were not those of the other strand.
    "strands told apart in the ensemble alone": (
        {"ensemble": ["position-trees", "splice-finder"]},
        "label",
        ["--ensemble position-trees: it tells strands apart", "or add --oriented"],
    ),
    # Probabilities of equally frequent classes were averaged with those of classes as they are.
    "classes weighed in a part of the ensemble": (
        {"ensemble": ["deepbind", "motif-trees"], "class_weights": True},
        "label",
        ["--ensemble motif-trees: it does not weigh classes", "or --class-weights"],
    ),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_options_that_do_not_fit_the_labels(case: str, toy_model: Path, tmp_path: Path) -> None:
    options, column, fragments = WRONG_OPTIONS[case]
    path = write_rows(tmp_path / "labels.csv", ["label" if column == "three" else column], rows_of(column))
    with pytest.raises(UserError) as error:
        finetune(settings(path, toy_model, tmp_path / "out", **options))
    assert [fragment for fragment in fragments if fragment not in str(error.value)] == []
    assert "splice-finder:" not in str(error.value) and "deepbind:" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("weighed", "key"), [(False, "deepbind"), (True, "deepbind"), (True, "motif-trees")])
def test_methods_beside_the_network_weigh_classes_as_it_does_if_they_can(weighed: bool, key: str) -> None:
    """Networks among the baselines and in the ensemble once ignored --class-weights."""
    options = settings(Path("labels"), Path("model"), Path("out"), class_weights=weighed, oriented=True)
    method = method_of(key, options)
    assert getattr(method, "class_weights", None) is (weighed if key == "deepbind" else None)
    assert getattr(method, "oriented", None) is (True if key == "deepbind" else None)


def test_cell_types_that_the_corpus_holds_out_and_rows_are_learned_from_are_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Labels made without the corpus know nothing of these; a predictor once took them for new."""
    corpus = random_corpus(np.random.default_rng(0), valid_cell_types=["cell2"], test_cell_types=["cell3"])
    table = pd.DataFrame({"label": ["0", "1"], "cell_type": ["cell0", "cell1"]})
    codes = np.zeros((2, 60), dtype=np.uint8)
    scanner = Scanner(corpus.motifs)
    for cell_types, told in ((["cell0", "cell1"], False), (["cell3", "cell2"], True)):
        windows = {
            "train": Windows(table.assign(cell_type=cell_types), codes, Path("labels.tsv")),
            "valid": Windows(table.assign(cell_type="cell2"), codes, Path("labels.tsv")),
            "test": Windows(table.assign(cell_type="cell3"), codes, Path("labels.tsv")),
        }
        _say_learned_cell_types(Labelled(windows, Target("classes", ("0", "1")), scanner, corpus))
        said = capsys.readouterr().err
        assert ("warning: labels.tsv: train rows are in cell2, cell3, which the corpus holds out" in said) is told
        assert "valid rows" not in said
    windows["valid"] = windows["test"]
    _say_learned_cell_types(Labelled(windows, Target("classes", ("0", "1")), scanner, corpus))
    assert "warning: labels.tsv: valid rows are in cell3, which the corpus holds out" in capsys.readouterr().err


@pytest.mark.parametrize(("network", "key", "told"), [(True, "motif-trees", True), (False, "motif-trees", False)])
def test_strands_are_told_apart_only_if_a_member_can(network: bool, key: str, told: bool) -> None:
    """A predictor of trees on motifs once refused variants, since its windows were oriented."""
    options = settings(Path("labels"), Path("model"), Path("out"), oriented=True, network=network, ensemble=[key])
    assert _tells_strands(options) is told
    assert _tells_strands(options.model_copy(update={"ensemble": ["position-trees"]}))
    assert not _tells_strands(options.model_copy(update={"oriented": False}))


def test_an_ensemble_with_methods_that_know_names_of_cell_types_only_is_refused(
    toy_world: World, toy_folder: Path, toy_labels: Path, toy_model: Path, tmp_path: Path
) -> None:
    options = {"genome": toy_world.genome, "corpus": toy_folder, "ensemble": ["kmer-regression", "motif-trees"]}
    with pytest.raises(UserError) as error:
        finetune(settings(toy_labels, toy_model, tmp_path / "out", **options))
    assert f"The labels {toy_labels}" in str(error.value)
    assert "--ensemble kmer-regression: the rows name cell types" in str(error.value)
    assert "motif-trees" not in str(error.value)


BAD = {
    "no splits": ("sequence,label\nACGTACGTACGTACGTACGTAC,0\n", "not divided"),
    "FASTA": (">a\nACGT\n", "it is FASTA, which says no labels. Make labels of it with `genebert labels custom"),
    "no label": ("sequence,split\nACGT,train\n", "tells no kind of target"),
    "no sequence": ("seq,label\nACGT,1\n", "Name a column `sequence`"),
    "bad letter": ("sequence,label,split\nACGTEE,1,train\n", "line 2: letter 'E' at position 5"),
    "bad split": ("sequence,label,split\nACGT,1,training\n", "line 2: split is 'training'"),
    "empty label": ("sequence,label,split\nACGT,,train\n", "line 2: label is empty"),
    "one class": (
        f"sequence,label,split\n{'A' * 60},1,train\n{'C' * 60},1,valid\n{'G' * 60},1,test\n",
        "all its rows have the label 1",
    ),
    "ragged": ("sequence,label,split\nACGT,1\n", "line 2: it has 2 columns"),
    "no rows": ("sequence,label,split\n", "no rows after the header"),
    "no validation": (f"sequence,label,split\n{'A' * 90},1,train\n", "valid: there is no row"),
    "coordinates without a genome": ("chrom,start,end,label\nchr1,0,100,1\n", "Add --genome"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_labels_are_named(case: str, toy_model: Path, tmp_path: Path) -> None:
    text, message = BAD[case]
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        finetune(settings(path, toy_model, tmp_path / "out"))
    assert message in str(error.value) and "labels.csv" in str(error.value)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_rows_on_chromosomes_seen_in_pretraining_cannot_be_test_rows(
    toy_world: World, toy_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "leak.csv"
    rows = [
        f"chr1,{start},{start + 100},{label},{split}"
        for start, (label, split) in enumerate(
            [(label, split) for split in ("train", "valid", "test") for label in (0, 1)], 100
        )
    ]
    path.write_text("chrom,start,end,label,split\n" + "\n".join(rows) + "\n")
    with pytest.raises(UserError, match="rows on chr1, on which the model was pre-trained"):
        finetune(settings(path, toy_model, tmp_path / "out", genome=toy_world.genome))


def test_windows_of_another_length_are_refused(sequence_predictor: Path, tmp_path: Path) -> None:
    fasta = tmp_path / "short.fa"
    fasta.write_text(">a\nACGTACGTACGTACGTACGTACGT\n")
    with pytest.raises(UserError, match="24 bp, and the model was fine-tuned on windows of 60 bp"):
        predict(PredictSettings(windows=fasta, model=sequence_predictor, out=tmp_path / "out", device="cpu"))


def test_labels_that_the_model_does_not_know_are_refused(sequence_predictor: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text(f"sequence,label\n{'A' * 60},promoter\n")
    with pytest.raises(UserError, match="does not know: promoter"):
        evaluate(EvaluateSettings(labels=path, model=sequence_predictor, out=tmp_path / "out", device="cpu"))


@pytest.mark.parametrize("name", [WEIGHTS, "members/0-genebert/config.json", "predictor.json"])
def test_damaged_weights_are_refused(name: str, sequence_predictor: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(sequence_predictor, tmp_path / "model"))
    content = bytearray((broken / name).read_bytes())
    content[len(content) // 2] ^= 255
    (broken / name).write_bytes(bytes(content))
    with pytest.raises(UserError, match=f"{name}.*has changed since it was written"):
        Predictor.open(broken, "cpu")


def test_a_corpus_with_other_motifs_does_not_fit_the_model(
    toy_world: World, toy_folder: Path, toy_predictor: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(toy_folder, tmp_path / "corpus"))
    text = (other / "motifs.json").read_text()
    name = json.loads(text)[0]["id"]
    (other / "motifs.json").write_text(text.replace(name, "x" * len(name)))
    bed = tmp_path / "windows.bed"
    bed.write_text("chr3\t0\t128\n")
    with pytest.raises(
        UserError, match="do not belong together: their motif collections, or how they are scanned, differ"
    ):
        predict(
            PredictSettings(
                windows=bed,
                model=toy_predictor,
                genome=toy_world.genome,
                corpus=other,
                out=tmp_path / "out",
                device="cpu",
            )
        )

"""Tests of the report on folders that are made by hand, with hostile names and known numbers."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from toys import consensus_motif, corpus_of, write_corpus

from genebert import calibration
from genebert.cli import _items
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inspect import inspect
from genebert.metrics import Estimate, bootstrap
from genebert.metrics import auroc as measured_auroc
from genebert.report import compare, figures, mutagenesis
from genebert.report.build import PAGE, report
from genebert.report.canvas import LONGEST_NAME, panel, shorten
from genebert.report.sections.corpus import densest_rows
from genebert.report.tables import command
from genebert.settings import InspectSettings, ReportSettings, StageSettings
from genebert.stage import describe_input, open_stage, read_manifest, write_json
from genebert.variants.null import ENOUGH

CELL_TYPE = '<b>&"x'
MOTIF = "$\\alpha<script>"
CHROM = "chr<i>1"
VARIANT = f"{CHROM}:1050:A>ATT"
METHODS = ("pre-trained", "from scratch", "k-mer logistic regression")
VOID = {"meta", "link", "br", "hr", "img", "input", "wbr"}
Write = Callable[[Path], None]


def finished(out: Path, stage: str, inputs: dict[str, Path], metrics: dict[str, Any], write: Write) -> Path:
    with open_stage(stage, StageSettings(out=out), inputs) as run:
        write(run.folder)
        return run.finish(metrics)


def value(number: float, half: float = 0.02) -> dict[str, Any]:
    return Estimate(number, number - half, number + half).to_json()


def make_corpus(out: Path, seed: int = 0) -> Path:
    regions = [(CHROM, start) for start in range(1000, 9000, 200)] + [
        ("chr2", 500),
        ("chr3", 500),
        ("chr3", 900),
    ]
    everywhere = range(len(regions))
    made = corpus_of(
        regions,
        {
            CELL_TYPE: dict.fromkeys(everywhere, 2.0),
            "NK": {i: 3.0 for i in everywhere if i % 2},
            "T": {0: 1.0, 41: 2.0},
        },
        lengths={CHROM: 20_000, "chr2": 20_000, "chr3": 20_000},
        valid=["chr2"],
        test=["chr3"],
        motifs=[consensus_motif(MOTIF, "ACGTACGT"), consensus_motif("C001:HES_SREBF:bHLH", "CACGTG")],
        seed=seed,
    )
    metrics = {
        "peaks_per_set": dict.fromkeys(made.cell_types, 50),
        "duplicate_peaks": {},
        "ambiguous_bases_read_as_n": 3,
        "windows_dropped": {"too many N": 4321},
        "regions_too_similar": 2,
        "signal": {"dropped_cell_types": {"rare": "3 cells of at least 20"}},
        "peaks_on_unknown_chromosomes": {"NK": {"chrUn": 7}},
    }
    return finished(
        out,
        "prepare",
        {},
        metrics,
        lambda folder: write_corpus(made, folder),
    )


def evaluation(model: float) -> list[dict[str, Any]]:
    return [
        {
            "regions": "test",
            "cell_types": "train",
            "task": "MGM",
            "metric": "accuracy on hidden bases",
            "model": value(0.4567),
            "n": 99,
            "baselines": {"majority base": value(0.25), "order-5 Markov": value(0.3)},
        },
        {
            "regions": "test",
            "cell_types": "train",
            "task": "NGSP",
            "metric": "AUROC",
            "model": value(model),
            "n": 98,
            "baselines": {"GC content only": value(0.6), "chance": value(0.5, 0)},
        },
        {
            "regions": "test",
            "cell_types": "train",
            "task": "Probe, cell type",
            "metric": "accuracy",
            "model": value(0.8),
            "n": 97,
            "baselines": {"untrained network": value(0.5), "chance": value(0.5, 0)},
            "confusion": {"classes": [CELL_TYPE, "NK"], "counts": [[31, 7], [13, 46]]},
        },
    ]


def make_pretrained(out: Path, corpus: Path, model: float) -> Path:
    curves = pd.DataFrame(
        {
            "step": [5, 10],
            "mgm": [np.nan, 1.3],
            "ngsp": [np.nan, 0.6],
            "srm": [np.nan, 3.0],
            "valid_mgm": [1.4, 1.2],
            "valid_ngsp": [0.7, 0.6],
            "valid_srm": [3.3, 3.1],
            "valid_cell_types_mgm": [1.41, 1.3],
            "mrm": [np.nan, 0.4],
            "valid_mgm_accuracy": [0.3, 0.4],
            "valid_srm_retrieval": [0.1, 0.2],
        }
    )
    metrics = {
        "parameters": 123_456,
        "steps": 10,
        "examples_seen": 320,
        "train_chromosomes": [CHROM],
        "valid_chromosomes": ["chr2"],
        "test_chromosomes": ["chr3"],
        "validated_on": {"": ["valid", "train"], "cell_types_": ["valid", "valid"]},
        "evaluation": evaluation(model),
    }
    return finished(
        out,
        "pretrain",
        {"corpus": corpus},
        metrics,
        lambda folder: curves.to_csv(folder / "curves.tsv", sep="\t", index=False),
    )


def predictions(classes: list[str], n: int = 90) -> tuple[pd.DataFrame, list[dict[str, Any]]]:
    """Test rows and, for each method, the AUROC of its probabilities (of the last class)."""
    generator = np.random.default_rng(5)
    label = generator.integers(0, len(classes), n)
    table = pd.DataFrame(
        {
            "chrom": "chr3",
            "cell_type": np.array([CELL_TYPE, "NK", "T"])[np.arange(n) // 30],
            "label": np.array(classes)[label],
            "split": "test",
        }
    )
    results = []
    for i, method in enumerate(METHODS):
        odds = np.exp((1 + i) * np.eye(len(classes))[label] + generator.normal(size=(n, len(classes))))
        for name, share in zip(classes, (odds / odds.sum(1, keepdims=True)).T, strict=True):
            table[f"{method}: {name}"] = share
        if len(classes) == 2:
            area = roc_auc_score(label, table[f"{method}: {classes[1]}"])
            results.append({"method": method, "metric": "AUROC", **value(float(area))})
        results.append({"method": method, "metric": "accuracy", **value(0.5 + 0.1 * i)})
    for name in classes:
        table[f"calibrated: {name}"] = table[f"{METHODS[0]}: {name}"]
    return table, results


DISTANCES = [
    {"cell_type": "T", "distance": 0.0712, "p": 0.0588, "nearest": "NK & <b>", "known": 16, "unlike": True},
    {"cell_type": "B", "distance": 0.0312, "p": 0.7647, "nearest": "NK & <b>", "known": 16, "unlike": False},
]


def make_predictor(out: Path, corpus: Path, model: Path, classes: list[str]) -> Path:
    table, results = predictions(classes)
    curves = pd.DataFrame(
        [
            {"step": step, "prediction": 0.7, "valid_prediction": loss, "method": method, "seed": seed}
            for method in METHODS[:2]
            for seed in (0, 1)
            for step, loss in ((10, np.nan), (20, 0.65))
        ]
    )
    bounds = ["the temperature is 1 & <more>"] if len(classes) == 3 else []
    offsets = dict(zip(classes, (-1.5, 0.5, 1.0), strict=True)) if len(classes) == 3 else {}
    metrics = {
        "target": {"kind": "classes", "names": classes, "centre": 0.0, "scale": 1.0},
        "window_width": 100,
        "per_cell_type": len(classes) == 2,
        "rows": {"train": 200, "valid": 80, "test": len(table)},
        "cell_type_distances": DISTANCES if len(classes) == 2 else [],
        "members": ["genebert"],
        "test_rows_sharing_32_bases": 7,
        "test_rows_sharing_32_bases_with_pretraining": 5 if len(classes) == 2 else None,
        "calibration": {
            "temperature": 1.25,
            "offsets": offsets,
            "error_before": 0.061,
            "error_after": 0.043,
            "at_bounds": bounds,
        },
        "threshold": [0.6, 0.3, 0.1] if len(classes) == 3 else 0.5,
        "results": results,
    }

    def write(folder: Path) -> None:
        curves.to_csv(folder / "curves.tsv", sep="\t", index=False)
        table.to_csv(folder / "test_predictions.tsv", sep="\t", index=False)

    return finished(out, "finetune", {"corpus": corpus, "model": model}, metrics, write)


def mutagenesis_rows(variant: str, cell_type: str, reference: str, alternate: str, flank: int = 3) -> pd.DataFrame:
    generator = np.random.default_rng(1)
    rows = [
        (variant, cell_type, allele, place - flank, base, other, generator.normal())
        for allele, letters in (("reference", reference), ("alternate", alternate))
        for place, base in enumerate(letters)
        for other in "ACGT"
        if other != base
    ]
    return pd.DataFrame(rows, columns=["variant", "cell_type", "allele", "offset", "base", "mutated_to", "difference"])


def make_variants(out: Path, corpus: Path, model: Path) -> Path:
    rows = [
        {
            "variant": name,
            "given": name,
            "id": "rs1",
            "chrom": CHROM,
            "position": 1050,
            "ref": "A",
            "alt": "ATT",
            "cell_type": cell_type,
            "reference": 0.1,
            "alternate": 0.1 + i + 0.2 * j,
            "difference": i + 0.2 * j,
            "p": 0.25 - 0.125 * i,
            "gained": f"{MOTIF},SPI1",
            "gained_by": "+1.5,+0.25",
            "lost": ".",
            "lost_by": ".",
        }
        for i, name in enumerate((VARIANT, f"{CHROM}:2000:G>C"))
        for j, cell_type in enumerate((CELL_TYPE, "NK"))
    ]
    table = pd.DataFrame(rows)
    motif = {"id": "M1", "name": MOTIF, "probabilities": [[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]}
    site = {"variant": VARIANT, "change": "gained", "by": 1.5, "offset": -1, "reverse": True, "motif": motif}
    metrics = {
        "records": 4,
        "alleles_scored": 2,
        "alleles_skipped": {"outside the corpus' regions": 1, "REF mismatch": 1},
        "ref_mismatches": {"chr1:7:G>A": "T"},
        "cell_types": [CELL_TYPE, "NK"],
        "cell_type_distances": [],
        "score": "log-odds of class 1",
        "window_width": 100,
        "random_variants": 1000,
    }

    def write(folder: Path) -> None:
        table.to_csv(folder / "variants.tsv", sep="\t", index=False)
        write_json(folder / "motif_sites.json", [site])
        mutagenesis_rows(VARIANT, CELL_TYPE, "CCGAGGG", "CCGATTG").to_csv(
            folder / "mutagenesis.tsv", sep="\t", index=False
        )

    return finished(out, "variants", {"corpus": corpus, "model": model}, metrics, write)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("report")
    made = {"corpus": make_corpus(root / "corpus")}
    made["pretrained"] = make_pretrained(root / "pretrained", made["corpus"], 0.4)
    made["predictor"] = make_predictor(root / "promoter", made["corpus"], made["pretrained"], ["0", "1"])
    made["three"] = make_predictor(root / "three", made["corpus"], made["pretrained"], ["none", "donor", "NA"])
    made["variants"] = make_variants(root / "variants", made["corpus"], made["predictor"])
    return made


@pytest.fixture(scope="module")
def full(folders: dict[str, Path]) -> ReportSettings:
    return ReportSettings(
        out=folders["corpus"].parent / "report",
        corpus=folders["corpus"],
        pretrained=folders["pretrained"],
        predictors=[folders["predictor"], folders["three"]],
        variants=folders["variants"],
        title="A <em>title</em> & more",
    )


@pytest.fixture(scope="module")
def page(full: ReportSettings) -> str:
    return (report(full) / PAGE).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def small_page(folders: dict[str, Path]) -> str:
    out = folders["corpus"].parent / "small"
    return (report(ReportSettings(out=out, corpus=folders["corpus"])) / PAGE).read_text(encoding="utf-8")


class Outline(HTMLParser):
    """Checks that elements close in order; collects headings, references, ids, and text outside of style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.text: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._note(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._note(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def _note(self, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.references += [found[name] for name in ("src", "href", "xlink:href", "action", "data") if name in found]
        self.ids += [found["id"]] if "id" in found else []


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    outline = Outline(page)
    assert outline.open == []
    assert outline.headings == [
        "Corpus",
        "Pre-training",
        "Predictor promoter",
        "Predictor three",
        "Variants",
        "How to read this page",
        "Provenance",
    ]
    assert page.lstrip().startswith("<!DOCTYPE html>")


def test_a_section_without_results_is_left_out(small_page: str) -> None:
    assert Outline(small_page).headings == ["Corpus", "How to read this page", "Provenance"]


def test_every_figure_has_a_caption_and_every_drawing_a_description(page: str) -> None:
    assert page.count("<figure>") == page.count("<figcaption>") > 8
    drawings = re.findall(r"<svg[^>]*>", page)
    assert len(drawings) > 20
    wide = re.findall(r'<div class="panel wide"[^>]*>', page)  # on a phone they scroll, also by keyboard
    assert wide and all('tabindex="0" role="group" aria-label="Figure: ' in head for head in wide)
    assert all('role="img"' in head and re.search(r'aria-label="[^"]+"', head) for head in drawings)


def test_names_are_text_and_never_markup(page: str) -> None:
    outline = Outline(page)
    assert outline.tags.isdisjoint({"script", "em", "i", "title\n"})
    text = "".join(outline.text)
    for name in (CELL_TYPE, MOTIF, CHROM, VARIANT, "A <em>title</em> & more"):
        assert name in text
    drawn = [
        chunk for chunk in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL) if escape(MOTIF, quote=False) in chunk
    ]
    assert drawn, "the motif's name is drawn as it is, not as mathematics"


def test_nothing_is_loaded_from_elsewhere(page: str) -> None:
    outline = Outline(page)
    assert outline.references and all(ref.startswith(("#", "data:image/png;base64,")) for ref in outline.references)
    assert outline.tags.isdisjoint({"script", "link", "iframe", "object", "embed"})
    assert all(ref.startswith("#") for ref in re.findall(r"url\(['\"]?([^)]*)\)", page))
    assert "@import" not in page
    assert set(re.findall(r'(\S+)="https?://', page)) <= {"xmlns", "xmlns:xlink"}
    assert re.sub(r'xmlns(:xlink)?="http[^"]*"', "", page).count("http") == 0


def test_references_within_the_page_lead_somewhere(page: str) -> None:
    outline = Outline(page)
    targets = {ref[1:] for ref in outline.references if ref.startswith("#")}
    assert targets <= set(outline.ids)
    assert {ref[1:] for ref in re.findall(r"url\((#[^)]*)\)", page)} <= set(outline.ids)
    assert len(outline.ids) == len(set(outline.ids))


def test_the_same_results_give_the_same_bytes(page: str, full: ReportSettings, tmp_path: Path) -> None:
    again = report(full.model_copy(update={"out": tmp_path / "again"})) / PAGE
    assert again.read_text(encoding="utf-8") == page


def test_a_finished_report_is_left_alone(page: str, full: ReportSettings, capsys: pytest.CaptureFixture[str]) -> None:
    before = (full.out / PAGE).stat().st_mtime_ns
    assert report(full) == full.out
    assert (full.out / PAGE).stat().st_mtime_ns == before
    assert "already there" in capsys.readouterr().err


def test_numbers_and_intervals_are_the_manifests(page: str, folders: dict[str, Path]) -> None:
    for name in ("predictor", "three"):
        for row in read_manifest(folders[name]).metrics["results"]:
            assert str(Estimate(row["value"], row["low"], row["high"])) in page
    for row in evaluation(0.4):
        assert str(Estimate(row["model"]["value"], row["model"]["low"], row["model"]["high"])) in page
    for expected in ("123,456", "43</dd>", "4,321", "REF mismatch", "chr1:7:G&gt;A"):
        assert expected in page
    area = predictions(["0", "1"])[1][0]["value"]  # of the predictor, and not the best of all methods
    assert f"<dt>test AUROC</dt><dd>{area:.3f}</dd>" in page and f"{METHODS[0]}, promoter" in page


def test_how_many_test_rows_share_bases_with_what_was_trained_on_is_said(page: str) -> None:
    text = "".join(Outline(page).text)
    shared = "7 share 32 bases or more with a training or validation row, and"
    assert f"{shared} 5 with a region that the model was pre-trained on." in text
    assert f"{shared} it was not checked how many do with a region" in text


def test_cell_types_that_were_not_trained_on_are_listed_where_there_are_some(page: str) -> None:
    text = "".join(Outline(page).text)
    assert text.count("Cell types that were not trained on.") == 1  # of the other predictor there are none
    rows = [re.sub(r"<[^>]*>", "|", row) for row in re.findall(r"<tr>.*?</tr>", page, flags=re.DOTALL)]
    cells = [[cell.strip() for cell in row.split("|") if cell.strip()] for row in rows]
    assert ["T", "NK &amp; &lt;b&gt;", "unlike", "0.071", "0.059"] in cells
    assert ["B", "NK &amp; &lt;b&gt;", "alike", "0.031", "0.76"] in cells


def test_results_of_a_corpus_belong_to_what_cell_types_were_added_to(folders: dict[str, Path], tmp_path: Path) -> None:
    """A predictor made before is shown beside variants that were scored in the new cell type."""
    parent = describe_input("corpus", folders["corpus"])["sha256"]
    grown = Path(shutil.copytree(folders["corpus"], tmp_path / "grown"))
    manifest = json.loads((grown / "manifest.json").read_text())
    for ancestors in ([], [parent]):
        metrics = manifest["metrics"] | {"added": {"ancestors": ancestors}}
        (grown / "manifest.json").write_text(json.dumps(manifest | {"stage": "add-cell-type", "metrics": metrics}))
        settings = ReportSettings(out=tmp_path / f"{len(ancestors)}", corpus=grown, predictors=[folders["predictor"]])
        if ancestors:
            assert (report(settings) / PAGE).exists()
        else:
            with pytest.raises(UserError, match="do not belong on one page"):
                report(settings)


def test_what_was_done_to_probabilities_is_said(page: str) -> None:
    text = "".join(Outline(page).text)
    assert "divided by a temperature of 1.25, which was chosen on the validation rows" in text
    assert "of classes, which training weighed: +1.00 (NA), +0.50 (donor), -1.50 (none). Both were chosen on" in text
    assert text.count("the calibration error of the test rows from 0.061 to 0.043") == 2
    assert text.count("to 0.043. But the temperature is 1 & <more>.") == 1


def test_the_curves_are_those_of_the_test_rows(page: str, folders: dict[str, Path]) -> None:
    table = pd.read_csv(folders["predictor"] / "test_predictions.tsv", sep="\t")
    for method in METHODS:
        score = table[f"{method}: 1"]
        curve = compare.roc(table["label"].to_numpy(), score.to_numpy())
        assert np.trapezoid(curve.y, curve.x) == pytest.approx(roc_auc_score(table["label"], score))
        assert f">{method}, {roc_auc_score(table['label'], score):.3f}</text>" in page
        assert f">{method}, {average_precision_score(table['label'], score):.3f}</text>" in page


def test_a_model_below_its_baseline_is_said_to_be(page: str, folders: dict[str, Path], tmp_path: Path) -> None:
    sentence = "NGSP, AUROC: the model (0.400) is below GC content only (0.600) and chance (0.500)."
    assert sentence in page
    better = make_pretrained(tmp_path / "better", folders["corpus"], 0.8)
    settings = ReportSettings(out=tmp_path / "page", corpus=folders["corpus"], pretrained=better)
    other = (report(settings) / PAGE).read_text(encoding="utf-8")
    assert "is below" not in other
    assert "NGSP, AUROC: the model (0.800) is above GC content only (0.600) and chance (0.500)." in other


def drawn(page: str, alt: str) -> str:
    """The drawing of a description."""
    found = [svg for svg in re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL) if f'aria-label="{alt}"' in svg]
    assert len(found) == 1, alt
    return str(found[0])


def test_the_losses_and_measures_that_were_recorded_are_drawn(page: str) -> None:
    assert all(
        label in drawn(page, "MGM, Loss (nats), by step.") for label in ("held-out cell types", "ignorance, ln 4")
    )
    assert "held-out cell types" not in drawn(page, "NGSP, Loss (nats), by step.")
    assert ">training<" in drawn(page, "Masked region modelling, Smooth L1 (SD), by step.")
    assert ">validation<" in drawn(page, "SRM, Retrieval at 1 of 64, by step.")
    assert ">training<" not in drawn(page, "MGM, Accuracy on hidden bases, by step.")
    assert "Reverse complement" not in page and "NGSP, AUROC, by step" not in page


def test_the_cell_types_that_a_probe_confuses_are_drawn(page: str) -> None:
    svg = drawn(page, "Confusion matrix of Probe, cell type.")
    assert all(f">{count}<" in svg for count in (31, 7, 13, 46))
    assert escape(CELL_TYPE, quote=False) in svg


def page_of(out: Path, corpus: Path, metrics: dict[str, Any], curves: pd.DataFrame) -> str:
    model = finished(
        out / "model",
        "pretrain",
        {"corpus": corpus},
        {"parameters": 1, "steps": 2, "examples_seen": 3, "train_chromosomes": ["chr2"], **metrics},
        lambda folder: curves.to_csv(folder / "curves.tsv", sep="\t", index=False),
    )
    inspect(InspectSettings(folder=model))
    return (report(ReportSettings(out=out / "page", corpus=corpus, pretrained=model)) / PAGE).read_text(
        encoding="utf-8"
    )


def test_a_model_of_an_earlier_version_can_be_reported_and_inspected(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {key: value for key, value in row.items() if key not in ("regions", "cell_types", "confusion")}
        for row in evaluation(0.7)[:2]
    ]
    curves = pd.DataFrame({"step": [10], "mgm": [1.3], "valid_mgm": [1.35]})
    found = page_of(tmp_path, folders["corpus"], {"evaluation": rows, "evaluated_on": "test"}, curves)
    where = "held-out examples (an earlier version of genebert did not note which)"
    assert f"Pre-training tasks on {where}." in found
    assert "dots, validation examples" in found
    assert f"Measured on {where}" in " ".join(capsys.readouterr().out.split())


def test_with_the_published_masking_ln_4_is_not_what_ignorance_loses(folders: dict[str, Path], tmp_path: Path) -> None:
    row = evaluation(0.7)[0] | {"task": "MGM (DNABERT masking)", "metric": "accuracy on masked tokens"}
    curves = pd.DataFrame({"step": [10], "mgm": [4.1]})
    found = page_of(tmp_path, folders["corpus"], {"evaluation": [row], "validated_on": {}}, curves)
    assert "ln 4" not in found
    assert "Dashed: a guess" not in found  # nothing is
    assert "nothing was held out for validation" in found


def test_names_such_as_rs_numbers_are_not_broken(page: str) -> None:
    assert '<td class="short">rs1</td>' in page
    assert f"<td>{escape(VARIANT)}" in page
    assert ".short { white-space: nowrap; }" in page


def test_measures_on_held_out_cell_types_stand_apart() -> None:
    rows = [
        row | {"regions": regions, "cell_types": cell_types}
        for regions, cell_types in (("test", "train"), ("test", "valid"), ("train", "valid"), ("train", "train"))
        for row in evaluation(0.5)
    ]
    found = compare.by_part(rows)
    assert list(found) == [
        "test chromosomes, training cell types",
        "test chromosomes, validation cell types",
        "training chromosomes, validation cell types (regions seen in training)",
        "training chromosomes, training cell types (seen in training)",
    ]
    assert all([row["task"] for row in part] == ["MGM", "NGSP", "Probe, cell type"] for part in found.values())


@pytest.mark.parametrize(
    ("own", "standing", "words"),
    [
        (0.50, "below", "is below B (0.600)."),
        (0.59, "level", "overlaps with B (0.600)."),
        (0.60, "level", "overlaps with B (0.600)."),
        (0.62, "level", "overlaps with B (0.620)."),
        (0.70, "above", "is above B (0.600)."),
    ],
)
def test_verdicts_follow_from_the_numbers(own: float, standing: str, words: str) -> None:
    other = 0.62 if own == 0.62 else 0.6
    found = compare.verdict(
        "accuracy",
        "M",
        Estimate(own, own - 0.02, own + 0.02),
        {"B": Estimate(other, other - 0.02, other + 0.02)},
    )
    assert (found.standing, found.sentence) == (standing, f"Accuracy: M ({own:.3f}) {words}")


def test_a_verdict_names_every_baseline_on_its_side() -> None:
    """A sentence about a model that is below one baseline once left out the others."""
    others = {name: Estimate(value, value - 0.01, value + 0.01) for name, value in (("A", 0.5), ("B", 0.6), ("C", 0.7))}
    found = compare.verdict("AUROC", "M", Estimate(0.6, 0.58, 0.62), others)
    said = "is below C (0.700); overlaps with B (0.600); is above A (0.500)."
    assert (found.standing, found.sentence) == ("below", f"AUROC: M (0.600) {said}")


def test_a_last_record_of_fewer_steps_is_not_drawn() -> None:
    """A mean over one step once made the curve of training end in a jump."""
    run = pd.DataFrame({"step": [10, 15, 20, 21], "loss": [1.0, np.nan, 0.9, 5.0], "valid": [np.nan, 1.0, np.nan, 2.0]})
    assert figures._whole_records(run, "loss")["step"].tolist() == [10, 20]
    assert figures._whole_records(run[:3], "loss")["step"].tolist() == [10, 20]
    assert figures._whole_records(run[:1], "loss")["step"].tolist() == [10]


@pytest.mark.parametrize("key", ["pretrained", "predictors", "variants"])
def test_results_of_another_corpus_are_refused_and_both_are_named(
    key: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    other = make_corpus(tmp_path / "other", seed=1)
    (other / "manifest.json").write_text(
        (other / "manifest.json").read_text().replace('"too many N": 4321', '"too many N": 1')
    )
    given = {
        "pretrained": folders["pretrained"],
        "predictors": [folders["predictor"]],
        "variants": folders["variants"],
    }[key]
    with pytest.raises(UserError) as caught:
        report(ReportSettings(out=tmp_path / "page", corpus=other, **{key: given}))
    made = given[0] if isinstance(given, list) else given
    assert str(made) in str(caught.value) and str(other) in str(caught.value)
    assert not (tmp_path / "page").exists()


def test_variants_of_a_predictor_that_is_not_shown_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    settings = ReportSettings(
        out=tmp_path / "page",
        corpus=folders["corpus"],
        predictors=[folders["three"]],
        variants=folders["variants"],
    )
    with pytest.raises(UserError, match="model"):
        report(settings)


def test_letters_are_as_high_as_mutating_them_lowers_the_log_odds() -> None:
    rows = pd.DataFrame(
        {
            "offset": [-1] * 3 + [2] * 3,
            "base": ["A"] * 3 + ["T"] * 3,
            "mutated_to": list("CGTACG"),
            "difference": [-0.3, -0.6, -0.9, 0.1, 0.2, 0.6],
        }
    )
    heights = mutagenesis.letter_heights(rows)
    assert heights.columns.tolist() == list("ACGT") and heights.index.tolist() == [-1, 2]
    np.testing.assert_allclose(heights.to_numpy(), [[0.6, 0, 0, 0], [0, 0, 0, -0.3]])
    table = mutagenesis.substitutions(rows)
    assert table.loc["G", -1] == -0.6 and table.loc["C", 2] == 0.2
    assert np.isnan(table.loc["A", -1]) and np.isnan(table.loc["T", 2])


@pytest.mark.parametrize(
    ("variant", "reference", "alternate"),
    [
        ("chr1:9:A>G", [-1, 0, 1, 2], [-1, 0, 1, 2]),
        ("chr1:9:A>AGG", [-1, 0, 3, 4], [-1, 0, 1, 2]),
        ("HLA-A*01:01:9:AGG>A", [-1, 0, 1, 2], [-1, 0, 3, 4]),
    ],
)
def test_what_follows_an_indel_is_aligned(variant: str, reference: list[int], alternate: list[int]) -> None:
    own, other = mutagenesis.allele_lengths(variant)
    offsets = np.arange(-1, 3)
    assert mutagenesis.aligned(offsets, own, other).tolist() == reference
    assert mutagenesis.aligned(offsets, other, own).tolist() == alternate


def test_intervals_per_cell_type_agree_with_the_bootstrap() -> None:
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 300)
    score = np.round(label + generator.normal(scale=1.2, size=300), 1)  # with ties
    found, expected = compare.auroc_interval(label, score), bootstrap(measured_auroc, label, score)
    assert found.value == pytest.approx(roc_auc_score(label, score))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.01)


def test_a_cell_type_with_one_class_has_no_auroc() -> None:
    cell_type, label = (np.repeat(values, 5) for values in (["a", "a", "b", "b"], [0, 1, 1, 1]))
    score = {"m": np.linspace(0.1, 0.4, 20)}
    assert list(compare.auroc_by_cell_type(cell_type, label, score)["m"]) == ["a"]
    assert list(compare.auroc_by_cell_type(cell_type[1:], label[1:], score | {"m": score["m"][1:]})["m"]) == []


def test_numbers_lie_on_axes_of_their_own() -> None:
    """Axes from 0 to 1 once showed none of them."""
    true = np.linspace(150.0, 190.0, 50)
    drawn = figures.scatter("height", true, true[::-1] - 3).svg
    labels = [float(text.replace("−", "-")) for text in re.findall(r">(−?\d+\.?\d*)</text>", drawn)]
    assert min(labels) >= 140 and max(labels) <= 200 and len(labels) >= 4


def test_reliability_bins_hold_the_rows_in_order() -> None:
    score = np.linspace(0, 1, 20)
    bins = calibration.reliability((score > 0.5).astype(np.int64), score, bins=4)
    assert bins["n"].tolist() == [5, 5, 5, 5]
    assert bins["observed"].tolist() == [0, 0, 1, 1]
    assert ((bins["low"] <= bins["observed"]) & (bins["observed"] <= bins["high"])).all()
    assert calibration.wilson(0.5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)  # Wilson (1927), 5 of 10


def test_the_locus_is_the_densest_stretch_of_a_training_chromosome() -> None:
    starts = [*range(0, 9000, 300), *range(9000, 18000, 150)]
    corpus = corpus_of(
        [("chr1", start) for start in starts] + [("chr2", start) for start in range(0, 6000, 100)],
        {"a": dict.fromkeys(range(len(starts)), 1.0)},
        valid=["chr2"],
    )
    rows = densest_rows(corpus)
    assert len(rows) == 40 and (np.diff(rows) == 1).all()
    assert set(np.diff(corpus.regions["start"].to_numpy()[rows])) == {150}


def test_a_corpus_of_one_cell_type_and_nothing_held_out_can_be_reported(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(folders["corpus"], tmp_path / "one")
    made = Corpus.open(tmp_path / "one")
    small = replace(
        made,
        cell_types=["$x$"],
        valid_chromosomes=[],
        test_chromosomes=[],
        regions=made.regions.iloc[:2],
        sequence=made.sequence[:2],
        evidence=made.evidence[:2],
        accessible_offsets=np.array([0, 2]),
        accessible_regions=np.array([0, 1], dtype=np.int32),
        accessible_values=np.ones(2, dtype=np.float32),
        reference_regions=np.array([0, 1], dtype=np.int32),
    )
    corpus = finished(
        tmp_path / "corpus",
        "prepare",
        {},
        made.manifest.metrics,
        lambda folder: write_corpus(small, folder),
    )
    found = (report(ReportSettings(out=tmp_path / "page", corpus=corpus)) / PAGE).read_text(encoding="utf-8")
    assert "No chromosome was held out" in found
    assert "1 cell type," in found and ">$x$</text>" in found


def test_two_identical_cell_types_and_many_cell_types_can_be_drawn() -> None:
    drawn = figures.overlap(["a", "b"], np.ones((2, 2))).svg
    assert drawn.count(">1.00</text>") >= 2
    many = [f"cell type {i}" for i in range(54)]
    assert ">cell type 53</text>" in figures.overlap(many, np.eye(54)).svg


def test_what_p_values_of_variants_rest_on_is_said(page: str) -> None:
    """The page once had all random variants as those that each allele is compared with."""
    assert "In all, 1,000 random variants were scored;" in page
    assert page.count(f"finest such group that has at least {ENOUGH}. No p is smaller than 1 / (1 + their number)") == 2
    assert page.count("corrected for the number of alleles") == 2


def test_the_command_line_repeats_a_stage(tmp_path: Path) -> None:
    (tmp_path / "a file.vcf").write_text("x")
    for name in ("B", "T"):
        (tmp_path / f"{name}.bed").write_text(name)
    inputs = {
        "vcf": tmp_path / "a file.vcf",
        "peaks of B": tmp_path / "B.bed",
        "peaks of T": tmp_path / "T.bed",
    }
    manifest = read_manifest(finished(tmp_path / "out", "variants", inputs, {}, lambda folder: None))
    manifest.settings.update({"everywhere": False, "seed": 3, "genome": None, "cell_types": ["B", "T"]})
    assert (
        command(manifest) == f"genebert variants '{tmp_path}/a file.vcf' --no-everywhere --seed 3 --cell-types B,T "
        f"--peaks {tmp_path}/B.bed,{tmp_path}/T.bed --out {tmp_path}/out"
    )


def test_commands_are_those_that_the_command_line_takes(tmp_path: Path) -> None:
    (tmp_path / "c.vcf").write_text("x")
    manifest = read_manifest(finished(tmp_path / "out", "risk", {"vcf": tmp_path / "c.vcf"}, {}, lambda folder: None))
    manifest.settings.update({"cell_types": ["CD4, naive", "B"], "covariates": []})
    words = shlex.split(command(manifest))
    assert words[1:4] == ["risk", "--cell-types", '"CD4, naive",B']
    assert words[4:8] == ["--covariates", "", "--vcf", f"{tmp_path}/c.vcf"]
    assert _items("cell_types", [words[3]]) == ["CD4, naive", "B"] and _items("covariates", [""]) == []


def test_long_names_are_shortened_and_strange_letters_drawn_without_warning() -> None:
    assert shorten("C001:HES_SREBF:bHLH") == "C001:HES_SREBF:bHLH"
    assert len(shorten("x" * 99)) == LONGEST_NAME and "…" in shorten("x" * 99)
    drawn = panel("细胞 <&>", (2, 1), lambda figure: figure.subplots().set_title("细胞 $_^{"))  # type: ignore[func-returns-value]
    assert "细胞 $_^{" in drawn.svg and "细胞 &lt;&amp;&gt;" in drawn.svg


def test_the_manifest_says_what_is_on_the_page(page: str, full: ReportSettings) -> None:
    metrics = json.loads((full.out / "manifest.json").read_text())["metrics"]
    assert metrics["figures"] == page.count("<figure>")
    assert metrics["sections"][0] == "Corpus"

"""Does `genebert explain` find the TFs that a simulation planted? Prints JSON.

    python benchmarks/explain.py --atlas atlas --corpus corpus --labels labels --out explained

`atlas` is made by `genebert simulate`, `corpus` and `labels` (accessibility) from it. A network from scratch learns
accessibility per cell type, and `explain` says what it rests on. The truth is the activity of the 24 TFs in each cell
type; one of at least 0.3 counts as active. AUROC ranks, within each cell type, the motifs of active TFs above

- all other motifs of the collection, decoys among them, by the effect;
- those of the planted TFs that are inactive there, by the effect;
- of the TFs that are not ubiquitous, those that are inactive there, by the part of the effect that is specific.

TF usage (`corpus.usage`) is ranked in the same way, to see what the predictor adds to it.

Means over cell types, with the least and the largest; and over those that the corpus holds out alone.
"""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pandas as pd
from common import finish, usage_table

from genebert.corpus.store import Corpus
from genebert.explanation.run import explain
from genebert.labelled import LabelledFiles, read_labelled
from genebert.methods.genebert import GeneBert
from genebert.metrics import auroc
from genebert.predictor import Ensemble
from genebert.settings import ExplainSettings, Modalities, StageSettings
from genebert.simulation.regulation import TATA_TF, UBIQUITOUS
from genebert.stage import open_stage

ACTIVE = 0.3


@click.command()
@click.option("--atlas", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--corpus", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--labels", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--modalities", default="both", type=click.Choice(["both", "motifs"]))
@click.option("--epochs", default=4)
@click.option("--per-cell-type", default=200, help="regions of each cell type that are looked at")
@click.option("--most-motifs", default=128)
@click.option("--seed", default=0)
def main(atlas: Path, corpus: Path, labels: Path, out: Path, **options: object) -> None:
    """Fit, explain, compare with the truth."""
    predictor, measured = fit(atlas, corpus, labels, out / "predictor", options)
    chosen = {name: options[name] for name in ("per_cell_type", "most_motifs", "seed")}
    settings = ExplainSettings(out=out / "explanation", model=predictor, corpus=corpus, pairs=0, **chosen)
    table = pd.read_csv(explain(settings) / "importance.tsv", sep="\t")
    opened = Corpus.open(corpus)
    table = pd.concat([table, usage_table(opened)])
    held_out = table[table["cell_type"].isin(opened.test_cell_types)]
    found = {"all cell types": dict(scores(table, atlas)), "held-out cell types": dict(scores(held_out, atlas))}
    finish({"options": options, "test": measured, "AUROC": found})


def fit(atlas: Path, corpus: Path, labels: Path, out: Path, options: dict[str, object]) -> tuple[Path, dict[str, str]]:
    """Train from scratch; return the predictor's folder, and what it is worth on the test rows."""
    opened = Corpus.open(corpus)
    held_out = dict.fromkeys(opened.valid_chromosomes, "valid") | dict.fromkeys(opened.test_chromosomes, "test")
    files = LabelledFiles(labels, genome=atlas / "genome.fa", corpus=corpus)
    labelled = read_labelled(files, opened.scanner, held_out)
    modalities: Modalities = "motifs" if options["modalities"] == "motifs" else "both"
    method = GeneBert(preset="tiny", epochs=options["epochs"], modalities=modalities)
    train, valid, test = (labelled.examples(split) for split in ("train", "valid", "test"))
    fitted = method.fit(train, valid, labelled.target, int(str(options["seed"])))
    measures = labelled.target.measures(
        test.known_truth, [fitted.predict(test)], [0.5], labelled.windows["test"].regions()
    )
    with open_stage("finetune", StageSettings(out=out), {"labels": labels}) as run:
        if not run.finished:
            Ensemble(labelled.target, [("genebert", fitted)]).save(run.folder, opened.scanner)
            run.finish({"window_width": opened.width, "per_cell_type": True, "oriented": False})
    return out, {name: str(value) for name, value in measures.items()}


def scores(table: pd.DataFrame, atlas: Path) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    activity = pd.read_csv(atlas / "truth/activity.tsv", sep="\t").set_index("cell_type").drop(columns=TATA_TF)
    varying = [name for name in activity if name not in UBIQUITOUS]
    for measure, rows in table.groupby("measure"):
        found: dict[str, list[float]] = {"all motifs": [], "planted TFs": [], "planted TFs, specific part": []}
        for cell_type, own in rows.groupby("cell_type"):
            active = activity.loc[str(cell_type)]
            own = own.drop_duplicates("name").set_index("name")
            is_active = own.index.isin(active.index[active >= ACTIVE])
            planted, specific = own.index.isin(active.index), own.index.isin(varying)
            effect, part = own["effect"].to_numpy(), own["specific"].to_numpy()
            found["all motifs"].append(auroc(is_active, effect))
            found["planted TFs"].append(auroc(is_active[planted], effect[planted]))
            found["planted TFs, specific part"].append(auroc(is_active[specific], part[specific]))
        yield str(measure), {name: spread(values) for name, values in found.items()}


def spread(values: list[float]) -> dict[str, float]:
    known = np.array(values)[np.isfinite(values)]
    return {name: round(float(f(known)), 3) for name, f in (("mean", np.mean), ("least", np.min), ("most", np.max))}


if __name__ == "__main__":
    main()

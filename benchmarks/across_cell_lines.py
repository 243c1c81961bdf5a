"""TF binding in cell lines that were left out, from ChIP-seq peaks alone: makes what `genebert cross-validate` needs.

    python benchmarks/across_cell_lines.py --chip-seq chip_seq --tf CTCF --genome hg19_windows.fa.gz \
        --motifs motifs/jaspar_2024_consensus.meme --blacklist hg19-blacklist.v2.bed.gz --out ctcf
    genebert cross-validate ctcf/protocol.yaml --out ctcf/across

`chip_seq` has a folder per TF, and in it a narrowPeak file per cell line. Where there is no ATAC-seq of the lines, the
union of the other TFs' peaks in a line stands in for its accessible regions; the TF in question is left out of it. That
is better than nothing, and is not accessibility: TFs bind together. With ATAC-seq, use `genebert prepare` on that, and
the folders `labels` and `protocol.yaml` as they are made here.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml

from genebert.corpus.build import prepare
from genebert.settings import PrepareSettings
from genebert.tasks import task_class
from genebert.tasks.labels import labels

WIDTH = 256
FEWEST_TFS = 3
"""Other TFs that a cell line needs to be used."""
FEWEST_LINES = 3
"""Cell lines that cross-validation needs."""


@click.command(help=__doc__)
@click.option("--chip-seq", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--tf", required=True)
@click.option("--genome", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--motifs", required=True)
@click.option("--blacklist", type=click.Path(path_type=Path, exists=True))
@click.option("--out", required=True, type=click.Path(path_type=Path))
@click.option("--seeds", default=1)
def main(chip_seq: Path, tf: str, genome: Path, motifs: str, blacklist: Path | None, out: Path, seeds: int) -> None:
    """Write peaks, corpus, labels and protocol."""
    lines = sorted(path.name.split(".")[0] for path in (chip_seq / tf).iterdir())
    others = sorted(path for path in chip_seq.iterdir() if path.is_dir() and path.name != tf)
    for line in lines:
        found = [path for folder in others for path in folder.glob(f"{line}.*")]
        if len(found) >= FEWEST_TFS:
            union(found, out / "peaks" / f"{line}.narrowPeak")
        else:
            click.echo(f"{line} is left out: there are peaks of {len(found)} other TFs, and {FEWEST_TFS} are needed")
    lines = sorted(path.stem for path in (out / "peaks").glob("*.narrowPeak"))
    if len(lines) < FEWEST_LINES:
        raise click.ClickException(
            f"{len(lines)} cell lines have peaks of {tf} and of {FEWEST_TFS} other TFs, and cross-validation needs"
            f" {FEWEST_LINES}."
        )
    prepare(
        PrepareSettings(
            out=out / "corpus",
            genome=genome,
            peaks=[out / "peaks"],
            motifs=motifs,
            blacklist=blacklist,
            region_width=WIDTH,
        )
    )
    test, valid = common_chromosomes(out / "peaks")
    labels(
        task_class("tf-binding")(
            out=out / "labels",
            genome=genome,
            peaks=[next((chip_seq / tf).glob(f"{line}.*")) for line in lines],
            accessible=[out / "peaks"],
            blacklist=blacklist,
            width=WIDTH,
            valid_chromosomes=[valid],
            test_chromosomes=[test],
        )
    )
    text = yaml.safe_dump(protocol(tf, genome.absolute(), seeds), sort_keys=False)
    (out / "protocol.yaml").write_text(text)


def union(files: list[Path], path: Path) -> None:
    """Write the peaks of several files into one, with ranks within each as signals, which can be compared."""
    rows = []
    for file in files:
        peaks = [line.split("\t") for line in file.read_text().splitlines() if line.strip()]
        order = sorted(range(len(peaks)), key=lambda i: float(peaks[i][6]))
        for rank, i in enumerate(order, 1):
            start, end, summit = (int(peaks[i][column]) for column in (1, 2, 9))
            peaks[i][6] = f"{100 * rank / len(peaks):.3f}"
            peaks[i][9] = str(summit if 0 <= summit < end - start else -1)  # some of ENCODE-DREAM's lie outside
        rows += peaks
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in sorted(rows, key=lambda row: (row[0], int(row[1])))))


def common_chromosomes(peaks: Path) -> list[str]:
    """Return the two most frequent ones: labels need a split, of which cross-validation makes no use."""
    names = Counter(line.split("\t")[0] for path in peaks.iterdir() for line in path.read_text().splitlines())
    return [name for name, _ in names.most_common(2)]


def protocol(tf: str, genome: Path, seeds: int) -> dict[str, Any]:
    network: dict[str, Any] = {"epochs": 30, "dropout": 0}  # at most; each branch stops when it gets no better
    own = {**network, "own_accessibility": True}
    trees, baselines = "motif trees with accessibility", ["mean of known cell types", "nearest known cell type"]
    methods = {
        "GeneBERT": ("genebert", own),
        "GeneBERT without encoders": ("genebert", {**own, "encoders": False}),
        "GeneBERT (sequence)": ("genebert", {**network, "modalities": "sequence"}),
        trees: ("motif-trees", {"accessibility": "own", "kmers": [4]}),
        "motif trees": ("motif-trees", {"accessibility": "none", "kmers": [4]}),
        "gkm-SVM": ("gkm-svm", {}),
        "accessibility trees": ("accessibility-trees", {"accessibility": "own"}),
    }
    ensemble, quick, known = "GeneBERT + motif trees", "motif trees + known", "GeneBERT + motif trees + known"
    return {
        "title": f"{tf} in cell lines that were left out",
        "labels": "labels",
        "genome": str(genome),
        "corpus": "corpus",
        "cell_types": "each",
        "chromosomes": 3,
        "seeds": seeds,
        "methods": [{"name": name, "method": key, "options": given} for name, (key, given) in methods.items()],
        "ensembles": [
            {"name": ensemble, "of": ["GeneBERT", trees]},
            {"name": quick, "of": [trees, baselines[0]], "log_odds": True},
            {"name": known, "of": ["GeneBERT", trees, baselines[0]], "log_odds": True},
        ],
        "compare": [
            *[["GeneBERT", name] for name in methods if name != "GeneBERT"],
            *[[ensemble, name] for name in (trees, "accessibility trees", *baselines)],
            *[[quick, name] for name in (trees, *baselines)],
            *[[known, name] for name in (quick, ensemble, *baselines)],
        ],
    }


if __name__ == "__main__":
    main()

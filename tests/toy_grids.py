"""A small atlas with labels of every window in every cell type, for tests of cross-validation."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from toys import consensus_motif, corpus_of, finish_corpus, random_bases, write_fasta

from genebert.cross_validation.grid import Grid
from genebert.settings import CrossValidateSettings

CELL_TYPES = ("A", "B", "C", "D", "E")
CHROMOSOMES = ("chr1", "chr2", "chr3", "chr4")
PER_CHROMOSOME = 12
WIDTH = 60
STEP = 100


def write_atlas(folder: Path) -> Path:
    """Write genome.fa and a corpus; A and B have the same open regions but for one, and so have C and D; E has all."""
    generator = np.random.default_rng(0)
    length = STEP * PER_CHROMOSOME
    genome = {name: random_bases(length, generator) for name in CHROMOSOMES}
    write_fasta(folder / "genome.fa", genome)
    regions = [(name, start) for name in CHROMOSOMES for start in range(0, length, STEP)]
    number = len(regions)
    accessible = {
        "A": range(0, number, 2),
        "B": range(2, number, 2),
        "C": range(1, number, 2),
        "D": range(3, number, 2),
        "E": range(number),
    }
    corpus = corpus_of(
        regions,
        {name: dict.fromkeys(members, 1.0) for name, members in accessible.items()},
        width=WIDTH,
        lengths=dict.fromkeys(CHROMOSOMES, length),
        valid=["chr3"],
        test=["chr4"],
        motifs=[consensus_motif("GATA", "GATAAG"), consensus_motif("ETS", "CCGGAAGT")],
        sequence=[genome[name][start : start + WIDTH] for name, start in regions],
    )
    finish_corpus(corpus, folder / "corpus")
    return folder


def truth_of(windows: pd.DataFrame) -> pd.DataFrame:
    """Return labels by cell type: some windows are 1 in all cell types, others in A and B, others in C and D only."""
    place = np.arange(len(windows)) % 4
    return pd.DataFrame({name: ((place == 0) | (place == (1 if name in "AB" else 2))) * 1 for name in CELL_TYPES})


def windows_of() -> pd.DataFrame:
    rows = [(name, STEP * i + 5, STEP * i + 45) for name in CHROMOSOMES for i in range(PER_CHROMOSOME)]
    return pd.DataFrame(rows, columns=["chrom", "start", "end"])


def wide(truth: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return the labels with a column per cell type."""
    windows = windows_of()
    found = truth_of(windows) if truth is None else truth
    return pd.concat([windows, found.add_prefix("label:")], axis=1)


def long(table: pd.DataFrame) -> pd.DataFrame:
    """Return such labels with a row per window and cell type that is known."""
    rows = table.melt(["chrom", "start", "end"], var_name="cell_type", value_name="label").dropna()
    return rows.assign(cell_type=rows["cell_type"].str.removeprefix("label:"), label=rows["label"].astype(int))


def write_labels(folder: Path, table: pd.DataFrame) -> Path:
    path = folder / "labels.tsv"
    table.to_csv(path, sep="\t", index=False)
    return path


def read_grid(folder: Path, table: pd.DataFrame) -> Grid:
    return Grid.read(write_labels(folder, table), folder / "genome.fa", folder / "corpus")


def protocol_of(**changes: Any) -> dict[str, Any]:
    return {
        "title": "Toy",
        "labels": "labels.tsv",
        "genome": "genome.fa",
        "corpus": "corpus",
        "seeds": 2,
        "cell_types": [["A", "C"], ["B"], ["D", "E"]],
        "methods": [{"name": "G", "method": "composition"}, {"name": "flat", "method": "constant"}],
        "ensembles": [{"name": "both", "of": ["G", "flat"]}],
        "compare": [["G", "flat"], ["G", "mean of known cell types"]],
    } | changes


def write_protocol(folder: Path, protocol: dict[str, Any]) -> Path:
    path = folder / "protocol.yaml"
    path.write_text(yaml.safe_dump(protocol))
    return path


def settings_of(folder: Path, protocol: dict[str, Any], out: Path, **changes: Any) -> CrossValidateSettings:
    return CrossValidateSettings(protocol=write_protocol(folder, protocol), out=out, **changes)

"""Labelled tables as methods learn from them: windows by split, the target, and what they lie in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import Problems, UserError, problem
from genebert.inputs.genome import Genome, chromosomes_known
from genebert.inputs.scan import Scanner
from genebert.methods.base import Examples
from genebert.pretrained import check_motifs, context_of
from genebert.schema import SPLITS, Split
from genebert.shared_words import divided, groups
from genebert.target import CLASS, LABEL_PREFIX, VALUE, Target, check_variety
from genebert.tasks.labels import check_genome
from genebert.tasks.windows import COORDINATES, Windows, read_windows, say_repeats


@dataclass(frozen=True)
class LabelledFiles:
    """Where labels are.

    Attributes:
        labels: a table or a folder made by `genebert labels`; all rows, or the training rows.
        valid, test: further tables, or None if `labels` says which rows are which.
        genome: FASTA, for windows with coordinates.
        corpus: folder made by `prepare`, for windows with a cell type.
    """

    labels: Path
    valid: Path | None = None
    test: Path | None = None
    genome: Path | None = None
    corpus: Path | None = None


@dataclass(frozen=True)
class Labelled:
    """Labelled windows by split.

    Attributes:
        windows: split -> windows.
        target: what is to be predicted.
        scanner: of the motif collection.
        corpus: for windows with a cell type, else None.
    """

    windows: Mapping[Split, Windows]
    target: Target
    scanner: Scanner
    corpus: Corpus | None = None

    @cached_property
    def test_regions(self) -> NDArray[np.int64]:
        """The region that each test row belongs to; see `Windows.regions`."""
        return self.windows["test"].regions()

    @cached_property
    def _examples(self) -> dict[Split, Examples]:
        return {}

    def examples(self, split: Split) -> Examples:
        """Return the windows of a split, with truth."""
        if split not in self._examples:
            windows = self.windows[split]
            self._examples[split] = examples_of(windows, self.scanner, self.corpus, self.target)
        return self._examples[split]


def examples_of(windows: Windows, scanner: Scanner, corpus: Corpus | None, target: Target | None = None) -> Examples:
    """Return windows as methods take them, with truth if the target is given.

    Args:
        windows: with a cell type each if there is a corpus.
        scanner: of the motif collection.
        corpus: that knows the cell types and what surrounds the windows.
        target: what is to be predicted.
    """
    truth = None if target is None else target.truth(windows.table)
    if corpus is None:
        return Examples(windows.codes, scanner, truth)
    cell_types = corpus.cell_type_indices(windows.table["cell_type"].tolist())
    return Examples(windows.codes, scanner, truth, context_of(windows, corpus, cell_types), len(corpus.cell_types))


def read_labelled(
    files: LabelledFiles, scanner: Scanner, held_out: Mapping[str, Split] | None = None, remedy: str = ""
) -> Labelled:
    """Read labels.

    Args:
        files: where they are.
        scanner: of the motif collection.
        held_out: chromosome -> split ("valid" or "test") of windows with coordinates whose table does not say it.
        remedy: what else to do about rows that are not divided.

    Raises:
        UserError: a file cannot be used, files do not belong together, or a split is empty; all problems of a kind are
            listed.
    """
    genome = Genome(files.genome) if files.genome else None
    try:
        windows = _read_splits(files, genome, held_out, remedy)
        corpus = _open_corpus(files, genome, windows["train"], scanner)
    finally:
        if genome:
            genome.close()
    say_repeats(list(windows.values()))
    every = pd.concat([one.table for one in windows.values()])
    _check_splits(windows, files.labels)
    target = Target.of(every, windows["train"].table)
    found = Problems(f"The labels {files.labels} cannot be learned from:")
    check_variety({split: one.table for split, one in windows.items()}, target, found)
    found.raise_any()
    return Labelled(windows, target, scanner, corpus)


def set_aside(labelled: Labelled, fraction: float, seed: int) -> Labelled:
    """Return labels whose validation rows are cut from the training rows, with which they share no 32 bases.

    Rows that share 32 bases, directly or through others, go together; see `shared_words.divided`.

    Args:
        labelled: whose validation rows are not looked at.
        fraction: of the training rows to set aside.
        seed: of the order.

    Raises:
        UserError: too few rows, or not all classes, can be set aside; or all rows of a split are then alike.
    """
    whole = labelled.windows["train"]
    group = groups(whole.codes)
    wanted = round(fraction * len(group))
    is_valid = np.array(divided(group, {"valid": fraction}, np.random.default_rng(seed))) == "valid"
    if is_valid.sum() < wanted / 2 or not wanted:
        what = f"{is_valid.sum()} of its {len(group)} rows can be set aside that share no 32 bases with others"
        raise UserError(problem(whole.path, what, "Give validation rows as `valid`."))
    windows = {**labelled.windows, "train": whole.rows(~is_valid), "valid": whole.rows(is_valid)}
    every = pd.concat([one.table for one in windows.values()])
    target = Target.of(every, windows["train"].table)
    found = Problems(f"The rows of {whole.path} cannot be set aside; with another valid_fraction, they may be:")
    if target.kind == "classes" and not _has_all_classes([windows["train"], windows["valid"]], target):
        what = "not all classes are among both training and validation rows"
        found.add("valid_fraction", what, "Choose another one.")
    check_variety({split: one.table for split, one in windows.items()}, target, found)
    found.raise_any()
    return replace(labelled, windows=windows, target=target)


def _has_all_classes(parts: Sequence[Windows], target: Target) -> bool:
    return all(set(one.table[CLASS]) == set(target.names) for one in parts)


def _read_splits(
    files: LabelledFiles, genome: Genome | None, held_out: Mapping[str, Split] | None, remedy: str
) -> dict[Split, Windows]:
    if (files.valid is None) != (files.test is None):
        raise UserError(problem("--valid and --test", "only one of them is given", "Give both, or a column `split`."))
    windows = read_windows(files.labels, genome, labelled=True)
    if files.valid and files.test:
        valid, test = (
            windows if path == files.labels else read_windows(path, genome, labelled=True)
            for path in (files.valid, files.test)
        )
        found = Problems("The rows are divided in two ways, by --valid and --test and by a column:")
        for path in dict.fromkeys(one.path for one in (windows, valid, test) if "split" in one.table):
            found.add(path, "it has a column `split`", "Remove the column, or leave --valid and --test out.")
        found.raise_any()
        return {"train": windows, "valid": valid, "test": test}
    if "split" in windows.table:
        split = windows.table["split"].to_numpy()
    elif windows.on_genome and held_out is not None:
        names = chromosomes_known(windows.table["chrom"], held_out)
        split = np.array([held_out[names[chrom]] if chrom in names else "train" for chrom in windows.table["chrom"]])
    else:
        what = "the rows are not divided into training, validation and test"
        how = remedy or "Add a column `split` (train, valid, test), or give --valid and --test."
        raise UserError(problem(windows.path, what, how))
    return {name: windows.rows(split == name) for name in SPLITS}


def _open_corpus(files: LabelledFiles, genome: Genome | None, windows: Windows, scanner: Scanner) -> Corpus | None:
    if not windows.per_cell_type:
        return None
    if files.corpus is None or not windows.located or genome is None:
        what = "its rows name cell types, which needs coordinates, a genome and a corpus"
        raise UserError(problem(windows.path, what, "Add --genome and --corpus, or remove the column `cell_type`."))
    corpus = Corpus.open(files.corpus)
    check_genome(genome, corpus)
    check_motifs(scanner, corpus, "the motif collection to scan with")
    return corpus


def _check_splits(windows: Mapping[Split, Windows], path: Path) -> None:
    found = Problems(f"The labels {path} cannot be learned from:")
    columns = {split: _common_columns(one) for split, one in windows.items()}
    for split, one in windows.items():
        if not len(one):
            found.add(split, "there is no row", "Give rows for training, validation and test.")
        if columns[split] != columns["train"]:
            what = f"its columns are {', '.join(columns[split])}, those of training {', '.join(columns['train'])}"
            found.add(split, what, "Give all files the same columns.")
    lengths = sorted({one.codes.shape[1] for one in windows.values() if len(one)})
    if len(lengths) > 1:
        found.add("windows", f"the longest ones of the splits differ: {lengths} bp", "Make them equally long.")
    found.raise_any()


def _common_columns(windows: Windows) -> list[str]:
    """Return the columns that the windows of each split have to have: the target's, place and cell type."""
    named = {CLASS, VALUE, "cell_type", *COORDINATES}
    return sorted(name for name in windows.table if name in named or name.startswith(LABEL_PREFIX))

"""The stage `labels`: annotation, peaks, sequences or a corpus become a table of labelled windows."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from genebert.console import say
from genebert.corpus.chromosomes import held_out_chromosomes
from genebert.corpus.store import Corpus
from genebert.errors import Problems, listed
from genebert.inputs.genome import Genome
from genebert.schema import SPLITS, Split
from genebert.stage import open_stage
from genebert.target import CLASS, LABEL_PREFIX, VALUE, Target, check_variety, label_names
from genebert.tasks.base import Sources, Task
from genebert.tasks.windows import COORDINATES, LABELS_FILE

CHECKED_REGIONS = 64
_FIRST = (*COORDINATES, "strand", "cell_type", "name", "sequence")
"""Columns of labels.tsv before those of the target; the split comes last."""


def labels(task: Task) -> Path:
    """Make labels.tsv: labelled windows, divided into training, validation and test.

    Raises:
        UserError: an input cannot be used, a split has no rows, or all rows of one are alike.
    """
    task.check_division()
    corpus = Corpus.open(task.corpus) if task.corpus else None
    with open_stage("labels", task, task.files()) as run:
        if run.finished:
            return run.out
        with _opened(task, corpus) as sources:
            made = task.windows(sources)
        table = made.table
        if "split" not in table:
            table = table.assign(split=task.split(table, sources))
        _check_splits(table, sources)
        _check_variety(table, task)
        table = table[sorted(table, key=_column_order)]
        table.to_csv(run.folder / LABELS_FILE, sep="\t", index=False)
        per_split = {split: int((table["split"] == split).sum()) for split in SPLITS}
        out = run.finish(
            {
                "rows": len(table),
                "rows_per_split": per_split,
                "rows_per_split_and_label": _count_labels(table),
                "notes": made.notes,
            }
        )
        for what, which in made.notes.items():
            if which:
                say(f"{what}: {which:,}" if isinstance(which, int) else f"{what}: {which}")
        by_split = ", ".join(f"{split} {n:,}" for split, n in per_split.items())
        say(f"{out}: {_amount(table)} ({by_split})")
        return out


def _amount(table: pd.DataFrame) -> str:
    """Return in words how many rows there are, and of how many windows where each is there in several cell types."""
    if "cell_type" not in table or "start" not in table:
        return f"{len(table):,} windows"
    return f"{len(table):,} rows of {len(table[['chrom', 'start', 'end']].drop_duplicates()):,} windows"


@contextmanager
def _opened(task: Task, corpus: Corpus | None) -> Iterator[Sources]:
    """Open the genome, and say which chromosomes are held out."""
    with ExitStack() as stack:
        genome = stack.enter_context(Genome(task.genome)) if task.genome else None
        if corpus is not None:
            if genome is not None:
                check_genome(genome, corpus)
            yield Sources(genome, corpus, corpus.valid_chromosomes, corpus.test_chromosomes)
            return
        asked = task.valid_chromosomes, task.test_chromosomes
        lengths = genome.lengths if genome is not None else dict.fromkeys([*asked[0], *asked[1]], 0)
        yield Sources(genome, None, *held_out_chromosomes(*asked, lengths))


def _column_order(name: str) -> int:
    return _FIRST.index(name) if name in _FIRST else len(_FIRST) + (name == "split")


def _count_labels(table: pd.DataFrame) -> dict[str, int]:
    """Return for "split class", or "split label:NAME", how many rows have it."""
    if CLASS in table:
        sizes = table.groupby(["split", CLASS]).size()
        return {f"{split} {label}": int(n) for (split, label), n in sizes.items()}
    columns = [LABEL_PREFIX + name for name in label_names(table)]
    positive = (table[columns].astype(str) == "1").groupby(table["split"]).sum()
    return {f"{split} {column}": int(positive.loc[split, column]) for split in SPLITS for column in columns}


def _check_splits(table: pd.DataFrame, sources: Sources) -> None:
    found = Problems("The labels cannot be divided into training, validation and test:")
    for split in SPLITS:
        if not (table["split"] == split).any():
            found.add(split, *_why_empty(split, sources))
    found.raise_any()


def _check_variety(table: pd.DataFrame, task: Task) -> None:
    """Check that a target can be learned, with what `finetune` asks of it."""
    files = [str(path) for name, path in task.files().items() if name not in ("genome", "corpus")] or [str(task.corpus)]
    found = Problems(f"The labels made from {listed(files, 3)} cannot be learned from:")
    columns = [name for name in table if name in (CLASS, VALUE) or str(name).startswith(LABEL_PREFIX)]
    texts = table[columns].astype(object).where(table[columns].notna(), "").astype(str)
    tables: dict[Split, pd.DataFrame] = {split: texts[table["split"] == split] for split in SPLITS}
    check_variety(tables, Target.of(texts, tables["train"]), found)
    found.raise_any()


def _why_empty(split: Split, sources: Sources) -> tuple[str, str]:
    """Return why a split has no rows, and a remedy."""
    corpus, held_out = sources.corpus, {"valid": sources.valid_chromosomes, "test": sources.test_chromosomes}
    if corpus is None and not any(held_out.values()):
        return "it has no row", "Give other fractions, or rows of all three splits in the column `split`."
    if split == "train" or held_out[split]:
        remedy = "Prepare a corpus that holds other chromosomes out." if corpus else "Hold other chromosomes out."
        return "no window lies on its chromosomes", remedy
    if corpus is None:
        return "no chromosome is held out for it", f"Give --{split}-chromosomes."
    what = "the corpus holds no chromosome out for it"
    if corpus.valid_cell_types or corpus.test_cell_types:
        what += ", and labels divided by cell type alone are not supported"
    return what, f"Give --{split}-chromosomes to `genebert prepare`, with or without held-out cell types."


def check_genome(genome: Genome, corpus: Corpus) -> None:
    """Check that a genome is the one that a corpus was made from: its chromosomes, and the sequence of 64 regions.

    Raises:
        UserError: they differ.
    """
    found = Problems(f"The genome {genome.path} and the corpus {corpus.folder} do not belong together:")
    for name in sorted(set(genome.lengths) ^ set(corpus.lengths)):
        where = "the corpus" if name in corpus.lengths else "the genome"
        found.add(name, f"only {where} has this chromosome", "Give the genome that the corpus was made from.")
    for name in sorted(set(genome.lengths) & set(corpus.lengths)):
        if genome.lengths[name] != corpus.lengths[name]:
            found.add(
                name,
                f"it has {genome.lengths[name]} bp in the genome and {corpus.lengths[name]} bp in the corpus",
                "Give the genome that the corpus was made from.",
            )
    found.raise_any()
    checked = np.unique(np.linspace(0, len(corpus.regions) - 1, CHECKED_REGIONS).astype(int))
    regions = corpus.regions.loc[checked, ["chrom", "start", "end"]]
    for index, (chrom, start, end) in zip(checked, regions.itertuples(index=False), strict=True):
        if not np.array_equal(genome.fetch(chrom, start, end), corpus.sequence[index]):
            found.add(
                f"{chrom}:{start}-{end}",
                "the genome has another sequence there than the corpus",
                "Give the genome that the corpus was made from.",
            )
    found.raise_any()

"""Gene annotation from GTF and GFF3, plain or gzip: where transcripts begin, and their introns."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from genebert.console import say
from genebert.errors import Problems, UserError, listed, problem
from genebert.inputs.intervals import check_intervals, read_text

_COLUMNS = 9
_TRANSCRIPTS = ("transcript", "primary_transcript", "mRNA", "lnc_RNA", "lincRNA", "ncRNA", "antisense_RNA")
"""Features whose 5' end is where transcription begins; not of RNAs that are cut out of longer ones, as miRNA."""
_GENE, _EXON = "gene", "exon"
"""Tell it where a file has none of these."""
_TRANSCRIPT_ID = r"(?:^|;)\s*(?:transcript_id[ =]|Parent=)\"?([^\";]+)"
"""In the last column of an exon: transcript_id "X" in GTF, Parent=X or transcript_id=X in GFF3."""
SHORTEST_INTRON = 4
"""In bp; a shorter gap between exons has no room for two splice sites."""


def read_start_sites(path: Path, lengths: Mapping[str, int]) -> pd.DataFrame:
    """Return where transcripts begin, each place once.

    Args:
        path: GTF or GFF3.
        lengths: chromosome -> length of the genome in bp; what lies on other chromosomes is left out.

    Returns:
        DataFrame with chrom, site (0-based, of the first transcribed base) and strand.

    Raises:
        UserError: the file cannot be read, lines are malformed (all are listed), or it has no transcripts.
    """
    rows = _read_features(path, lengths, (*_TRANSCRIPTS, _GENE), instead=_EXON)
    if (rows["feature"] == _EXON).all():
        transcripts = read_exons(path, lengths).groupby("transcript", sort=False)
        rows = transcripts.agg({"chrom": "first", "start": "min", "end": "max", "strand": "first"}).assign(feature="")
    is_gene = rows["feature"] == _GENE
    rows = rows if is_gene.all() else rows[~is_gene]
    site = np.where(rows["strand"] == "+", rows["start"], rows["end"] - 1)
    return rows[["chrom", "strand"]].assign(site=site).drop_duplicates(ignore_index=True)[["chrom", "site", "strand"]]


def read_exons(path: Path, lengths: Mapping[str, int]) -> pd.DataFrame:
    """Return the exons of each transcript.

    Args:
        path, lengths: as for `read_start_sites`.

    Returns:
        DataFrame with chrom, start, end (0-based, half-open), strand and transcript, a number; sorted by transcript and
        start.

    Raises:
        UserError: as `read_start_sites`; or an exon names no transcript.
    """
    rows = _read_features(path, lengths, (_EXON,))
    name = rows["attributes"].str.extract(_TRANSCRIPT_ID, expand=False)
    found = Problems(f"The exons of {path} cannot be used:")
    for line in rows["line"][name.isna()]:
        found.add(f"line {line}", "the exon names no transcript", "Write transcript_id (GTF) or Parent (GFF3).")
    found.raise_any()
    rows = rows.assign(name=name.str.split(",")).explode("name")  # in GFF3, transcripts share exons
    transcript = rows.groupby(["name", "chrom", "strand"], sort=False).ngroup()  # a name on X and Y is two transcripts
    exons = rows[["chrom", "start", "end", "strand"]].assign(transcript=transcript)
    return exons.sort_values(["transcript", "start"], kind="stable", ignore_index=True)


def introns_of(exons: pd.DataFrame) -> pd.DataFrame:
    """Return the introns, each once: what lies between consecutive exons of a transcript.

    Args:
        exons: as `read_exons` returns them.

    Returns:
        DataFrame with chrom, start, end (0-based, half-open) and strand; those shorter than 4 bp are left out.
    """
    following = exons.shift(-1)
    introns = exons[["chrom", "strand"]].assign(start=exons["end"], end=following["start"])
    inside = following["transcript"] == exons["transcript"]
    introns = introns[inside & (introns["end"] - introns["start"] >= SHORTEST_INTRON)]
    introns = introns.astype({"end": np.int64})[["chrom", "start", "end", "strand"]]
    return introns.drop_duplicates(ignore_index=True)


def _read_features(
    path: Path, lengths: Mapping[str, int], features: Collection[str], instead: str | None = None
) -> pd.DataFrame:
    """Return chrom, start, end (0-based, half-open), feature, strand, attributes and line of the lines with one of some
    features; where there is none, of those with the feature `instead`.
    """
    found = Problems(f"The annotation {path} cannot be used:")
    rows, others = [], set[str]()
    for line, cells in _lines(path):
        if len(cells) != _COLUMNS:
            what = f"it has {len(cells)} tab-separated columns, and GTF and GFF3 have {_COLUMNS}"
            found.add(f"line {line}", what, "Correct it.")
        elif cells[2] in features:
            rows.append((cells[0], cells[3], cells[4], cells[2], cells[6], cells[8], line))
        else:
            others.add(cells[2])
    found.raise_any()
    if not rows and instead in others:
        return _read_features(path, lengths, (str(instead),))
    if not rows:
        has = f"it has {listed(sorted(others), 10)}" if others else "it has no line but comments"
        what = f"no line has the feature {' or '.join(features)}; {has}"
        raise UserError(problem(path, what, "Give the GTF or GFF3 of a gene annotation."))
    table = pd.DataFrame(rows, columns=["chrom", "start", "end", "feature", "strand", "attributes", "line"])
    unknown = table["strand"] == "?"  # which GFF3 allows
    if unknown.any() and not unknown.all():
        say(f"{path}: lines left out, of an unknown strand (?): {unknown.sum():,}")
        table = table[~unknown].reset_index(drop=True)
    _check_lines(table, found)
    table = table.assign(start=table["start"].astype(np.int64) - 1, end=table["end"].astype(np.int64))
    return check_intervals(table, path, lengths, skip_unknown=True, beyond_end=True).table


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of all lines but comments and empty ones; FASTA that may follow in GFF3 is passed over."""
    text, end = read_text(path), -1
    for number in range(1, text.count("\n") + 2):  # a list of all lines would double the memory, a gigabyte
        start, end = end + 1, text.find("\n", end + 1)
        line = text[start : end if end >= 0 else None].rstrip("\r")
        if line == "##FASTA":
            return
        if line and not line.startswith("#"):
            yield number, line.split("\t")


def _check_lines(table: pd.DataFrame, found: Problems) -> None:
    """Refuse positions that are no numbers from 1 on, ends before starts, and lines without a strand."""
    start, end = (pd.to_numeric(table[name], errors="coerce") for name in ("start", "end"))
    for name, value in (("start", start), ("end", end)):
        wrong = ~(value % 1 == 0) | (value < 1)
        for line, text in table.loc[wrong, ["line", name]].itertuples(index=False):
            found.add(f"line {line}", f"{name} is {text!r}", "Positions are whole numbers from 1 on; correct the line.")
    for line in table["line"][end < start]:
        found.add(f"line {line}", "its end is before its start", "Correct the line.")
    for line, strand in table.loc[~table["strand"].isin(["+", "-"]), ["line", "strand"]].itertuples(index=False):
        found.add(f"line {line}", f"its strand is {strand!r}", "Write + or - in column 7, or remove the line.")
    found.raise_any()

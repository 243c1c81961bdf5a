"""Splice sites: donor, acceptor or neither, with the border of exon and intron in the middle of the window.

In a window of `width` bp on the strand of the gene, base width / 2 (counted from 0) of a donor is the first base of the
intron, the G of GT; base width / 2 - 1 of an acceptor is the last base of the intron, the G of AG. What is neither
has GT, or AG, at the same place.
"""

from pathlib import Path
from typing import Literal

import bioframe
import numpy as np
import pandas as pd
from pydantic import Field

from genebert.errors import UserError, problem
from genebert.inputs.genome import Genome
from genebert.inputs.gtf import SHORTEST_INTRON, introns_of, read_exons
from genebert.inputs.intervals import read_annotation
from genebert.schema import A, C, G, T
from genebert.tasks.base import LabelTable, Note, Sources, Task
from genebert.tasks.on_genome import sort_windows, usable

Kind = Literal["donor", "acceptor"]
KINDS: tuple[Kind, Kind] = ("donor", "acceptor")
NEITHER = "neither"
AROUND_INTRONS = 200
"""Where only introns are known, so many bp on either side of them count as the gene's."""
_DINUCLEOTIDES = {("donor", "+"): (G, T), ("donor", "-"): (A, C), ("acceptor", "+"): (A, G), ("acceptor", "-"): (C, T)}
"""Of a site, as the plus strand has it."""
_SPARE = 2
"""So many times as many are drawn as are wanted: some lie next to unknown sequence."""


class Splice(Task):
    """Label splice sites as donor or acceptor, and others with the same two bases as neither.

    Columns: chrom, start, end, strand, label (donor, acceptor, neither), split. Half of what is neither has GT where a
    donor has it, half AG as an acceptor; it lies in genes, or anywhere on a chromosome whose genes
    have too few, and is annotated as no site.
    """

    genome: Path = Field(description="genome: FASTA (plain or bgzip) or 2bit")
    gtf: Path | None = Field(None, description="GTF or GFF3 with exons (gzip allowed)")
    introns: Path | None = Field(
        None,
        description="BED of introns (gzip allowed), instead of --gtf; strand in column 6, else inferred from the "
        "genome: GT..AG or CT..AC",
    )
    width: int = Field(400, ge=20, multiple_of=2, description="width of a window in bp, even")
    ratio: float = Field(1.0, gt=0, description="rows that are neither, per site")

    def windows(self, sources: Sources) -> LabelTable:
        """Return windows labelled donor, acceptor or neither; see the module."""
        genome, generator = sources.need_genome(), np.random.default_rng(self.seed)
        introns, genes = self._annotation(genome)
        notes: dict[str, Note] = {}
        sites = self._sites(introns, genome, notes)
        tables = [sites]
        for chrom, rows in sites.groupby("chrom", sort=True):
            taken = introns.loc[introns["chrom"] == chrom, ["start", "end"]].melt()["value"]
            tables.append(self._decoys(rows, taken, genes[genes["chrom"] == chrom], genome, generator))
        wanted = int((self.ratio * sites.groupby(["chrom", "label"]).size()).round().sum())
        notes["rows wanting that are neither, for lack of GT and AG"] = wanted - sum(map(len, tables[1:]))
        return LabelTable(sort_windows(pd.concat(tables, ignore_index=True).drop(columns="border")), notes)

    def _sites(self, introns: pd.DataFrame, genome: Genome, notes: dict[str, Note]) -> pd.DataFrame:
        """Return the windows of donors and acceptors, with their border."""
        stranded = introns["strand"].notna()
        notes["introns left out, neither GT..AG nor CT..AC"] = int((~stranded).sum())
        borders = borders_of(introns[stranded])
        both = borders.duplicated(["chrom", "border", "strand"], keep=False)
        notes["sites left out, being donor and acceptor"] = int(both.sum())
        sites = self._around(borders[~both])
        known = usable(sites, genome, most_n=0)
        notes["sites left out, near an end or on unknown sequence"] = int((~known).sum())
        if not known.any():
            what = "no splice site lies on known sequence of the genome"
            remedy = "Check that the introns and the genome are of the same assembly."
            raise UserError(problem(self.gtf or self.introns, what, remedy))
        return sites[known]

    def _annotation(self, genome: Genome) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return introns, whose strand may be unknown, and where genes are; each with chrom, start, end and strand."""
        if self.one_of("gtf", "introns") == "gtf":
            assert self.gtf is not None
            exons = read_exons(self.gtf, genome.lengths)
            spans = exons.groupby("transcript").agg(
                chrom=("chrom", "first"), start=("start", "min"), end=("end", "max"), strand=("strand", "first")
            )
            return introns_of(exons), spans
        assert self.introns is not None
        introns = read_annotation(self.introns, genome.lengths).table
        introns = introns[introns["end"] - introns["start"] >= SHORTEST_INTRON]
        strand = introns["strand"] if "strand" in introns else pd.Series(".", index=introns.index)
        strand = strand.where(strand.isin(["+", "-"]), _inferred_strand(introns, genome))
        introns = introns.assign(strand=strand)[["chrom", "start", "end", "strand"]].drop_duplicates()
        return introns, introns.assign(start=introns["start"] - AROUND_INTRONS, end=introns["end"] + AROUND_INTRONS)

    def _around(self, sites: pd.DataFrame) -> pd.DataFrame:
        start = sites["border"] - self.width // 2
        return sites.assign(start=start, end=start + self.width)

    def _decoys(
        self, sites: pd.DataFrame, taken: pd.Series, spans: pd.DataFrame, genome: Genome, generator: np.random.Generator
    ) -> pd.DataFrame:
        """Return windows of one chromosome that are neither; for each kind of site `ratio` times as many, if possible.

        Args:
            sites: of the chromosome.
            taken: borders annotated there.
            spans: where its genes are; on either strand, and if that is not enough, the whole chromosome is looked at.
            genome, generator: where windows lie, and what draws them.
        """
        chrom = str(sites["chrom"].iloc[0])
        whole = pd.DataFrame({"chrom": chrom, "start": 0, "end": genome.lengths[chrom], "strand": ["+", "-"]})
        tables: list[pd.DataFrame] = []
        for kind in KINDS:
            wanted = round(self.ratio * int((sites["label"] == kind).sum()))
            for looked_at in (spans, whole):
                found = _borders_like(kind, looked_at, genome)
                found = found[~found["border"].isin(pd.concat([taken, *(table["border"] for table in tables)]))]
                drawn = found.iloc[generator.choice(len(found), min(_SPARE * wanted, len(found)), replace=False)]
                strand = np.where(drawn["minus"], "-", "+")
                windows = self._around(pd.DataFrame({"chrom": chrom, "border": drawn["border"], "strand": strand}))
                windows = windows[usable(windows, genome, most_n=0)].head(wanted)
                if len(windows) == wanted:
                    break
            tables.append(windows)
        return pd.concat(tables, ignore_index=True).assign(label=NEITHER)


def borders_of(introns: pd.DataFrame) -> pd.DataFrame:
    """Return the borders of introns, each once.

    Args:
        introns: chrom, start, end, strand.

    Returns:
        DataFrame with chrom, border (0-based, of the first base after it on the plus strand), strand, and label: donor
        where the intron begins, acceptor where it ends.
    """
    plus = introns["strand"] == "+"
    tables = [
        introns[["chrom", "strand"]].assign(border=introns["start"].where(plus == forward, introns["end"]), label=kind)
        for kind, forward in (("donor", True), ("acceptor", False))
    ]
    return pd.concat(tables).drop_duplicates(ignore_index=True)


def _inferred_strand(introns: pd.DataFrame, genome: Genome) -> pd.Series:
    """Return "+" for introns that read GT..AG, "-" for CT..AC, else None."""
    first, last = (
        genome.fetch_all(introns["chrom"], at.to_numpy(np.int64), 2) for at in (introns["start"], introns["end"] - 2)
    )
    plus = (first == (G, T)).all(axis=1) & (last == (A, G)).all(axis=1)
    minus = (first == (C, T)).all(axis=1) & (last == (A, C)).all(axis=1)
    return pd.Series(np.select([plus, minus], ["+", "-"], ""), index=introns.index).replace("", None)


def _borders_like(kind: Kind, spans: pd.DataFrame, genome: Genome) -> pd.DataFrame:
    """Return where in spans of one chromosome, and on their strand, a kind of site could be by its two bases.

    Returns:
        DataFrame with border, as `borders_of`, and minus, whether it is on that strand; millions of rows.
    """
    tables = [pd.DataFrame({"border": np.empty(0, dtype=np.int64), "minus": np.empty(0, dtype=np.bool_)})]
    for strand, rows in spans.groupby("strand", sort=True):
        first, second = _DINUCLEOTIDES[kind, str(strand)]
        shift = 0 if (kind == "donor") == (strand == "+") else 2  # the intron lies after the border, or before it
        for span in bioframe.merge(rows[["chrom", "start", "end"]]).itertuples():
            codes = genome.fetch(span.chrom, span.start, span.end)
            found = np.flatnonzero((codes[:-1] == first) & (codes[1:] == second))
            tables.append(pd.DataFrame({"border": found + span.start + shift, "minus": strand == "-"}))
    return pd.concat(tables, ignore_index=True)

"""Promoters: windows around transcription start sites against windows that are none.

The windows are those of EPDnew and of DeePromoter (Oubounyt et al. 2019, Front Genet 10:286): 249 bp before to 50 bp
after the first transcribed base.

A TATA box is a hit of the matrix of Bucher (1990, J Mol Biol 212:563; counts as in JASPAR MA0108.2) on the promoter's
strand, whose first T of TATA lies 36 to 20 bp before the first transcribed base, Bucher's preferred region. Its
score is the sum of ln(count / highest count of the column), and at least his cut-off, -8.16. Of EPDnew's promoters in
the GUE benchmark, that finds 91% of those with a TATA box, and 0.5% of those without.
"""

from pathlib import Path
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from pydantic import Field

from genebert.errors import UserError, problem
from genebert.inputs.accessibility import overlapping
from genebert.inputs.genome import Genome
from genebert.inputs.gtf import read_start_sites
from genebert.inputs.intervals import read_annotation, read_bed
from genebert.schema import N, decode
from genebert.tasks.base import LabelTable, Note, Sources, Task
from genebert.tasks.on_genome import matched_windows, oriented_codes, sort_windows, usable
from genebert.tasks.windows import of_one_width

DISTANCE = 1000
"""A GC-matched window keeps this distance in bp from every transcription start site."""
PARTS, REPLACED = 20, 12
"""DeePromoter's negatives: a promoter is cut into 20 parts, of which 12 are replaced."""
TATA_COUNTS: Final = np.array(
    [
        [61, 16, 352, 3, 354, 268, 360, 222, 155, 56, 83, 82, 82, 68, 77],
        [145, 46, 0, 10, 0, 0, 3, 2, 44, 135, 147, 127, 118, 107, 101],
        [152, 18, 2, 2, 5, 0, 20, 44, 157, 150, 128, 128, 128, 139, 140],
        [31, 309, 35, 374, 30, 121, 6, 121, 33, 48, 31, 52, 61, 75, 71],
    ]
)
"""Of A, C, G, T in the columns of the matrix; the second one is the first T of TATA."""
TATA_REGION = (-36, -20)
TATA_CUTOFF = -8.16


class Promoter(Task):
    """Label windows around transcription start sites (1) and windows that are no promoters (0).

    Columns: chrom, start, end, strand, label, split; with --negatives substitution also sequence. Both labels are
    equally frequent on each chromosome, unless the negatives are given.
    """

    genome: Path = Field(description="genome: FASTA (plain or bgzip) or 2bit")
    tss: Path | None = Field(None, description="BED of transcription start sites, strand in column 6 (gzip allowed)")
    gtf: Path | None = Field(None, description="GTF or GFF3 (gzip allowed), instead of --tss: transcripts' 5' ends")
    upstream: int = Field(249, ge=0, description="bp before the first transcribed base")
    downstream: int = Field(51, ge=1, description="bp from the first transcribed base on")
    tata: Literal["all", "with", "without"] = Field("all", description="keep promoters with, or without, a TATA box")
    negatives: Literal["gc-matched", "substitution"] | Path = Field(
        "gc-matched",
        description="gc-matched: windows of the same chromosome and GC content, away from start sites; substitution: "
        "promoters of which 12 of 20 parts are replaced by random bases; or a BED of windows, resized around their "
        "centre",
    )

    def windows(self, sources: Sources) -> LabelTable:
        """Return promoters labelled 1 and others labelled 0; see the module."""
        genome, generator = sources.need_genome(), np.random.default_rng(self.seed)
        sites = self._sites(genome)
        notes: dict[str, Note] = {"start sites": len(sites)}
        promoters = self._promoters(sites, genome, notes)
        if self.negatives == "substitution":
            return LabelTable(sort_windows(_with_substitutions(promoters, genome, generator)), notes)
        if self.negatives == "gc-matched":
            others = _matched(promoters, sites, genome, generator)
            notes["negatives wanting, for lack of windows"] = len(promoters) - len(others)
        else:
            others = self._given(self.negatives, sites, genome, notes)
        table = pd.concat([promoters.assign(label=1), others.assign(label=0)], ignore_index=True)
        return LabelTable(sort_windows(table), notes)

    def _sites(self, genome: Genome) -> pd.DataFrame:
        """Return chrom, site (0-based) and strand of start sites."""
        if self.one_of("tss", "gtf") == "gtf":
            assert self.gtf is not None
            return read_start_sites(self.gtf, genome.lengths)
        assert self.tss is not None
        sites = read_annotation(self.tss, genome.lengths).table
        if "strand" not in sites or not set(sites["strand"]) <= {"+", "-"}:
            what = "transcription start sites need a strand in column 6, + or -"
            raise UserError(problem(self.tss, what, "Add it."))
        sites = sites.assign(site=np.where(sites["strand"] == "+", sites["start"], sites["end"] - 1))
        return sites[["chrom", "site", "strand"]].drop_duplicates(ignore_index=True)

    def _promoters(self, sites: pd.DataFrame, genome: Genome, notes: dict[str, Note]) -> pd.DataFrame:
        """Return the windows of start sites that lie on known sequence and have the TATA box asked for, or have not."""
        around = _around(sites, self.upstream, self.downstream)
        known = usable(around, genome)
        if not known.any():
            raise UserError(
                problem(
                    self.tss or self.gtf,
                    "no window around a start site lies on known sequence of the genome",
                    "Check that the start sites and the genome are of the same assembly.",
                )
            )
        notes["start sites left out, near an end or on unknown sequence"] = int((~known).sum())
        if self.tata == "all":
            return around[known].reset_index(drop=True)
        chosen = known & (has_tata_box(sites, genome) == (self.tata == "with"))
        if not chosen.any():
            raise UserError(problem("--tata", f"no promoter is {self.tata} a TATA box", "Choose --tata all."))
        having = "no" if self.tata == "with" else "a"
        notes[f"promoters left out, having {having} TATA box"] = int((known & ~chosen).sum())
        return around[chosen].reset_index(drop=True)

    def _given(self, path: Path, sites: pd.DataFrame, genome: Genome, notes: dict[str, Note]) -> pd.DataFrame:
        """Return the windows of a BED that overlap no promoter, with or without a TATA box; strand as given, else +."""
        table = of_one_width(read_bed(path, genome.lengths).table, path, self.upstream + self.downstream)
        strand = table["strand"].where(table["strand"].isin(["+", "-"]), "+") if "strand" in table else "+"
        table = table[["chrom", "start", "end"]].assign(strand=strand)
        known, bound = usable(table, genome), overlapping(table, _around(sites, self.upstream, self.downstream))
        notes["negatives left out, near an end or on unknown sequence"] = int((~known).sum())
        notes["negatives left out, overlapping a promoter"] = int((known & bound).sum())
        return table[known & ~bound].drop_duplicates()


def _around(sites: pd.DataFrame, upstream: int, downstream: int) -> pd.DataFrame:
    """Return the windows from `upstream` bp before to `downstream` bp after sites, on their strand."""
    plus = sites["strand"] == "+"
    start = sites["site"] + np.where(plus, -upstream, 1 - downstream)
    return pd.DataFrame(
        {"chrom": sites["chrom"], "start": start, "end": start + upstream + downstream, "strand": sites["strand"]}
    )


def has_tata_box(sites: pd.DataFrame, genome: Genome) -> NDArray[np.bool_]:
    """Return which start sites have a TATA box before them (see the module): bool, shape (n,).

    Args:
        sites: DataFrame with chrom, site (0-based) and strand.
        genome: where they lie.
    """
    first, last = TATA_REGION
    width = TATA_COUNTS.shape[1]
    region = _around(sites, 1 - first, last - 1 + width)  # the matrix begins one base before the first T
    weight = np.log(np.maximum(TATA_COUNTS, 1e-9) / TATA_COUNTS.max(axis=0))  # a base never seen rules the hit out
    weight = np.vstack([weight, np.full(width, -np.inf)])  # and so does N
    places = sliding_window_view(oriented_codes(genome, region), width, axis=1)
    score = weight[places, np.arange(width)].sum(axis=2)
    return np.asarray((score >= TATA_CUTOFF).any(axis=1))


def _matched(
    promoters: pd.DataFrame, sites: pd.DataFrame, genome: Genome, generator: np.random.Generator
) -> pd.DataFrame:
    """Return as many windows of the same chromosomes and GC content, on strands drawn at random."""
    avoid = pd.DataFrame(
        {"chrom": sites["chrom"], "start": sites["site"] - DISTANCE, "end": sites["site"] + DISTANCE + 1}
    )
    others = matched_windows(genome, promoters, avoid, generator)
    return others.assign(strand=generator.choice(np.array(["+", "-"]), size=len(others)))


def _with_substitutions(promoters: pd.DataFrame, genome: Genome, generator: np.random.Generator) -> pd.DataFrame:
    """Return promoters, and each with parts replaced; coordinates are those of the promoter that a row is made from."""
    codes = oriented_codes(genome, promoters)
    tables = [
        promoters.assign(sequence=[decode(row) for row in rows], label=label)
        for label, rows in ((1, codes), (0, substituted(codes, generator)))
    ]
    return pd.concat(tables, ignore_index=True)


def substituted(codes: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Return sequences of which 12 of 20 parts, drawn for each, are replaced by random bases (Oubounyt et al. 2019).

    Args:
        codes: base codes, uint8, shape (n, width).
        generator: draws.
    """
    n, width = codes.shape
    part = np.arange(width) * PARTS // width
    replaced = generator.permuted(np.tile(np.arange(PARTS) < REPLACED, (n, 1)), axis=1)
    random = generator.integers(0, N, size=codes.shape, dtype=np.uint8)
    return np.where(replaced[:, part], random, codes)

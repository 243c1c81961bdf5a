"""Are the TFs that make a blood lineage those that a predictor rests on there? Prints JSON.

    genebert labels accessibility --corpus corpus --genome hg19.fa --out labels
    genebert pretrain --corpus corpus --out model
    genebert finetune --labels labels --model model --corpus corpus --genome hg19.fa --out predictor
    genebert explain --model predictor --corpus corpus --most-motifs 182 --out explained
    python benchmarks/lineages.py --explained explained --corpus corpus

`corpus` has cell types of blood (Corces et al. 2016), and motifs with the names of HOCOMOCO, or of the clusters of
JASPAR 2024. A TF and its relatives bind the same motif: GATA1's is GATA2's too, and SPI1's that of other Ets TFs.

For each TF of `KNOWN`, by what `explain` finds (the part of the effect that is specific to a cell type) and by TF
usage, which needs no predictor: the rank of its motif among all motifs in each cell type of its lineage (1 is the most
important), the cell type in which it stands highest, and the AUROC of its lineage's cell types against the others,
which is 1 if it is more important in each of them than in any other. Beside the mean AUROC stands how often it is
reached where each TF has the cell types in random order (of 1,000), as if none were another's relative.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from common import finish, usage_table
from numpy.typing import NDArray
from scipy.stats import rankdata

from genebert.corpus.store import Corpus

ORDERS = 1_000
GMP = ("GMP-A", "GMP-B", "GMP-C")


@dataclass(frozen=True)
class Known:
    """A TF that makes a lineage.

    Attributes:
        tf: its name.
        motifs: names of its motif in collections.
        lineage: the cell types.
        source: who showed it.
    """

    tf: str
    motifs: tuple[str, ...]
    lineage: tuple[str, ...]
    source: str


KNOWN = (
    Known("GATA1", ("GATA1", "C101:GATA_MECOM:GATA"), ("Ery", "Mega"), "Pevny 1991; Shivdasani 1997"),
    Known("KLF1", ("KLF1", "C039:KLF_ZNF:C2H2_ZF"), ("Ery",), "Nuez 1995; Perkins 1995"),
    Known("SPI1", ("SPI1", "C105:ELF_SPI:Ets"), (*GMP, "Mono", "mDC"), "Scott 1994; McKercher 1996"),
    Known("CEBPA", ("CEBPA", "C027:CEBP:bZIP"), (*GMP, "Mono"), "Zhang 1997; Radomska 1998"),
    Known("PAX5", ("PAX5", "C032:PAX:Paired_box"), ("B",), "Urbanek 1994; Nutt 1999"),
    Known("EBF1", ("COE1", "C053:EBF_TFAP2:AP-2"), ("B",), "Lin and Grosschedl 1995"),
    Known("TCF7", ("TCF7", "C016:LEF1_TCF:bHLH"), ("CD4", "CD8"), "Verbeek 1995"),
    Known("RUNX3", ("RUNX3", "C079:BCL_RUNX:Runt"), ("CD4", "CD8", "NK"), "Taniuchi 2002; Woolf 2003"),
    Known("TBX21", ("TBX21", "C060:MGA_TBX:T-box"), ("NK",), "Townsend 2004"),
)


@click.command(help=__doc__)
@click.option("--explained", required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--corpus", required=True, type=click.Path(path_type=Path, exists=True))
def main(explained: Path, corpus: Path) -> None:
    table = pd.read_csv(explained / "importance.tsv", sep="\t")
    table = pd.concat([table, usage_table(Corpus.open(corpus))])
    found: dict[str, Any] = {"known": [asdict(one) for one in KNOWN]}
    for measure, rows in table.groupby("measure"):
        found[str(measure)] = compared(rows.pivot_table(index="cell_type", columns="name", values="specific"))
    finish(found)


def auroc(positive: NDArray[np.bool_], ranks: NDArray[np.float64]) -> float:
    """Return the AUROC from ranks (Mann and Whitney 1947): thousands of them are computed."""
    count, others = positive.sum(), (~positive).sum()
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))


def compared(specific: pd.DataFrame) -> dict[str, Any]:
    """Return how the known TFs stand in a table cell types x motifs."""
    ranks = specific.rank(axis=1, ascending=False, method="min")
    rows, tfs = [], []
    for one in KNOWN:
        motif = next((name for name in one.motifs if name in specific), None)
        if motif is None or not set(one.lineage) <= set(specific.index) or specific[motif].isna().any():
            continue
        tfs.append((specific.index.isin(one.lineage), rankdata(specific[motif])))
        rows.append(
            {
                "TF": one.tf,
                "ranks": {cell_type: int(ranks.loc[cell_type, motif]) for cell_type in one.lineage},
                "highest_in": str(specific[motif].idxmax()),
                "AUROC": round(auroc(*tfs[-1]), 3),
            }
        )
    if not rows:
        raise click.ClickException("of the TFs and cell types of blood that are known, none is there")
    mean = float(np.mean([row["AUROC"] for row in rows]))
    generator = np.random.default_rng(0)
    shuffled = [
        np.mean([auroc(generator.permutation(lineage), values) for lineage, values in tfs]) for _ in range(ORDERS)
    ]
    p = (1 + sum(value >= mean for value in shuffled)) / (1 + ORDERS)
    return {"motifs": specific.shape[1], "mean_AUROC": round(mean, 3), "p": round(p, 4), "TFs": rows}


if __name__ == "__main__":
    main()

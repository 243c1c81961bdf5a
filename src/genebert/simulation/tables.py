"""Coordinates and tables as the simulation writes them."""

from pathlib import Path

import numpy as np
import pandas as pd

from genebert.simulation.genome import Genome, Ints


def locate(where: Genome, starts: Ints, ends: Ints) -> pd.DataFrame:
    """Return intervals of the genome as chrom, start, end on their chromosomes."""
    first = np.asarray(starts) // where.length * where.length
    return pd.DataFrame(
        {
            "chrom": where.chromosome_of(starts),
            "start": np.asarray(starts) - first,
            "end": np.asarray(ends) - first,
        }
    )


def write_table(path: Path, table: pd.DataFrame, *, header: bool = True) -> None:
    """Write tab-separated text."""
    table.to_csv(path, sep="\t", index=False, header=header, float_format="%.5g", lineterminator="\n")

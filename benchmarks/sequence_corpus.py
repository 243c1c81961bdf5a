"""A corpus from sequences without coordinates, so that a network can be pre-trained on them.

    python benchmarks/sequence_corpus.py gue/tf/0/train.csv.gz gue/tf/1/train.csv.gz --motifs motifs.meme --out union

Sequences are cut into windows of one width, and those that differ are laid out on made-up chromosomes, N between them,
with a peak on each; `genebert prepare` makes the corpus. Labels are not looked at. Only training files should be given,
and those that will be tested on as `--without`: what shares 32 bases with their rows is left out. Windows that lie side
by side here have nothing to do with each other, so that region matrices mean nothing: pre-train with `--srm-weight 0`.
"""

from pathlib import Path

import click
import numpy as np
import pandas as pd

from genebert.corpus.build import prepare
from genebert.schema import N, decode, encode
from genebert.settings import PrepareSettings
from genebert.shared_words import sharing
from genebert.tasks.windows import encode_all

CHROMOSOMES = 20
"""The last two are held out, one for validation and one for testing: sequences are shuffled among them."""


@click.command()
@click.argument("tables", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--without", multiple=True, type=click.Path(path_type=Path, exists=True), help="tables of test rows")
@click.option("--motifs", required=True, help="as for genebert prepare")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="folder for the inputs and the corpus")
@click.option("--width", default=100, help="of the windows, in bp; shorter sequences are left out")
@click.option("--seed", default=0, help="of the order")
def main(tables: tuple[Path, ...], without: tuple[Path, ...], motifs: str, out: Path, width: int, seed: int) -> None:
    windows = sorted({piece for table in tables for piece in pieces(table, width)})
    for table in without:
        windows = apart_from(windows, table)
    order = np.random.default_rng(seed).permutation(len(windows))
    out.mkdir(parents=True, exist_ok=True)
    genome, peaks = out / "windows.fa", out / "windows.narrowPeak"
    with genome.open("w") as fasta, peaks.open("w") as bed:
        for number, part in enumerate(np.array_split(order, CHROMOSOMES)):
            chrom, gap = f"chr{number + 1}", "N" * width
            fasta.write(f">{chrom}\n{gap}" + "".join(windows[i] + gap for i in part) + "\n")
            for place in range(len(part)):
                start = width * (2 * place + 1)
                bed.write(f"{chrom}\t{start}\t{start + width}\t.\t1000\t.\t1\t-1\t-1\t{width // 2}\n")
    prepare(
        PrepareSettings(
            out=out / "corpus",
            genome=genome,
            peaks=[peaks],
            motifs=motifs,
            region_width=width,
            valid_chromosomes=[f"chr{CHROMOSOMES - 1}"],
            test_chromosomes=[f"chr{CHROMOSOMES}"],
        )
    )
    click.echo(f"{len(windows):,} windows of {width} bp")


def apart_from(windows: list[str], table: Path) -> list[str]:
    """Return the windows that share no 32 bases with a table's sequences, on either strand."""
    sequences = pd.read_csv(table)["sequence"]
    tested, _ = encode_all(sequences, [f"row {i + 1}" for i in range(len(sequences))], table)
    shared = sharing(np.stack([encode(window).codes for window in windows]), tested)
    return [window for window, is_shared in zip(windows, shared, strict=True) if not is_shared]


def pieces(table: Path, width: int) -> list[str]:
    """Return the windows of a table's sequences, side by side around the middle; those with an N are left out."""
    found = []
    for sequence in pd.read_csv(table)["sequence"]:
        codes = encode(sequence).codes
        count = len(codes) // width
        first = (len(codes) - count * width) // 2
        for start in range(first, first + count * width, width):
            piece = codes[start : start + width]
            if not (piece == N).any():
                found.append(decode(piece))
    return found


if __name__ == "__main__":
    main()

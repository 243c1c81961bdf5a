"""The motifs of HOCOMOCO v12 or later that no ChIP-seq went into.

    python benchmarks/motifs_without_chip.py hocomoco_v13_core.meme selex.meme

A gain by motifs that were found in the ChIP-seq peaks that are to be predicted would prove little. The fourth part of a
motif's name, as in ALX3.H13CORE.0.SM.B, says where it comes from: P ChIP-seq, S HT-SELEX, M methyl-HT-SELEX, G genomic
HT-SELEX, I SMiLE-seq, B protein binding microarray (Vorontsov et al. 2024, Nucleic Acids Res 52:D154).
"""

from pathlib import Path

import click

DATA_PART, CHIP_SEQ = 3, "P"


@click.command()
@click.argument("collection", type=click.Path(path_type=Path, exists=True))
@click.argument("out", type=click.Path(path_type=Path))
def main(collection: Path, out: Path) -> None:
    head, *motifs = collection.read_text().split("\nMOTIF ")
    kept = [motif for motif in motifs if CHIP_SEQ not in data_of(motif.split()[0])]
    out.write_text("\nMOTIF ".join([head, *kept]))
    click.echo(f"{len(kept):,} of {len(motifs):,} motifs")


def data_of(name: str) -> str:
    """Return the letters that say which kinds of data a motif comes from."""
    parts = name.split(".")
    if len(parts) <= DATA_PART:
        raise click.ClickException(f"{name} is no name of HOCOMOCO v12 or later, such as ALX3.H13CORE.0.SM.B")
    return parts[DATA_PART]


if __name__ == "__main__":
    main()

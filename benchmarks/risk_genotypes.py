"""Disease risk on real genotypes, whose linkage and frequencies are those of people; the disease alone is simulated.

    python benchmarks/risk_genotypes.py --vcf 1000G_chr20.vcf.gz --genome hg19.fa.gz --corpus corpus \\
        --motifs hocomoco.meme --window chr20:1000000-2000000 --out risk-genotypes

The predictor (the network without its encoders, and motif trees) learns which regions of the corpus are accessible in
six or more cell types, and the window should lie on a chromosome that the corpus tests on. The disease acts through
common variants in accessible regions, one in each of some, whose alternate allele makes or breaks a strong hit of a
PWM. Each explains the same share of the liability, with either sign. Which they are, and the rest of the liability, is
drawn anew for each seed. Then `genebert risk` is run as on any cohort. Everything goes to risk_genotypes.json in the
output folder: the measures of all methods, how many of the first regions are causal, and in how many of these the
causal variant is the one of the greatest predicted change, or the one that goes best with the disease, among the
common variants of the region.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import pandas as pd
from common import command, commit, machine
from numpy.typing import NDArray
from risk import accuracy_of, predictor_of, run_risk

from genebert.corpus.store import Corpus
from genebert.haplotype_effects import tf_changes
from genebert.haplotypes import CohortHaplotypes, read_haplotypes
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import MOTIF_FLANK
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner
from genebert.schema import EVIDENCE_STEPS

HERITABILITY = 0.5
IN_CELL_TYPES = 6
CAUSAL = 6
LEAST_FREQUENCY = 0.05
STRONG = 4.5
"""-log10 p of a hit that a variant may make or break."""
LEAST_CHANGE = 1.5
"""Change of that of a causal variant."""


class Candidates(NamedTuple):
    """Common variants in regions.

    table: region (name), variant, tf (whose hits change most), change (of -log10 p).
    dosage: alternate alleles, shape (individuals, variants).
    """

    table: pd.DataFrame
    dosage: NDArray[np.float64]


@click.command()
@click.option("--vcf", type=click.Path(path_type=Path, exists=True), required=True, help="phased genotypes")
@click.option("--genome", type=click.Path(path_type=Path, exists=True), required=True, help="FASTA")
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="folder made by prepare")
@click.option("--motifs", required=True, help="PWMs that the disease acts through")
@click.option("--window", required=True, help="CHROM:START-END that the genotypes cover, 0-based")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="folder for results")
@click.option("--seeds", default=5, help="diseases")
def main(vcf: Path, genome: Path, corpus: Path, motifs: str, window: str, out: Path, seeds: int) -> None:
    """Measure risk of simulated diseases in real people."""
    out.mkdir(exist_ok=True)
    opened = Corpus.open(corpus)
    shared = np.bincount(opened.accessible_regions, minlength=len(opened.regions)) >= IN_CELL_TYPES
    model, auroc = predictor_of(opened, genome, shared, out)
    regions = regions_in(opened, window)
    regions.to_csv(out / "regions.bed", sep="\t", index=False, header=False)
    with Genome(genome) as sequence:
        cohort = read_haplotypes(vcf, sequence, regions)
        scanner = Scanner(read_motifs(motifs))
        changes = strong_changes(scanner, sequence, cohort)
    found = candidates(cohort, changes, [motif.name for motif in scanner.motifs])
    rows = []
    for seed in range(1, seeds + 1):
        causal, people = disease(found, cohort.samples, seed)
        people.to_csv(out / f"phenotypes-{seed}.tsv", sep="\t", index=False)
        folder = out / f"risk-{seed}"
        cost = run_risk(
            folder,
            vcf=vcf,
            phenotypes=out / f"phenotypes-{seed}.tsv",
            model=model,
            genome=genome,
            corpus=corpus,
            regions=out / "regions.bed",
            components=4,
            top=len(regions),
        )
        rows.append({"seed": seed, **accuracy_of(folder), **recovered(folder, found, causal, people), **cost})
        facts = {
            "predictor": {"AUROC": auroc},
            "individuals": len(people),
            "regions": len(regions),
            "common_variants": len(found.table),
            "diseases": rows,
        }
        text = json.dumps({"machine": machine(), "command": command(), "commit": commit(), **facts}, indent=2)
        (out / "risk_genotypes.json").write_text(text + "\n")
    print(out / "risk_genotypes.json")


def regions_in(corpus: Corpus, window: str) -> pd.DataFrame:
    """Return chrom, start, end and name of the corpus' regions inside a window."""
    chrom, span = window.split(":")
    start, end = map(int, span.split("-"))
    table = corpus.regions
    inside = table[(table.chrom == chrom) & (table.start >= start) & (table.end <= end)][["chrom", "start", "end"]]
    return inside.assign(name=[f"{row.chrom}:{row.start}-{row.end}" for row in inside.itertuples()])


def strong_changes(scanner: Scanner, genome: Genome, cohort: CohortHaplotypes) -> NDArray[np.float32]:
    """Return the changes of -log10 p of hits that are strong with either allele: shape (variants, motifs)."""
    changes = tf_changes(scanner, genome, cohort)
    places = cohort.variants[["chrom", "position"]].itertuples(index=False)
    near = [genome.fetch(chrom, at - 1 - MOTIF_FLANK, at + MOTIF_FLANK) for chrom, at in places]
    reference = scanner.scan(np.array(near)).astype(np.float32) / EVIDENCE_STEPS
    return np.where(np.maximum(reference, reference + changes) >= STRONG, changes, 0)


def candidates(cohort: CohortHaplotypes, changes: NDArray[np.float32], tfs: list[str]) -> Candidates:
    """Return the common variants, and what they do to the PWM that they change most.

    Args:
        changes: of -log10 p of hits, shape (rows of `cohort.variants`, motifs).
        tfs: names of the motifs.
    """
    frequency = (cohort.variants["copies"] / cohort.variants["alleles"]).to_numpy()
    common = np.flatnonzero(np.minimum(frequency, 1 - frequency) >= LEAST_FREQUENCY)
    most = np.abs(changes[common]).argmax(axis=1)
    table = cohort.variants.iloc[common]
    names = cohort.regions["name"].to_numpy()[table["region"]]
    found = {"region": names, "variant": table["name"].to_numpy(), "tf": [tfs[i] for i in most]}
    return Candidates(
        pd.DataFrame(found).assign(change=changes[common, most]), cohort.dosage[:, common].toarray().astype(float)
    )


def disease(found: Candidates, samples: list[str], seed: int) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Draw a disease.

    Returns:
        rows of the causal variants among the candidates; and sample and disease of each individual, half of them cases.
    """
    generator = np.random.default_rng(seed)
    strong = found.table[np.abs(found.table.change) >= LEAST_CHANGE]
    one_each = strong.loc[strong.change.abs().groupby(strong.region).idxmax()]
    causal = np.sort(generator.choice(one_each.index, CAUSAL, replace=False))
    dosage = found.dosage[:, causal]
    signs = generator.choice([-1, 1], CAUSAL)
    genetic = ((dosage - dosage.mean(axis=0)) / dosage.std(axis=0)) @ signs
    genetic *= np.sqrt(HERITABILITY) / genetic.std()
    liability = genetic + np.sqrt(1 - HERITABILITY) * generator.normal(size=len(samples))
    status = (liability > np.median(liability)).astype(int)
    return causal, pd.DataFrame({"sample": samples, "disease": status})


def recovered(folder: Path, found: Candidates, causal: NDArray[np.int64], people: pd.DataFrame) -> dict[str, Any]:
    """Return what of the causes is found: regions, and variants in them."""
    ranked = pd.read_csv(folder / "regions.tsv", sep="\t", na_values=".")
    true = set(found.table.region[causal])
    orders = {"by p": ranked, "by weight": ranked.iloc[np.argsort(-ranked.weight.abs().to_numpy(), kind="stable")]}
    first = {name: int(one.region.head(CAUSAL).isin(true).sum()) for name, one in orders.items()}
    predicted = pd.read_csv(folder / "convergence.tsv", sep="\t", na_values=".")
    change = predicted.set_index(["region", "variant"]).change.abs()
    status = people.disease.to_numpy(float)
    table = found.table.assign(
        change=change.reindex(pd.MultiIndex.from_frame(found.table[["region", "variant"]])).fillna(0).to_numpy(),
        association=[abs(np.corrcoef(one, status)[0, 1]) for one in found.dosage.T],
    )
    groups = [table[table.region == table.region[one]] for one in causal]
    choices = [(one, group) for one, group in zip(causal, groups, strict=True) if len(group) > 1]
    linkage = np.corrcoef(found.dosage.T) ** 2
    elsewhere = [linkage[one][(table.region != table.region[one]).to_numpy()].max() for one in causal]
    return {
        f"causal_among_first_{CAUSAL}_regions": first | {"chance": round(CAUSAL**2 / len(ranked), 3)},
        "causal": found.table.iloc[causal].round(3).to_dict("records"),
        "greatest_r2_with_another_region": [round(float(one), 3) for one in elsewhere],
        "regions_with_several_common_variants": len(choices),
        "causal_variant_first": {
            "by predicted change": sum(int(group.change.idxmax() == one) for one, group in choices),
            "by association": sum(int(group.association.idxmax() == one) for one, group in choices),
            "chance": round(sum(1 / len(group) for _, group in choices), 2),
        },
    }


if __name__ == "__main__":
    main()

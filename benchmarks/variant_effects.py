"""What scores of variants say of measured effects (saturation mutagenesis) and of fine-mapped variants.

    python benchmarks/variant_effects.py DATA --corpus corpus --model pretrained --accessibility predictor

DATA holds mpra/ (elements.fa, variants.tsv.gz: Kircher et al. 2019), gwas/, hg19_windows.fa.gz and .bed,
blood_atac/peaks, chip_seq and motifs/hocomoco_v13_core.meme. The corpus, the pre-trained model and the predictor of
accessibility are of blood cell types. Prints a table, and JSON to --out. With --keep FOLDER, what takes long is kept
there.

Penalties of an element's regression are chosen among the other elements; its features, and the threshold of binding,
were chosen while looking at all of these elements, so that its number is somewhat optimistic. Each measure has a 95%
bootstrap interval: positions are drawn with replacement, with all of their alleles, and, for means over elements,
elements too. Differences from other methods are of the same draws.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import pandas as pd
import saturation
from numpy.typing import NDArray
from saturation import Block, Measured, cached

from genebert.console import say, table
from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import binding, motif_hits
from genebert.inputs.motifs import read_motifs
from genebert.inputs.scan import Scanner
from genebert.predictor import Predictor
from genebert.resampling import Numbers, auroc, estimate, pearson, region_weights, spearman
from genebert.schema import EVIDENCE_STEPS, Variant, decode
from genebert.variants.scorer import CHUNK, Scorer, WindowScorer
from genebert.variants.zero_shot import Pretrained, ZeroShotScorer

CELL_TYPE = "Ery"
"""Elements have no neighbours in the corpus, so that all cell types give them the same score."""
TRAITS = {"LYMPH_COUNT": ("B", "CD4", "CD8", "NK"), "MONO_COUNT": ("Mono",)}
HIGH_POSTERIOR = 0.1
LOCUS = 50_000
"""Fine-mapped variants within so many bp are drawn together."""
SHIFTS = (1, 3, 5)
EVERY = 16
"""Shifts are compared at every sixteenth position."""
LABELS = ("any", "blood", "HepG2", "K562")
"""Peaks whose gapped k-mers are learned: all, ATAC-seq of blood, and the ChIP-seq of two cell lines."""
OURS = "GeneBERT regression, leave one element out"


@click.command()
@click.argument("data", type=click.Path(path_type=Path, exists=True))
@click.option("--corpus", type=click.Path(path_type=Path, exists=True), required=True, help="folder made by prepare")
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True, help="folder made by pretrain")
@click.option(
    "--accessibility", type=click.Path(path_type=Path, exists=True), help="folder made by finetune (default: left out)"
)
@click.option("--barcodes", default=10, show_default=True, help="fewest of a variant")
@click.option("--keep", type=click.Path(path_type=Path), help="folder for what takes long (default: kept nowhere)")
@click.option("--out", type=click.Path(path_type=Path), help="JSON to write (default: none)")
def main(
    data: Path,
    corpus: Path,
    model: Path,
    accessibility: Path | None,
    barcodes: int,
    keep: Path | None,
    out: Path | None,
) -> None:
    """Measure, and print."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
    scanner = Scanner(read_motifs(str(data / "motifs" / "hocomoco_v13_core.meme")))
    measured = Measured.read(data / "mpra", barcodes)
    elements = saturation.among_chromosomes(Corpus.open(corpus), measured.genome)
    scorers = {"pretrained": zero_shot_scorer(model, corpus, elements, measured.genome)}
    if accessibility:
        scorers["accessibility"] = predictor_scorer(accessibility, elements, measured.genome)
    found = Scores(data, measured, scanner, scorers, keep)
    facts = {"barcodes": barcodes, "mutagenesis": mutagenesis_facts(found)}
    if accessibility:
        facts["shifts"] = shift_facts(found, scorers["accessibility"])
        facts["gwas"] = gwas_facts(data, corpus, model, accessibility, scanner, keep)
    if out:
        out.write_text(json.dumps({"machine": common.machine(), "command": common.command(), **facts}, indent=1) + "\n")


def zero_shot_scorer(model: Path, folder: Path, elements: Corpus, genome: Genome) -> WindowScorer:
    opened = Pretrained.open(model, folder, "cpu")
    scorer = ZeroShotScorer(Pretrained(opened.manifest, opened.model, opened.scanner, elements), genome, [CELL_TYPE])
    scorer.windows = saturation.ElementWindows(genome, None, elements.width)
    return scorer


def predictor_scorer(folder: Path, elements: Corpus, genome: Genome) -> WindowScorer:
    scorer = Scorer(Predictor.open(folder, "cpu"), genome, elements, [CELL_TYPE])
    scorer.windows = saturation.ElementWindows(genome, None, elements.width)
    return scorer


class Scores:
    """Scores and features of measured variants.

    Args:
        data: folder of data.
        measured: effects.
        scanner: of the motifs.
        scorers: name -> scorer of the elements.
        keep: folder for what takes long, or None.
    """

    def __init__(
        self, data: Path, measured: Measured, scanner: Scanner, scorers: Mapping[str, WindowScorer], keep: Path | None
    ) -> None:
        self.measured = measured
        variants = measured.variants
        hits = cached(keep, "hits", lambda: {"hits": motif_hits(measured.genome, scanner, variants)})["hits"]
        self.motifs = saturation.motif_features(hits)
        bound = binding(hits)
        self.binding = (bound[:, 1] - bound[:, 0]).astype(np.float64)
        change = (hits[:, 1].astype(np.float64) - hits[:, 0]) / EVIDENCE_STEPS
        self.best_change = np.take_along_axis(change, np.abs(change).argmax(axis=1)[:, None], axis=1)[:, 0]
        self.summed_change = change.sum(axis=1)
        distance = cached(
            keep, "distance", lambda: {"distance": saturation.nearness_to_strongest_motif(measured, scanner)}
        )
        self.distance = distance["distance"]
        sites = saturation.regulatory_sites(data)
        self.kmers = {
            label: cached(
                keep, f"kmers-{label}", partial(saturation.gapped_kmer_change, sites, label, scanner, measured)
            )
            for label in LABELS
        }
        weights = cached(keep, "regulatory", partial(saturation.regulatory_motif_weights, sites, scanner))
        self.regulatory = {name: self.binding @ values for name, values in weights.items()}
        self.windows = {
            name: cached(keep, name, lambda scorer=scorer: window_scores(scorer, variants))
            for name, scorer in scorers.items()
        }

    def change(self, name: str) -> Numbers:
        """Return the change of a scorer's log-odds: shape (n,)."""
        found = self.windows[name]
        change: Numbers = (found["alternate"] - found["reference"])[:, 0]
        return change

    def zero_shot(self) -> dict[str, Numbers]:
        """Return scores for which nothing was learned from measured effects; larger: more expression."""
        further = self.windows["pretrained"]
        found = {
            "likelihood ratio": further["likelihood_ratio"],
            "embedding distance (negative)": -further["embedding_distance"],
            "matching shift (SRM)": self.change("pretrained"),
        }
        if "accessibility" in self.windows:
            found["log-odds of accessibility"] = self.change("accessibility")
        return found | {
            "regulatory motifs, any peaks": self.regulatory["any"],
            "regulatory motifs, blood ATAC-seq": self.regulatory["blood"],
            "binding of all motifs": self.motifs["binding, 4"],
        }

    def baselines(self) -> dict[str, Numbers]:
        """Return what the field has had for long, and regressions on sequence alone."""
        penalties = tuple(10.0**i for i in range(-1, 4))
        words, _ = saturation.leave_elements_out(
            self.measured, [Block(saturation.word_features(self.measured), penalties, False)]
        )
        return {
            "distance to the strongest motif": self.distance,
            "PWM difference, largest": self.best_change,
            "PWM difference, summed": self.summed_change,
            "gapped k-mer SVM (delta), blood ATAC-seq": self.kmers["blood"]["change"],
            "gapped k-mer SVM (delta), any peaks": self.kmers["any"]["change"],
            "k-mers and bases, leave one element out": words,
        }

    def regressions(self) -> tuple[dict[str, Numbers], dict[str, Any]]:
        """Return regressions on features, each of which leaves whole elements out, and the penalties chosen."""
        few = [
            *self.motifs.values(),
            *saturation.base_features(self.measured.table).values(),
            *self.regulatory.values(),
            *(found["change"] for found in self.kmers.values()),
        ]
        network = [*self.zero_shot().values()][:-3]
        penalties = (0.3, 1.0, 3.0, 10.0)
        motif_block = Block(self.binding, (1.0, 3.0, 10.0, 30.0), False)
        sets = {
            OURS: [Block(np.stack(few + network, axis=1), penalties, True), motif_block],
            "the same without the network's scores": [Block(np.stack(few, axis=1), penalties, True), motif_block],
            "the same without a weight per motif": [Block(np.stack(few + network, axis=1), penalties, True)],
            "the network's scores alone": [Block(np.stack(network, axis=1), penalties, True)],
        }
        predicted, chosen = {}, {}
        for name, blocks in sets.items():
            predicted[name], chosen[name] = saturation.leave_elements_out(self.measured, blocks)
            say(f"{name}: done")
        return predicted, chosen


def window_scores(scorer: WindowScorer, variants: list[Variant]) -> dict[str, Numbers]:
    """Return a scorer's scores of windows by name."""
    parts = []
    for begin in range(0, len(variants), CHUNK):
        pairs = [pair for variant in variants[begin : begin + CHUNK] for pair in scorer.windows.pairs(variant, 1)]
        parts.append(scorer.named(pairs))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# ------------------------------------------------------------------------------------------ mutagenesis


def mutagenesis_facts(found: Scores) -> dict[str, Any]:
    """Return correlations with measured effects, per element and on average, and differences from baselines."""
    regressions, chosen = found.regressions()
    groups = {"zero-shot": found.zero_shot(), "baselines": found.baselines(), "supervised": regressions}
    scores = {name: values for group in groups.values() for name, values in group.items()}
    measured = found.measured
    facts: dict[str, Any] = {"groups": {name: list(group) for name, group in groups.items()}, "penalties": chosen}
    for kind, rows in {"SNVs": measured.is_snv, "1-bp deletions": ~measured.is_snv}.items():
        draws = Draws(measured, rows)
        facts[kind] = {
            measure: draws.compared(scores, of, [*groups["baselines"]], OURS)
            for measure, of in {"Pearson": pearson, "Spearman": spearman}.items()
        } | {"variants": draws.counts}
        print_table(facts[kind], kind)
    sizes = {name: np.abs(values) for name, values in scores.items()}
    facts["size of SNVs"] = {
        "Spearman": Draws(measured, measured.is_snv, size=True).compared(sizes, spearman, [*groups["baselines"]], OURS)
    }
    print_table(facts["size of SNVs"], "size of SNVs")
    return facts


class Draws:
    """Draws of positions within elements, and of elements.

    Args:
        measured: effects.
        rows: which variants to look at, bool, shape (n,).
        size: look at the size of effects, not at their sign.
    """

    def __init__(self, measured: Measured, rows: NDArray[np.bool_], *, size: bool = False) -> None:
        self.names = np.unique(measured.element).tolist()
        self.rows = {name: np.flatnonzero(rows & (measured.element == name)) for name in self.names}
        self.effect = np.abs(measured.effect) if size else measured.effect
        positions = measured.table["position"].to_numpy()
        self.weights = {
            name: region_weights(positions[one], seed) for seed, (name, one) in enumerate(self.rows.items())
        }
        self.counts = {name: len(one) for name, one in self.rows.items()}
        draws = len(next(iter(self.weights.values())))
        self.elements = np.random.default_rng(0).integers(0, len(self.names), size=(draws, len(self.names)))
        self.elements[0] = np.arange(len(self.names))

    def correlations(self, score: Numbers, of: Any) -> Numbers:
        """Return correlations by element and draw: shape (elements, draws)."""
        return np.stack([of(self.weights[name], score[one], self.effect[one]) for name, one in self.rows.items()])

    def mean(self, values: Numbers) -> dict[str, Any]:
        """Return the mean over elements with its interval, the elements being drawn too."""
        return estimate(values[self.elements.T, np.arange(values.shape[1])].mean(axis=0)).to_json()

    def compared(self, scores: Mapping[str, Numbers], of: Any, baselines: list[str], ours: str) -> dict[str, Any]:
        """Return for each score its correlation per element and on average; and how far ours is above baselines."""
        values = {name: self.correlations(score, of) for name, score in scores.items()}
        return {
            "scores": {
                name: {
                    "mean": self.mean(found),
                    "elements": {e: estimate(one).to_json() for e, one in zip(self.names, found, strict=True)},
                }
                for name, found in values.items()
            },
            "ours above": {name: self.mean(values[ours] - values[name]) for name in baselines},
        }


def print_table(facts: Mapping[str, Any], title: str) -> None:
    for measure in ("Pearson", "Spearman"):
        if measure not in facts:
            continue
        rows = []
        for name, found in facts[measure]["scores"].items():
            each = " ".join(f"{one['value']:.2f}" for one in found["elements"].values())
            rows.append((name, text(found["mean"]), each, text(facts[measure]["ours above"].get(name))))
        table(
            f"{title}: {measure}'s correlation with log2 effect", ("score", "mean", "elements", "ours above it"), rows
        )


def text(value: Mapping[str, float] | None) -> str:
    return "" if value is None else f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"


def shift_facts(found: Scores, scorer: WindowScorer) -> dict[str, Any]:
    """Return what averaging over windows gains."""
    measured = found.measured
    rows = measured.is_snv & (measured.table["position"] % EVERY == 0).to_numpy()
    chosen = [measured.variants[i] for i in np.flatnonzero(rows)]
    draws, values = Draws(measured, rows), {}
    for shifts in SHIFTS:
        score = np.zeros(len(rows))
        parts = []
        for begin in range(0, len(chosen), CHUNK):
            some = chosen[begin : begin + CHUNK]
            before, after = scorer.of_both([p for v in some for p in scorer.windows.pairs(v, shifts)], scorer.log_odds)
            parts.append((after - before).reshape(len(some), shifts, -1).mean(axis=(1, 2)))
        score[rows] = np.concatenate(parts)
        values[shifts] = draws.correlations(score, pearson)
    facts = {str(shifts): draws.mean(one) for shifts, one in values.items()}
    facts |= {f"{shifts} above 1": draws.mean(one - values[1]) for shifts, one in values.items() if shifts > 1}
    table("windows per allele: Pearson, accessibility", ("shifts", "mean"), [(k, text(v)) for k, v in facts.items()])
    return {"variants": int(rows.sum()), **facts}


# --------------------------------------------------------------------------------------------------- GWAS


def gwas_facts(
    data: Path, folder: Path, model: Path, accessibility: Path, scanner: Scanner, keep: Path | None
) -> dict[str, Any]:
    """Return whether scores are larger for fine-mapped variants of high posterior."""
    corpus, facts = Corpus.open(folder), {}
    with Genome(data / "hg19_windows.fa.gz") as genome:
        for trait, cell_types in TRAITS.items():
            variants, posterior, dropped = fine_mapped(data / "gwas" / f"{trait}.tsv", genome)
            makers = {
                "accessibility": lambda cell_types=cell_types: Scorer(
                    Predictor.open(accessibility, "cpu"), genome, corpus, cell_types, 3
                ),
                "zero-shot": lambda cell_types=cell_types: ZeroShotScorer(
                    Pretrained.open(model, folder, "cpu"), genome, cell_types, 1
                ),
            }
            windows = {
                name: cached(keep, f"{trait}-{name}", partial(stage_scores, make, variants))
                for name, make in makers.items()
            }
            hits = motif_hits(genome, scanner, variants)
            bound = saturation.motif_features(hits)
            change = (hits[:, 1].astype(np.float64) - hits[:, 0]) / EVIDENCE_STEPS
            zero_shot = windows["zero-shot"]
            scores = {
                "log-odds of accessibility": np.abs(windows["accessibility"]["difference"]).mean(axis=1),
                "likelihood ratio": np.abs(zero_shot["likelihood_ratio"]),
                "embedding distance": zero_shot["embedding_distance"],
                "matching shift (SRM)": np.abs(zero_shot["difference"]).mean(axis=1),
                "binding of all motifs": np.abs(bound["binding, 4"]),
                "PWM difference, largest": np.abs(change).max(axis=1),
                "nearness to a peak": -distance_to_peaks(data, cell_types, variants),
            }
            locus = np.array([hash_of(variant) for variant in variants])
            weights, high = region_weights(locus), posterior >= HIGH_POSTERIOR
            facts[trait] = {
                "variants": len(variants),
                "dropped": dropped,
                "high": int(high.sum()),
                "loci": len(np.unique(locus)),
                "scores": {
                    name: {
                        "Spearman": estimate(spearman(weights, posterior, score)).to_json(),
                        "AUROC": estimate(auroc(weights, high, score)).to_json(),
                    }
                    for name, score in scores.items()
                },
            }
            rows = [(n, text(f["Spearman"]), text(f["AUROC"])) for n, f in facts[trait]["scores"].items()]
            title = f"{trait}: {len(variants)} variants, {high.sum()} of posterior >= {HIGH_POSTERIOR}"
            table(title, ("size of", "Spearman with posterior", "AUROC"), rows)
    return facts


def fine_mapped(path: Path, genome: Genome) -> tuple[list[Variant], Numbers, int]:
    """Return variants oriented to the genome, their posteriors, and how many have neither allele there."""
    variants, posterior, dropped = [], [], 0
    for row in pd.read_csv(path, sep="\t").itertuples():
        start = row.position_1based - 1
        alleles = sorted((row.allele1, row.allele2), key=len, reverse=True)  # of two that fit, the longer is there
        fits = [a for a in alleles if decode(genome.fetch(row.chrom, start, start + len(a))) == a]
        if not fits:
            dropped += 1
            continue
        other = row.allele2 if fits[0] == row.allele1 else row.allele1
        variants.append(Variant(row.chrom, start, fits[0], other))
        posterior.append(row.posterior)
    return variants, np.array(posterior), dropped


def hash_of(variant: Variant) -> int:
    """Return a number of the locus of a variant."""
    return int(variant.chrom.removeprefix("chr")) * 1_000_000 + variant.position // LOCUS


def stage_scores(make: Callable[[], WindowScorer], variants: list[Variant]) -> dict[str, Numbers]:
    """Return what the stage `variants` writes of them."""
    scorer = make()
    parts = [scorer.scores(variants[begin : begin + CHUNK]) for begin in range(0, len(variants), CHUNK)]
    joined = parts[0].joined(parts)
    return {"difference": joined.difference, **joined.further}


def distance_to_peaks(data: Path, cell_types: tuple[str, ...], variants: list[Variant]) -> Numbers:
    """Return the distance to the nearest peak of cell types, in bp."""
    columns = ["chrom", "start", "end"]
    files = [data / "blood_atac" / "peaks" / f"{name}.narrowPeak" for name in cell_types]
    peaks = pd.concat([pd.read_csv(path, sep="\t", header=None, usecols=[0, 1, 2], names=columns) for path in files])
    found = []
    for variant in variants:
        here = peaks[peaks["chrom"] == variant.chrom]
        apart = np.maximum(here["start"] - variant.position, variant.position - here["end"] + 1)
        found.append(max(int(apart.min()), 0) if len(apart) else np.inf)
    return np.array(found, dtype=np.float64)


if __name__ == "__main__":
    main()

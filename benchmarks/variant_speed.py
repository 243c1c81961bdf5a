"""How fast variants are scored, against a naive loop: each pair of variant and cell type by itself, allele by allele.

    GOMP_SPINCOUNT=0 python benchmarks/variant_speed.py --device cpu > benchmarks/results/variant_speed.json

The weights are random, for what they are changes no time. Variants lie several to a region, as those of a cohort do.
Both ways take turns; speeds are those of the fastest turn of each, since other processes may disturb them.
"""

import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import common
import numpy as np
import torch
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.device import pick_device
from genebert.inputs.genome import Genome
from genebert.methods.base import Examples, Place
from genebert.methods.genebert import FittedGeneBert, shown_of
from genebert.model.config import GeneBertConfig
from genebert.model.genebert import GeneBertForSequenceClassification
from genebert.predictor import Ensemble, Predictor
from genebert.region_matrix import Context
from genebert.schema import Variant, decode
from genebert.settings import Device, load_preset
from genebert.target import Target
from genebert.tokens import sequence_tokens
from genebert.variants.scorer import Scorer

TWO = Target("classes", ("closed", "open"))
CELL_TYPES = 16
PREPARED: list[dict[str, Any]] = [{}, {"region_width": 256}, {"region_width": 256, "archetypes": 0.5}]
"""Corpora to measure on: 512 bp and all motifs of JASPAR's vertebrates, then half the width, then archetypes."""
WINDOWS = 16
"""The parts are measured on so many windows at a time."""


def predictor_of(corpus: Corpus, preset: str, device: torch.device) -> Predictor:
    """Return a predictor of a preset's sizes with random weights."""
    torch.manual_seed(0)
    sizes = load_preset(preset).model.model_dump()
    config = GeneBertConfig(**sizes, motifs=len(corpus.motifs), window_length=corpus.width)
    config.max_tokens = corpus.width - 2 * config.k + 5
    fitted = FittedGeneBert(GeneBertForSequenceClassification(config).to(device).eval(), TWO)
    return Predictor(Ensemble(TWO, [("genebert", fitted)]), corpus.scanner, corpus.manifest, corpus.width, True, False)


def some_variants(corpus: Corpus, genome: Genome, count: int, per_region: int) -> list[Variant]:
    """Return SNVs, several in each of some regions."""
    generator = np.random.default_rng(0)
    found = []
    for row in np.sort(generator.choice(len(corpus.regions), -(-count // per_region), replace=False)):
        chrom, start = corpus.regions["chrom"].iloc[row], int(corpus.regions["start"].iloc[row])
        for place in np.sort(generator.choice(corpus.width, per_region, replace=False)).tolist():
            ref = decode(genome.fetch(chrom, start + place, start + place + 1))
            if ref != "N":
                found.append(Variant(chrom, start + place, ref, "ACGT"["ACGT".index(ref) - 1]))
    return found[:count]


def naive(scorer: Scorer, variant: Variant, cell_type: int) -> float:
    """Return the difference of log-odds of one variant in one cell type, each allele from the start."""
    pair, corpus = scorer.windows.pair(variant), scorer.corpus
    assert corpus is not None
    position = corpus.line_positions([variant.chrom], np.array([pair.start + corpus.width // 2]))
    where = Context(corpus, np.array([cell_type]), position)
    odds = []
    for codes in (pair.reference, pair.alternate):
        examples = Examples(codes[None], scorer.predictor.scanner, context=where, cell_types=len(corpus.cell_types))
        predicted = scorer.predictor.ensemble.predict(examples)[0]
        odds.append(np.log(predicted[1]) - np.log(predicted[0]))
    return float(odds[1] - odds[0])


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def cpu_seconds_of(work: Callable[[], Any]) -> float:
    """Return the seconds that all threads worked, which other processes disturb less; see GOMP_SPINCOUNT above."""
    began = time.process_time()
    work()
    return time.process_time() - began


def parts_of(scorer: Scorer, codes: NDArray[np.uint8], position: NDArray[np.int64]) -> dict[str, Callable[[], Any]]:
    """Return what a window is spent on: of one strand, or in one cell type."""
    model = scorer.predictor.ensemble.members[0][1].model
    assert scorer.corpus is not None
    place = Place(scorer.corpus, position, scorer.predictor.scanner.scan(codes))
    matrix = place.matrix(0, model.config.region_columns, codes.shape[1], shown_of(model.config)).to(model.device)
    tokens, segments = (torch.from_numpy(one).to(model.device) for one in sequence_tokens(codes, model.config.k))
    return {
        "motif scan": lambda: scorer.predictor.scanner.scan(codes),
        "sequence encoder, one strand": torch.inference_mode()(lambda: model.sequence_states(tokens, segments)),
        "region matrices, one cell type": lambda: place.matrix(
            0, model.config.region_columns, codes.shape[1], shown_of(model.config)
        ),
        "region encoder, one cell type": torch.inference_mode()(lambda: model.region_states(matrix)),
    }


def measured(scorer: Scorer, variants: list[Variant], pairs: int, runs: int) -> dict[str, Any]:
    """Return the speeds of both ways, which have to give the same, and what a window is spent on."""
    corpus = scorer.corpus
    assert corpus is not None
    cells = len(corpus.cell_types)
    chosen = [(i % len(variants), i % cells) for i in range(pairs)]
    together = scorer.scores(variants).difference[tuple(np.transpose(chosen))]
    apart = np.array([naive(scorer, variants[i], c) for i, c in chosen])
    assert np.allclose(together, apart, atol=1e-4), "both ways give the same"
    some = [scorer.windows.pair(variant) for variant in variants[:WINDOWS]]
    chroms, centres = [pair.variant.chrom for pair in some], np.array([pair.start + corpus.width // 2 for pair in some])
    parts = parts_of(scorer, np.stack([pair.alternate for pair in some]), corpus.line_positions(chroms, centres))
    cpu: list[float] = []
    ways: dict[str, Callable[[], Any]] = {
        "genebert": lambda: cpu.append(cpu_seconds_of(lambda: scorer.scores(variants))),
        "naive": lambda: [naive(scorer, variants[i], c) for i, c in chosen],
    }
    takers = {name: partial(seconds_of, work) for name, work in (ways | parts).items()}
    best = {name: min(seconds) for name, seconds in common.by_turns(runs, takers).items()}
    per_pair = best["genebert"] / len(variants) / cells
    return {
        "variants": len(variants),
        "variants_per_second": round(1 / per_pair / cells, 3),
        "variants_and_cell_types_per_second": round(1 / per_pair, 2),
        "cpu_milliseconds_per_variant_and_cell_type": round(1e3 * min(cpu) / len(variants) / cells, 2),
        "naive_variants_and_cell_types_per_second": round(pairs / best["naive"], 3),
        "faster_by": round(best["naive"] / pairs / per_pair, 1),
        "largest_difference_between_both": float(np.abs(together - apart).max()),
        "milliseconds_per_window": {name: round(1e3 * best[name] / len(some), 2) for name in parts},
    }


@click.command()
@click.option("--corpus", "given", type=Path, help="folder made by prepare (default: simulated ones)")
@click.option("--genome", type=Path, help="its genome")
@click.option("--preset", default="small", show_default=True)
@click.option("--variants", "count", default=32, show_default=True)
@click.option("--per-region", default=4, show_default=True, help="variants of each region")
@click.option("--pairs", default=4, show_default=True, help="pairs of variant and cell type for the naive loop")
@click.option("--runs", default=3, show_default=True)
@click.option("--device", default="auto", type=click.Choice(["auto", "cpu", "cuda"]), show_default=True)
def main(
    given: Path | None,
    genome: Path | None,
    preset: str,
    count: int,
    per_region: int,
    pairs: int,
    runs: int,
    device: Device,
) -> None:
    """Measure, and print facts as JSON."""
    rows, place = [], pick_device(device)
    for prepared in [{}] if given else PREPARED:
        simulated = {"cell_types": CELL_TYPES}
        with common.corpus_or_simulated(given, simulated, **prepared) as folder, open_genome(genome, folder) as opened:
            corpus = Corpus.open(folder)
            scorer = Scorer(predictor_of(corpus, preset, place), opened, corpus, [])
            sizes = {"width": corpus.width, "motifs": len(corpus.motifs), "cell_types": len(corpus.cell_types)}
            variants = some_variants(corpus, opened, count, per_region)
            rows.append({**sizes, **measured(scorer, variants, pairs, runs)})
    facts = {
        "preset": preset,
        "device": place.type,
        "variants_per_region": per_region,
        "threads": torch.get_num_threads(),
        "rows": rows,
    }
    facts["load_average"] = round(os.getloadavg()[1], 1)
    common.finish(facts)


def open_genome(given: Path | None, corpus: Path) -> Genome:
    """Open the genome of a corpus, which for a simulated one lies beside it."""
    return Genome(given or corpus.parent / "inputs" / "genome.fa")


if __name__ == "__main__":
    main()

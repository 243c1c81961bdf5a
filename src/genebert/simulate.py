"""Simulate: a seeded genome with regulation, a cohort, and the truth about both, in ordinary files.

The generative model, whose constants are the fields of `GenomeModel`, `RegulationModel` and `CohortModel`
(and are written to `truth/model.json`). Files follow their formats; `truth/` is 0-based, half-open. Scores
are in bits (log2 odds against equal base frequencies), effects in log-odds (nats).

Genome
    Stretches of 500 bp, each an order-2 Markov chain on a random strand, with few CpGs and TpAs and with A and
    T runs. Stretches differ in GC content (which follows isochores), in skew (A against T, C against G), CpG
    depletion and runs; the constants are fitted by eye to what neighbouring 128 bp of hg19 have in common (see
    `benchmarks/composition.py`). Diverged copies of six repeat families, a sixth of the genome, are soft-masked
    (lower case). Ns at the ends and in the middle of each chromosome. Every element has a stretch of the
    genome for itself, at least 700 bp.
TFs and cell types
    24 TFs with JASPAR 2026 PWMs, plus TBP, which opens nothing. Cell type c has activity A[c, t] in 0..1
    for TF t: five TFs are ubiquitous, the others belong to lineages; cell types after the sixth each mix
    two lineages.
Elements
    An element is a centre +- 100 bp, its *core*. Enhancers have a programme and hold 2 to 4 motifs of it
    within +- 70 bp, drawn from p^1.5 of the PWM, on either strand; 60 % of them hold the programme's
    cooperating pair of TFs, at a fixed orientation and a gap from a short range; 15 % of the other motifs
    are of any TF. Decoys hold motifs of which one informative base is spoilt. Promoters hold two of SP1,
    NRF1, YY1 and NFYA upstream of the TSS.
Binding
    A site with score s is bound with probability b(s) = 0.95 clip((s - low) / (best - low), 0, 1), where
    best is the consensus' score and low = max(8.5, 0.6 best). A TF occupies an element with X = 1 - product
    over all sites of the core, planted or not, of (1 - b); a pair with Y = 1 - product over its
    configurations of (1 - b1 b2).
Accessibility
    L[e, c] = -3.7 + 4 sum_t A[c, t] X[e, t] + 4 sum_pairs A[c, t1] A[c, t2] Y[e, pair] + context[e], with
    context ~ N(0, 0.7^2) shared by the cell types. A peak is called where L + noise > 0, the noise standard
    logistic, so that sigmoid(L) is the probability of a peak; its signal is softplus(L + noise). Peaks are
    200 to 600 bp wide with the summit within 20 bp of the centre. A few peaks per cell type lie on
    background, and each blacklisted interval holds a strong one in every cell type.
ChIP-seq
    log-odds of binding = -5 + 7 A[c, t] X[e, t] + 3 sum over pairs with t of A A Y + 2 [e has a peak in c].
Genes
    Each has a promoter with the TSS at its centre and an initiator there; 40 % have a TATA box at -31, the
    others a downstream promoter element and a CpG island. Exons end in a donor (GTRAGT) and begin after an
    acceptor (polypyrimidine tract, AG); their introns hold the elements between.
Cohort
    Common variants (the default): 40 % of them are aimed at planted motifs (break an intact one, mend a spoilt
    one), 10 % are indels. A variant's effect, delta[c] = L(alternate) - L(reference), scans both sequences of the
    core anew. Frequencies are log-uniform, haplotypes are correlated within blocks of 50 kb. The liability is the
    sum over up to 20 causal variants of delta in one cell type times the dosage (half of the variance), sex (5 %)
    and noise; the half of the individuals with the greatest are cases. A quantitative trait shares the causal
    variants (40 % of its variance).
    Rare variants: SNVs in the cores of some elements that have a peak in any cell type, half of them aimed at planted
    motifs. A variant has x copies with a probability proportional to 1/x, up to 1 % of the haplotypes, on haplotypes
    drawn at random (no linkage), of one of four populations if it is private. Siblings get one of each parent's two
    haplotypes, per chromosome. The liability is the sum over causal regions of a weight, of either sign, times the
    change of the region's log-odds in one cell type, which the haplotype as a whole makes (effects converge);
    or the sum over one variant in each of them of a normal effect times the dosage (effects are scattered).
    Sex (5 %), age (3 %), the first ancestry component (2 %) and noise are the rest.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import yaml

from genebert.inputs.motifs import JASPAR_RELEASE
from genebert.schema import N
from genebert.settings import SimulateSettings
from genebert.simulation import genome, regulation
from genebert.simulation.cohort_files import check_cohort, constants_of, disease_cell_type, write_cohort
from genebert.simulation.genome import BASES, Floats, Genome, Ints, Motif
from genebert.simulation.regulation import Regulome
from genebert.simulation.tables import locate, write_table
from genebert.simulation.world import World, generators, make_world
from genebert.stage import open_stage, write_json

MOTIFS = 128  # PWMs in motifs.meme: those of the TFs, and decoys
REGION_WIDTH = 256  # bp, for the demo
LINE = 60  # bases per line of the FASTA
SIGNAL_SCALE = 10.0  # signalValue of a peak per unit of softplus
P_SCALE = 1.5  # -log10 p of a peak per unit of signalValue, over LEAST_P
LEAST_P = 2.0
BLACKLIST_SIGNAL = 300.0  # signalValue of a peak in a blacklisted interval
PEAK_COLUMNS = ("chrom", "start", "end", "name", "score", "strand", "signal", "p", "q", "summit")


def simulate(settings: SimulateSettings) -> Path:
    """Make a folder of simulated inputs, with the truth beside them.

    Args:
        settings: sizes and seed; equal sizes and seed give equal bytes.

    Returns:
        `settings.out`: genome.fa, peaks/CELL_TYPE.narrowPeak, chip_seq/TF/CELL_TYPE.narrowPeak, genes.gtf,
        tss.bed, motifs.meme, blacklist.bed, cohort.vcf.gz, phenotypes.tsv, truth/, and inputs.yaml, which
        names them.

    Raises:
        UserError: elements, genes or variants do not fit into the genome, or the folder is in use.
    """
    with open_stage("simulate", settings, {}) as run:
        if run.finished:
            return settings.out
        sizes, rngs = genome.GenomeModel(), generators(settings)
        genome.check_room(settings, sizes)
        check_cohort(settings)
        world = make_world(rngs, settings, sizes)
        (run.folder / "truth").mkdir()
        metrics = write_world(run.folder, rngs, world)
        metrics |= write_cohort(run.folder, rngs, world, settings)
        write_settings(run.folder, world, settings, sizes)
        return run.finish(metrics)


def write_world(folder: Path, rngs: Mapping[str, np.random.Generator], world: World) -> dict[str, object]:
    """Write everything but the cohort, and return what there is of it."""
    write_fasta(folder / "genome.fa", world.genome)
    write_motifs(folder / "motifs.meme", rngs["decoys"], world.regulome, world.library)
    write_table(folder / "blacklist.bed", locate(world.genome, *world.layout.blacklist.T), header=False)
    write_genes(folder, world)
    peaks = write_peaks(folder, rngs["peaks"], world)
    chip = write_chip(folder, rngs["chip_seq"], world)
    write_truth(folder / "truth", world)
    return {
        "elements": len(world.elements),
        "kinds": world.elements.kind.value_counts().sort_index().to_dict(),
        "peaks": peaks,
        "chip_seq_peaks": chip,
        "genes": len(world.genes),
        "tata_promoters": int(world.genes.tata.sum()),
        "motif_instances": len(world.instances),
    }


def write_fasta(path: Path, where: Genome) -> None:
    """Write the genome, repeats in lower case, and its index beside it."""
    letters = np.frombuffer(BASES.encode(), np.uint8)[where.codes]
    for start, end in where.masked:
        letters[start:end] |= 0x20  # lower case in ASCII
    letters[where.codes == N] = ord("N")
    with path.open("wb") as handle:
        for name, row in zip(where.chromosomes, letters.reshape(-1, where.length), strict=True):
            whole = where.length // LINE * LINE
            lines = np.full((whole // LINE, LINE + 1), ord("\n"), np.uint8)
            lines[:, :LINE] = row[:whole].reshape(-1, LINE)
            rest = row[whole:].tobytes() + b"\n" if whole < where.length else b""
            handle.write(f">{name}\n".encode() + lines.tobytes() + rest)
    pysam.faidx(str(path))


def write_motifs(path: Path, rng: np.random.Generator, regulome: Regulome, library: list[Motif]) -> None:
    """Write the TFs' PWMs and decoys from JASPAR in MEME format, sorted by id."""
    used = {tf.matrix_id for tf in regulome.tfs}
    others = [motif for motif in library if motif.matrix_id not in used]
    decoys = [others[i] for i in rng.permutation(len(others))[: MOTIFS - len(used)]]
    lines = [
        "MEME version 4",
        "",
        "ALPHABET= ACGT",
        "",
        "strands: + -",
        "",
        "Background letter frequencies",
        "A 0.25 C 0.25 G 0.25 T 0.25",
        "",
    ]
    for motif in sorted([*regulome.tfs, *decoys], key=lambda motif: motif.matrix_id):
        lines += [
            f"MOTIF {motif.matrix_id} {motif.name}",
            f"letter-probability matrix: alength= 4 w= {motif.length} nsites= 1000 E= 0",
        ]
        lines += [" " + " ".join(f"{value:.6f}" for value in row) for row in _rounded(motif.probabilities)] + [""]
    path.write_text("\n".join(lines))


def _rounded(probabilities: Floats) -> Floats:
    """Round to six decimals such that rows still sum to 1: the largest value takes the difference."""
    rounded = np.round(probabilities, 6)
    rounded[np.arange(len(rounded)), rounded.argmax(1)] += 1 - rounded.sum(1)
    return np.asarray(rounded)


def write_genes(folder: Path, world: World) -> None:
    """Write genes.gtf (1-based, inclusive), tss.bed and truth/genes.tsv."""
    tss = locate(world.genome, world.genes.tss.to_numpy(), world.genes.tss.to_numpy() + 1)
    tss = tss.assign(name=world.genes.name, score=0, strand=_signs(world.genes.strand))
    order = tss.index.to_numpy()[np.argsort(world.genes.tss.to_numpy(), kind="stable")]
    write_table(folder / "tss.bed", tss.loc[order], header=False)
    lines = [line for i in order for line in _gtf_lines(world.genome, world.genes.loc[i])]
    (folder / "genes.gtf").write_text("".join(f"{line}\n" for line in lines))
    truth = pd.DataFrame(
        {
            "gene": world.genes.name,
            "element": world.elements.element[world.genes.element].to_numpy(),
            "chrom": tss.chrom,
            "tss": tss.start,
            "strand": tss.strand,
            "tata": world.genes.tata.astype(int),
            "exons": world.genes.exons.str.len(),
        }
    )
    write_table(folder / "truth/genes.tsv", truth.loc[order])


def _gtf_lines(where: Genome, gene: pd.Series) -> Iterable[str]:
    starts, ends = np.array(gene.exons).T
    spans = locate(where, np.append(starts, starts.min()), np.append(ends, ends.max()))
    sign, name = "+" if gene.strand > 0 else "-", gene["name"]
    identity = f'gene_id "{name}"; gene_name "{name}"; gene_biotype "protein_coding";'
    transcript = f'{identity} transcript_id "{name}.1";'
    rows = [(len(starts), "gene", identity), (len(starts), "transcript", transcript)]
    rows += [(i, "exon", f'{transcript} exon_number "{i + 1}";') for i in range(len(starts))]
    for i, feature, attributes in rows:
        span = spans.loc[i]
        yield f"{span.chrom}\tgenebert\t{feature}\t{span.start + 1}\t{span.end}\t.\t{sign}\t.\t{attributes}"


def _signs(strands: "pd.Series[int]") -> list[str]:
    return ["+" if strand > 0 else "-" for strand in strands]


def write_peaks(folder: Path, rng: np.random.Generator, world: World) -> dict[str, int]:
    """Write the peaks of each cell type, and truth/spurious.tsv; return the numbers of peaks."""
    (folder / "peaks").mkdir()
    counts, spurious = {}, []
    border = world.layout.elements.left.to_numpy()
    for column, name in enumerate(world.regulome.cell_types):
        called = np.flatnonzero(world.access.called[:, column])
        signal = SIGNAL_SCALE * world.access.signal[called, column]
        n = max(1, round(world.regulome.model.spurious_fraction * len(called)))
        chance = rng.choice(border[1:], n, replace=False), SIGNAL_SCALE * rng.exponential(1.0, n) + 1
        listed = (
            world.layout.blacklist.mean(1).astype(np.int64),
            np.full(len(world.layout.blacklist), BLACKLIST_SIGNAL),
        )
        centres = np.concatenate([world.elements.centre.to_numpy()[called], chance[0], listed[0]])
        peaks = draw_peaks(rng, world, centres, np.concatenate([signal, chance[1], listed[1]]))
        spurious.append(
            peaks.iloc[len(called) :].assign(cell_type=name, blacklisted=np.repeat([0, 1], [n, len(listed[0])]))
        )
        counts[name] = write_narrowpeak(folder / f"peaks/{name}.narrowPeak", peaks, name)
    columns = ["chrom", "start", "end", "cell_type", "blacklisted"]
    write_table(folder / "truth/spurious.tsv", pd.concat(spurious)[columns])
    return counts


def draw_peaks(rng: np.random.Generator, world: World, centres: Ints, signal: Floats) -> pd.DataFrame:
    """Draw width and summit of peaks around centres; p-values follow the signal."""
    model = world.regulome.model
    jitter = rng.normal(0, model.summit_jitter, len(centres))
    summit = centres + np.clip(np.rint(jitter), -model.summit_limit, model.summit_limit).astype(np.int64)
    low, high = model.peak_width
    width = np.rint(low + (high - low) * rng.beta(2, 2, len(centres))).astype(np.int64)
    before = np.rint(width * rng.uniform(0.45, 0.55, len(centres))).astype(np.int64)
    p = LEAST_P + P_SCALE * signal
    peaks = locate(world.genome, summit - before, summit - before + width)
    return peaks.assign(
        position=summit - before, strand=".", signal=signal, p=p, q=_benjamini_hochberg(p), summit=before
    )


def _benjamini_hochberg(p: Floats) -> Floats:
    """Return -log10 q from -log10 p."""
    order = np.argsort(p, kind="stable")  # least significant first
    adjusted = p[order] - np.log10(len(p) / np.arange(len(p), 0, -1))
    q = np.empty_like(p)
    q[order] = np.maximum(np.maximum.accumulate(adjusted), 0)
    return q


def write_narrowpeak(path: Path, peaks: pd.DataFrame, name: str) -> int:
    """Write peaks by coordinate, with names `NAME_1` and so on, and return their number."""
    peaks = peaks.sort_values(["position", "signal"], ignore_index=True)
    peaks["name"] = [f"{name}_{i + 1}" for i in range(len(peaks))]
    peaks["score"] = np.minimum(1000, np.rint(SIGNAL_SCALE * peaks.signal)).astype(int)
    write_table(path, peaks[list(PEAK_COLUMNS)], header=False)
    return len(peaks)


def write_chip(folder: Path, rng: np.random.Generator, world: World) -> dict[str, dict[str, int]]:
    """Write ChIP-seq peaks of some TFs where they are active, and truth/binding.tsv; return their numbers."""
    counts: dict[str, dict[str, int]] = {}
    truth = {"element": world.elements.element.to_numpy()}
    for tf in regulation.CHIP_TFS:
        active = world.regulome.activity[:, world.regulome.index[tf]] >= world.regulome.model.binding_active
        for column in np.flatnonzero(active):
            name = world.regulome.cell_types[column]
            log_odds, observed = regulation.bind(rng, world.regulome, world.access, tf, int(column))
            bound = np.flatnonzero(observed > 0)
            peaks = draw_peaks(rng, world, world.elements.centre.to_numpy()[bound], SIGNAL_SCALE * observed[bound])
            path = folder / "chip_seq" / tf / f"{name}.narrowPeak"
            path.parent.mkdir(parents=True, exist_ok=True)
            counts.setdefault(tf, {})[name] = write_narrowpeak(path, peaks, f"{tf}_{name}")
            truth[f"probability_{tf}_{name}"] = 1 / (1 + np.exp(-log_odds))
            truth[f"bound_{tf}_{name}"] = (observed > 0).astype(int)
    write_table(folder / "truth/binding.tsv", pd.DataFrame(truth))
    return counts


def write_truth(folder: Path, world: World) -> None:
    """Write elements, planted motifs, accessibility and activity."""
    names = np.array([tf.name for tf in world.regulome.tfs])
    ids = np.array([tf.matrix_id for tf in world.regulome.tfs])
    owner, tf = world.instances.element.to_numpy(), world.instances.tf.to_numpy()
    planted = pd.Series(names[tf]).groupby(owner).agg(",".join).reindex(range(len(world.elements)), fill_value=".")
    elements = locate(world.genome, world.elements.start.to_numpy(), world.elements.end.to_numpy())
    elements.insert(0, "element", world.elements.element)
    write_table(
        folder / "elements.tsv",
        elements.assign(kind=world.elements.kind, programme=world.elements.programme, motifs=planted),
    )
    places = locate(world.genome, world.instances.start.to_numpy(), world.instances.end.to_numpy())
    instances = places.assign(
        strand=_signs(world.instances.strand),
        score=world.instances.score,
        bound=world.instances.bound,
        weak=world.instances.weak.astype(int),
    )
    instances.insert(0, "element", world.elements.element.to_numpy()[owner])
    instances.insert(1, "tf", names[tf])
    instances.insert(2, "motif", ids[tf])
    write_table(folder / "instances.tsv", instances)
    kinds = world.regulome.cell_types
    access = world.elements[["element"]].join(
        [
            pd.DataFrame(world.access.probability, columns=[f"probability_{kind}" for kind in kinds]),
            pd.DataFrame(world.access.called.astype(int), columns=[f"called_{kind}" for kind in kinds]),
        ]
    )
    write_table(folder / "accessibility.tsv", access)
    activity = pd.DataFrame(world.regulome.activity, columns=names)
    activity.insert(0, "cell_type", kinds)
    write_table(folder / "activity.tsv", activity)


def write_settings(folder: Path, world: World, settings: SimulateSettings, sizes: genome.GenomeModel) -> None:
    """Write truth/model.json, all constants by module, and inputs.yaml, the files by role."""
    constants: dict[str, object] = {type(model).__name__: asdict(model) for model in (sizes, world.regulome.model)}
    constants |= constants_of(settings) | {
        "cell_types": world.regulome.cell_types,
        "disease_cell_type": disease_cell_type(world, settings),
        "jaspar": JASPAR_RELEASE,
        "tfs": {
            tf.name: {"motif": tf.matrix_id, "least_score": float(low), "best_score": tf.best}
            for tf, low in zip(world.regulome.tfs, world.regulome.thresholds(), strict=True)
        },
        "programmes": regulation.PROGRAMMES,
        "programmes_used": world.regulome.programmes,
        "pairs": {name: pair._asdict() for name, pair in world.regulome.pairs.items()},
        "settings": settings.identity(),
    }
    write_json(folder / "truth/model.json", constants)
    inputs = {
        "title": "GeneBERT on simulated data",
        "genome": "genome.fa",
        "peaks": "peaks",
        "motifs": "motifs.meme",
        "blacklist": "blacklist.bed",
        "tss": "tss.bed",
        "vcf": "cohort.vcf.gz",
        "phenotypes": "phenotypes.tsv",
        "phenotype": "disease",
        "covariates": ["sex"],
        "region_width": REGION_WIDTH,
        "valid_chromosomes": world.genome.chromosomes[-3:-2],
        "test_chromosomes": world.genome.chromosomes[-2:],
        "truth": "truth",
    }
    (folder / "inputs.yaml").write_text(yaml.safe_dump(inputs, sort_keys=False))

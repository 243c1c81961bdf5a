import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
import yaml
from Bio import motifs as bio_motifs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from genebert.errors import UserError
from genebert.settings import SimulateSettings
from genebert.simulate import simulate
from genebert.simulation.genome import CODE_OF, Motif, load_motifs

SMALL = {"genome_mb": 2, "regions": 800, "genes": 80, "variants": 400, "individuals": 20}
PEAK_NAMES = ["chrom", "start", "end", "name", "score", "strand", "signal", "p", "q", "summit"]
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


def make(folder: Path, **changes: float) -> Path:
    return simulate(SimulateSettings(out=folder, **(SMALL | changes)))


@pytest.fixture(scope="module")
def pwms() -> dict[str, Motif]:
    """JASPAR by id."""
    return {motif.matrix_id: motif for motif in load_motifs()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("simulate") / "a")


@pytest.fixture(scope="module")
def genome(world: Path) -> dict[str, str]:
    with pysam.FastaFile(str(world / "genome.fa")) as fasta:
        return {name: fasta.fetch(name) for name in fasta.references}


def table(path: Path, **options: object) -> pd.DataFrame:
    return pd.read_csv(path, sep="\t", **options)


def truth(world: Path, name: str) -> pd.DataFrame:
    return table(world / "truth" / f"{name}.tsv")


def stranded(genome: dict[str, str], chrom: str, start: int, end: int, strand: str) -> str:
    sequence = genome[chrom][start:end].upper()
    return sequence if strand == "+" else sequence.translate(COMPLEMENT)[::-1]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name != "manifest.json"
    }


def test_same_seed_same_bytes(world: Path, tmp_path: Path) -> None:
    assert files(make(tmp_path / "elsewhere")) == files(world)


def test_the_default_cohort_stays_as_it_is(world: Path) -> None:
    """Measurements in docs/results.md are of it. (Text, since compression may differ between versions of zlib.)"""
    found = {
        "cohort.vcf.gz": gzip.decompress((world / "cohort.vcf.gz").read_bytes()),
        "phenotypes.tsv": (world / "phenotypes.tsv").read_bytes(),
        "truth/variants.tsv": (world / "truth/variants.tsv").read_bytes(),
    }
    assert {name: hashlib.sha256(content).hexdigest()[:16] for name, content in found.items()} == {
        "cohort.vcf.gz": "710df6bc86d0d376",
        "phenotypes.tsv": "b714c2ffd6dd6c53",
        "truth/variants.tsv": "22679f271910aa82",
    }


def test_other_seed_differs(world: Path, tmp_path: Path) -> None:
    first, second = files(world), files(make(tmp_path / "other", seed=1))
    assert first.keys() == second.keys()
    same = {name for name in first if first[name] == second[name]}
    assert same <= {"genome.fa.fai", "inputs.yaml", "blacklist.bed", "truth/activity.tsv"}


def test_second_run_does_nothing(world: Path) -> None:
    before = (world / "manifest.json").stat().st_mtime_ns
    assert make(world) == world
    assert (world / "manifest.json").stat().st_mtime_ns == before


def test_metrics_and_inputs_agree_with_the_files(world: Path) -> None:
    metrics = json.loads((world / "manifest.json").read_text())["metrics"]
    inputs = yaml.safe_load((world / "inputs.yaml").read_text())
    names = ("genome", "peaks", "motifs", "blacklist", "tss", "vcf", "truth")
    assert all((world / inputs[name]).exists() for name in names)
    assert (inputs["valid_chromosomes"], inputs["test_chromosomes"]) == (["chr6"], ["chr7", "chr8"])
    assert metrics["elements"] == len(truth(world, "elements")) == SMALL["regions"]
    assert metrics["genes"] == len(table(world / "tss.bed", header=None)) == SMALL["genes"]
    assert metrics["cases"] == table(world / "phenotypes.tsv").disease.sum() == SMALL["individuals"] // 2
    assert metrics["variants"] == SMALL["variants"]
    assert metrics["peaks"] == {p.stem: len(p.read_text().splitlines()) for p in (world / "peaks").iterdir()}


def test_fasta_has_n_and_lower_case_and_even_chromosomes(genome: dict[str, str]) -> None:
    assert {len(sequence) for sequence in genome.values()} == {250_000}
    for sequence in genome.values():
        assert set(sequence) <= set("ACGTNacgtn")
        assert sequence[0] == sequence[-1] == sequence[125_000] == "N"
    assert any(set(sequence) & set("acgt") for sequence in genome.values())


def test_neighbours_share_composition_as_in_the_human_genome_and_strands_are_alike(genome: dict[str, str]) -> None:
    """Correlations of neighbouring 128 bp within 0.15 of those of hg19 (docs/results.md); Chargaff's second rule."""
    codes = np.concatenate(
        [CODE_OF[np.frombuffer(sequence.upper().encode(), np.uint8)] for sequence in genome.values()]
    )
    rows = codes[: len(codes) // 256 * 256].reshape(-1, 2, 128)
    a, c, g, t = ((rows[(rows < 4).all(axis=(1, 2))] == base).sum(axis=2).T for base in range(4))
    shared = {"gc": (c + g) / 128, "at": (a - t) / (a + t + 1), "cg": (g - c) / (g + c + 1)}
    for name, human in {"gc": 0.66, "at": 0.47, "cg": 0.30}.items():
        assert np.corrcoef(*shared[name])[0, 1] == pytest.approx(human, abs=0.15)
    assert abs(shared["at"].mean()) < 0.02 and abs(shared["cg"].mean()) < 0.02
    lower = sum(letter in "acgt" for sequence in genome.values() for letter in sequence)
    assert 0.13 < lower / len(codes) < 0.2


def test_elements_are_apart_and_spread_over_chromosomes(world: Path) -> None:
    elements = truth(world, "elements")
    counts = elements.chrom.value_counts()
    assert counts.max() - counts.min() <= 2
    for _, group in elements.groupby("chrom"):
        assert (group.start.to_numpy()[1:] >= group.end.to_numpy()[:-1] + 400).all()


def test_planted_motifs_are_where_the_truth_says(world: Path, genome: dict[str, str], pwms: dict[str, Motif]) -> None:
    """Score each site with Biopython, which shares no code with the simulation."""
    counts = {name: dict(zip("ACGT", m.probabilities.T, strict=True)) for name, m in pwms.items()}
    logs = {
        name: bio_motifs.Motif(counts=count).counts.normalize(pseudocounts=0.0025).log_odds()
        for name, count in counts.items()
    }
    instances = truth(world, "instances")
    for row in instances.sample(300, random_state=0).itertuples():
        site = stranded(genome, row.chrom, row.start, row.end, row.strand)
        expected = sum(logs[row.motif][base][i] for i, base in enumerate(site))
        assert row.score == pytest.approx(expected, abs=0.01 * len(site) + 0.1)
    assert (instances.bound[instances.weak == 0] > 0.2).mean() > 0.9
    assert (instances.bound[instances.weak == 1] == 0).mean() > 0.7


def test_motif_file(world: Path) -> None:
    with (world / "motifs.meme").open() as handle:
        found = bio_motifs.parse(handle, "minimal")
    text = (world / "motifs.meme").read_text().splitlines()
    lines = [line.split() for line in text if line.startswith("MOTIF ")]
    assert len(found) == len(lines) == 128
    assert [line[1] for line in lines] == sorted(line[1] for line in lines)
    assert ["MOTIF", "MA0139.2", "CTCF"] in lines
    assert set(truth(world, "instances").motif) <= {line[1] for line in lines}
    rows = [row.split() for row in text if row.startswith(" ")]
    assert np.allclose(np.array(rows, float).sum(1), 1, atol=1e-9)


@pytest.mark.parametrize("folder", ["peaks", "chip_seq"])
def test_narrowpeaks_are_proper(world: Path, genome: dict[str, str], folder: str) -> None:
    paths = sorted((world / folder).rglob("*.narrowPeak"))
    assert len(paths) >= 6
    for path in paths:
        peaks = table(path, header=None, names=PEAK_NAMES)
        assert (peaks.start >= 0).all() and (peaks.end <= peaks.chrom.map(lambda c: len(genome[c]))).all()
        assert (peaks.end - peaks.start).between(200, 600).all()
        assert ((peaks.summit >= 0) & (peaks.start + peaks.summit < peaks.end)).all()
        assert peaks.score.between(0, 1000).all() and (peaks.q <= peaks.p).all() and (peaks.signal > 0).all()
        for _, group in peaks.groupby("chrom"):
            assert group.start.is_monotonic_increasing
        assert list(dict.fromkeys(peaks.chrom)) == sorted(set(peaks.chrom))


def test_summits_are_near_element_centres(world: Path) -> None:
    elements = truth(world, "elements")
    called = truth(world, "accessibility").called_Mono.to_numpy() == 1
    peaks = table(world / "peaks/Mono.narrowPeak", header=None, names=PEAK_NAMES)
    summits = set(zip(peaks.chrom, peaks.start + peaks.summit, strict=True))
    for row in elements[called].itertuples():
        assert any((row.chrom, row.start + 100 + shift) in summits for shift in range(-20, 21))


def test_blacklist_covers_strong_peaks(world: Path) -> None:
    blacklist = table(world / "blacklist.bed", header=None, names=["chrom", "start", "end"])
    peaks = table(world / "peaks/HSC.narrowPeak", header=None, names=PEAK_NAMES)
    for row in blacklist.itertuples():
        inside = peaks[(peaks.chrom == row.chrom) & (peaks.start >= row.start) & (peaks.end <= row.end)]
        assert inside.signal.max() == peaks.signal.max()


def read_gtf(world: Path) -> pd.DataFrame:
    names = ["chrom", "source", "feature", "start", "end", "score", "strand", "frame", "attributes"]
    gtf = table(world / "genes.gtf", header=None, names=names)
    gtf["gene"] = gtf.attributes.str.extract('gene_id "([^"]+)"')
    gtf["number"] = gtf.attributes.str.extract('exon_number "([^"]+)"')[0].astype(float)
    return gtf


def test_introns_begin_with_gt_and_end_with_ag(world: Path, genome: dict[str, str]) -> None:
    exons = read_gtf(world).query("feature == 'exon'")
    strands, introns = set(), 0
    for _, group in exons.groupby("gene"):
        ordered = group.sort_values("start")
        for left, right in zip(ordered.end[:-1], ordered.start[1:], strict=True):
            chrom, strand = group.chrom.iloc[0], group.strand.iloc[0]
            intron = stranded(genome, chrom, left, right - 1, strand)
            assert intron.startswith("GT") and intron.endswith("AG")
            pyrimidines = sum(base in "CT" for base in intron[-16:-4])
            assert pyrimidines >= 6
            strands.add(strand)
            introns += 1
        numbers = ordered.number if strand == "+" else -ordered.number
        assert numbers.is_monotonic_increasing
    assert strands == {"+", "-"} and introns >= SMALL["genes"]


def test_tss_starts_the_gene_and_tata_boxes_are_upstream(world: Path, genome: dict[str, str]) -> None:
    tss = table(world / "tss.bed", header=None, names=["chrom", "start", "end", "name", "score", "strand"])
    genes = read_gtf(world).query("feature == 'gene'").set_index("gene").loc[tss.name]
    first = np.where(genes.strand == "+", genes.start - 1, genes.end - 1)
    assert (first == tss.start).all() and (tss.end == tss.start + 1).all()
    assert (genes.strand.to_numpy() == tss.strand).all()
    facts = truth(world, "genes").set_index("gene").loc[tss.name]
    assert facts.tata.mean() == pytest.approx(0.4)
    found = []
    for row in tss.itertuples():
        up = (row.start - 31, row.start - 24) if row.strand == "+" else (row.start + 25, row.start + 32)
        found.append(stranded(genome, row.chrom, *up, row.strand)[:4] == "TATA")
        assert stranded(genome, row.chrom, row.start, row.start + 1, row.strand) == "A"
    assert np.mean(np.array(found)[facts.tata == 1]) > 0.6  # a TATA box drawn from its PWM is not always TATA
    assert np.mean(np.array(found)[facts.tata == 0]) < 0.1


def test_accessibility_follows_active_tfs(world: Path) -> None:
    access, activity = truth(world, "accessibility"), truth(world, "activity").set_index("cell_type")
    instances = truth(world, "instances")
    rates = access.filter(like="called_").mean()
    assert rates.between(0.25, 0.45).all()
    for tf, own in {"GATA1": "Ery", "TBX21": "NK", "PAX5": "B", "CEBPA": "Mono"}.items():
        holders = instances.element[(instances.tf == tf) & (instances.bound > 0.5)]
        rows = access[access.element.isin(holders)]
        silent = [f"called_{c}" for c in activity.index[activity[tf] == 0]]
        assert rows[f"called_{own}"].mean() > 0.7
        assert rows[f"called_{own}"].mean() > rows[silent].to_numpy().mean() + 0.3


def test_calls_have_the_stated_probabilities(world: Path) -> None:
    access = truth(world, "accessibility")
    p = access.filter(like="probability_").to_numpy().ravel()
    y = access.filter(like="called_").to_numpy().ravel()
    for low in np.arange(0, 1, 0.25):
        chosen = (p >= low) & (p < low + 0.25)
        assert y[chosen].mean() == pytest.approx(p[chosen].mean(), abs=0.08)


def test_motifs_predict_accessibility_and_composition_does_not(world: Path, genome: dict[str, str]) -> None:
    """The task is to be learnable from motifs, not trivial, and not solvable by the GC content."""
    elements, access = truth(world, "elements"), truth(world, "accessibility")
    instances = truth(world, "instances")
    held_out = elements.chrom.isin(["chr6", "chr7", "chr8"]).to_numpy()
    sequences = [genome[row.chrom][row.start : row.end].upper() for row in elements.itertuples()]
    gc = np.array([[(s.count("G") + s.count("C")) / len(s)] for s in sequences])
    best = instances.pivot_table(index="element", columns="tf", values="bound", aggfunc="max")
    best = best.reindex(elements.element).fillna(0).to_numpy()

    def auroc(features: np.ndarray, called: np.ndarray) -> float:
        fit = LogisticRegression(C=10, max_iter=1000).fit(features[~held_out], called[~held_out])
        return float(roc_auc_score(called[held_out], fit.decision_function(features[held_out])))

    by_motif = [auroc(best, access[f"called_{c}"].to_numpy()) for c in ("HSC", "Ery", "B", "NK")]
    by_gc = [auroc(gc, access[f"called_{c}"].to_numpy()) for c in ("HSC", "Ery", "B", "NK")]
    assert 0.75 < np.mean(by_motif) < 0.97
    assert np.mean(by_gc) < 0.75


def test_composition_does_not_tell_elements_from_background(world: Path, genome: dict[str, str]) -> None:
    elements = truth(world, "elements").query("kind == 'enhancer'")
    pairs = [
        (genome[r.chrom][r.start : r.end].upper(), genome[r.chrom][r.start - 250 : r.start - 50].upper())
        for r in elements.itertuples()
        if r.start > 800
    ]
    sequences = [s for pair in pairs for s in pair]
    features = np.array([[s.count(base) / len(s) for base in "ACGT"] for s in sequences])
    labels = np.tile([1, 0], len(pairs))
    half = len(labels) // 2
    fit = LogisticRegression(C=100).fit(features[:half], labels[:half])
    assert roc_auc_score(labels[half:], fit.decision_function(features[half:])) < 0.75


def test_binding_needs_the_motif_and_the_cell_type(world: Path) -> None:
    binding, instances = truth(world, "binding").set_index("element"), truth(world, "instances")
    holders = set(instances.element[(instances.tf == "GATA1") & (instances.bound > 0.5)])
    with_motif = binding.index.isin(holders)
    assert binding.bound_GATA1_Ery[with_motif].mean() > 0.6
    assert binding.bound_GATA1_Ery[~with_motif].mean() < 0.15
    assert binding.bound_GATA1_HSC[with_motif].mean() < binding.bound_GATA1_Ery[with_motif].mean() - 0.2


def test_vcf_agrees_with_the_genome_and_the_truth(world: Path, genome: dict[str, str]) -> None:
    variants = truth(world, "variants").set_index("id")
    with pysam.VariantFile(str(world / "cohort.vcf.gz")) as vcf:
        records = list(vcf)
        assert len(list(vcf.fetch("chr8"))) == (variants.chrom == "chr8").sum()
        assert list(vcf.header.contigs) == list(genome)
        assert len(vcf.header.samples) == SMALL["individuals"]
    assert len(records) == SMALL["variants"]
    for record in records:
        row = variants.loc[record.id]
        ref, alt = record.ref, record.alts[0]
        assert (record.chrom, record.start, ref, alt) == (row.chrom, row.position, row.ref, row.alt)
        assert genome[record.chrom][record.start : record.stop].upper() == ref != alt
        assert all(call.phased for call in record.samples.values())
        alleles = [allele for call in record.samples.values() for allele in call["GT"]]
        assert 0 < sum(alleles) == record.info["AC"][0] < len(alleles)
        if len(ref) != len(alt):  # anchored on the left, and cannot be shifted further left
            assert ref[0] == alt[0] and ref[-1] != alt[-1] and 1 in (len(ref), len(alt))
    indels = variants.ref.str.len() != variants.alt.str.len()
    assert 0.05 < indels.mean() < 0.15


def test_variant_truth(world: Path) -> None:
    variants = truth(world, "variants")
    activity = truth(world, "activity").set_index("cell_type")
    deltas = variants[[f"delta_{c}" for c in activity.index]].to_numpy()
    assert (deltas[variants.element == "."] == 0).all()
    for change, sign in {"lost": -1, "gained": 1}.items():
        rows = variants[(variants.change == change) & (variants.in_motif == 1) & (variants.tf != "TBP")]
        active = activity[rows.tf].to_numpy().T > 0.5
        values = sign * rows[[f"delta_{c}" for c in activity.index]].to_numpy()
        assert len(rows) > 5 and (values[active] > 0).mean() > 0.95
    causal = variants[variants.causal == 1]
    metrics = json.loads((world / "manifest.json").read_text())["metrics"]
    assert 5 <= len(causal) <= 20 and (causal.in_motif == 1).all()
    ratio = causal.disease_effect / causal[f"delta_{metrics['disease_cell_type']}"]
    assert np.allclose(ratio, ratio.iloc[0], rtol=1e-3) and ratio.iloc[0] > 0
    assert (variants.disease_effect[variants.causal == 0] == 0).all()


def reference_log_odds(sequence: str, activity: pd.Series, facts: dict, pwms: dict[str, Motif]) -> float:
    """Compute the log-odds of accessibility by the words of the docstring, site by site, pairs included."""
    model = facts["RegulationModel"]
    bound: dict[str, dict[tuple[int, str], float]] = {}
    width = {}
    for tf, fact in facts["tfs"].items():
        scores = pwms[fact["motif"]].scores.tolist()
        width[tf], bound[tf] = len(scores), {}
        for strand, bases in (("+", sequence), ("-", sequence.translate(COMPLEMENT)[::-1])):
            for i in range(len(bases) - len(scores) + 1):
                s = sum(scores[j]["ACGT".index(bases[i + j])] for j in range(len(scores)))
                start = i if strand == "+" else len(bases) - len(scores) - i
                share = (s - fact["least_score"]) / (fact["best_score"] - fact["least_score"])
                if share > 0:
                    bound[tf][start, strand] = model["most_bound"] * share
    total = model["baseline"]
    for tf in facts["tfs"]:
        total += model["gain"] * activity[tf] * (1 - np.prod([1 - b for b in bound[tf].values()]))
    for pair in facts["pairs"].values():
        free = 1.0
        for (i, one), b1 in bound[pair["first"]].items():
            for (j, two), b2 in bound[pair["second"]].items():
                gap = j - i - width[pair["first"]] if one == "+" else i - j - width[pair["second"]]
                if (one == two) == pair["same_strand"] and pair["gaps"][0] <= gap <= pair["gaps"][1]:
                    free *= 1 - b1 * b2
        total += model["cooperation"] * activity[pair["first"]] * activity[pair["second"]] * (1 - free)
    return total


def test_deltas_agree_with_a_plain_reading_of_the_model(
    world: Path, genome: dict[str, str], pwms: dict[str, Motif]
) -> None:
    facts = json.loads((world / "truth/model.json").read_text())
    activity = truth(world, "activity").set_index("cell_type").loc["Mono"]
    variants = truth(world, "variants")
    elements = truth(world, "elements").set_index("element")
    moved = variants[(variants.element != ".") & (variants.delta_Mono.abs() > 0.5)]
    indel = moved[moved.ref.str.len() != moved.alt.str.len()]
    for row in pd.concat([moved.head(4), indel.head(4)]).itertuples():
        start, end = elements.loc[row.element, ["start", "end"]]
        chromosome = genome[row.chrom].upper()
        altered = chromosome[: row.position] + row.alt + chromosome[row.position + len(row.ref) :]
        reference, alternate = (reference_log_odds(s[start:end], activity, facts, pwms) for s in (chromosome, altered))
        assert row.delta_Mono == pytest.approx(alternate - reference, abs=2e-3)


def test_cases_carry_more_risk(world: Path) -> None:
    variants, people = truth(world, "variants").set_index("id"), table(world / "phenotypes.tsv")
    risk = np.zeros(len(people))
    with pysam.VariantFile(str(world / "cohort.vcf.gz")) as vcf:
        for record in vcf:
            dosage = np.array([sum(call["GT"]) for call in record.samples.values()])
            risk += variants.disease_effect[record.id] * dosage
    assert risk[people.disease == 1].mean() > risk[people.disease == 0].mean()
    assert set(people.columns) == {"sample", "sex", "disease", "trait"} and set(people.sex) == {1, 2}


@pytest.mark.parametrize(
    ("changes", "numbers"),
    [
        ({"regions": 100, "genes": 80}, "100 regions are too few for 80 genes"),
        ({"regions": 5000}, "5000 regions over 16 chromosome arms"),
        ({"variants": 10**6}, "1000000 variants are too many for 2.0 Mb"),
    ],
)
def test_impossible_settings_are_explained(tmp_path: Path, changes: dict[str, int], numbers: str) -> None:
    with pytest.raises(UserError, match=numbers):
        make(tmp_path / "x", **changes)
    assert not (tmp_path / "x").exists() and not (tmp_path / "x.partial").exists()


def test_edges_of_the_settings(tmp_path: Path) -> None:
    few = make(tmp_path / "few", regions=50, genes=20, variants=50, cell_types=2, chromosomes=4, individuals=21)
    assert table(few / "phenotypes.tsv").disease.sum() == 10
    many = make(tmp_path / "many", regions=120, genes=20, variants=50, cell_types=64, chromosomes=64)
    assert len(list((many / "peaks").iterdir())) == 64


def test_importing_loads_no_torch() -> None:
    code = "import sys, genebert.simulate; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
import torch
from scipy.special import logit
from toys import WIDTH, World

from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.methods.base import Examples, Place
from genebert.methods.genebert import shown_of
from genebert.predictor import Predictor
from genebert.schema import Variant, decode, encode, reverse_complement
from genebert.settings import VariantsSettings
from genebert.stage import read_manifest
from genebert.tokens import sequence_tokens
from genebert.variants import run
from genebert.variants.mutagenesis import mutagenesis
from genebert.variants.run import variants
from genebert.variants.scorer import Scorer, Scores
from genebert.variants.tables import COLUMNS
from genebert.variants.windows import offsets

HEADER = "##fileformat=VCFv4.2\n##contig=<ID=chr3>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.fixture
def scorer(toy_predictor: Path, toy: Corpus, genome: Genome) -> Scorer:
    return Scorer(Predictor.open(toy_predictor, "cpu"), genome, toy, [])


@pytest.fixture
def inside(toy: Corpus, genome: Genome) -> Variant:
    """An SNV 10 bp into the first test region."""
    region = toy.regions[toy.regions["chrom"] == "chr3"].iloc[0]
    ref = decode(genome.fetch("chr3", region["start"] + 10, region["start"] + 11))
    return Variant("chr3", int(region["start"]) + 10, ref, "ACGT"["ACGT".index(ref) - 1], "snv")


def write_vcf(path: Path, *rows: tuple[object, ...]) -> Path:
    path.write_text(HEADER + "".join("\t".join(map(str, (*row, ".", ".", "."))) + "\n" for row in rows))
    return path


def settings(vcf: Path, world: World, corpus: Path, model: Path, out: Path, **changes: object) -> VariantsSettings:
    return VariantsSettings(
        **{
            "vcf": vcf,
            "model": model,
            "genome": world.genome,
            "corpus": corpus,
            "out": out,
            "device": "cpu",
            "null": 0,
            "mutagenesis": 0,
            **changes,
        }
    )


@pytest.mark.parametrize(("ref_length", "alt"), [(1, "T"), (1, "TTACG"), (4, "G"), (3, "ACG")])
def test_alternate_window_is_the_edited_sequence_at_the_same_start(
    ref_length: int, alt: str, scorer: Scorer, genome: Genome, inside: Variant
) -> None:
    at = inside.position
    ref = decode(genome.fetch("chr3", at, at + ref_length))
    pair = scorer.windows.pair(Variant("chr3", at, ref, alt))
    chromosome = decode(genome.fetch("chr3", 0, genome.lengths["chr3"]))
    edited = chromosome[:at] + alt + chromosome[at + ref_length :]
    assert pair.start == at - 10
    assert decode(pair.reference) == chromosome[pair.start : pair.start + WIDTH]
    assert decode(pair.alternate) == edited[pair.start : pair.start + WIDTH]


def test_a_variant_outside_all_regions_is_centred_in_its_window(scorer: Scorer, toy: Corpus, genome: Genome) -> None:
    taken = toy.regions[toy.regions["chrom"] == "chr3"]
    at = next(p for p in range(500, 19_000) if not ((taken["start"] <= p) & (p < taken["end"])).any())
    ref = decode(genome.fetch("chr3", at, at + 1))
    variant = Variant("chr3", at, ref, "A" if ref != "A" else "C")
    assert scorer.windows.region_start(variant) is None
    assert scorer.windows.pair(variant).start == at - WIDTH // 2


def test_region_start_agrees_with_a_look_at_every_region(scorer: Scorer, toy: Corpus) -> None:
    for at in range(0, 20_000, 37):
        by_hand = [int(r.start) for r in toy.regions.itertuples() if r.chrom == "chr2" and r.start <= at < r.end]
        assert scorer.windows.region_start(Variant("chr2", at, "A", "C")) == (by_hand[0] if by_hand else None)


def test_both_modalities_follow_the_alternate_allele(scorer: Scorer, toy: Corpus, inside: Variant) -> None:
    """The scores are those of the whole networks, averaged over both strands, on inputs that are put together here."""
    pair = scorer.windows.pair(inside)
    reference, alternate = scorer.score([pair])
    networks = [fitted.model for _, fitted in scorer.predictor.ensemble.members]
    temperature = scorer.predictor.ensemble.calibration.temperature
    position = toy.line_positions(["chr3"], np.array([pair.start + WIDTH // 2]))
    for codes, found in ((pair.reference, reference), (pair.alternate, alternate)):
        own = toy.scanner.scan(codes[None])
        for index in range(len(toy.cell_types)):
            probabilities = []
            for model in networks:
                matrix = Place(toy, position, own).matrix(
                    index, model.config.region_columns, WIDTH, shown_of(model.config)
                )
                for strand in (codes, reverse_complement(codes)):
                    ids, segments = map(torch.from_numpy, sequence_tokens(strand[None], model.config.k))
                    with torch.no_grad():
                        probabilities.append(
                            model(ids, segments, matrix, torch.from_numpy(strand[None])).softmax(dim=1)
                        )
            average = torch.stack(probabilities).double().mean(dim=0)[0]
            expected = float(average[1].log() - average[0].log()) / temperature
            assert found[0, index] == pytest.approx(expected, abs=1e-4)
    assert (toy.scanner.scan(pair.reference[None]) != toy.scanner.scan(pair.alternate[None])).any() or (
        reference != alternate
    ).any()


def test_gained_and_lost_motifs(scorer: Scorer, toy: Corpus, genome: Genome, inside: Variant) -> None:
    strongest = toy.motifs[0].probabilities.argmax(axis=1)
    site = decode(strongest.astype(np.uint8))
    ref = decode(genome.fetch("chr3", inside.position, inside.position + 1))
    variants = [Variant("chr3", inside.position, ref, ref + site), Variant("chr3", inside.position, ref, ref)]
    scores = scorer.scores(variants)
    changes = motif_changes(genome, toy.scanner, variants)
    assert changes[0, 0] > 0
    for found, by, sign in ((scores.gained, scores.gained_by, 1), (scores.lost, scores.lost_by, -1)):
        largest = np.sort(np.maximum(sign * changes[0], 0))[::-1][:3]
        assert np.array_equal(sign * by[0], largest)
        assert np.array_equal(found[0] >= 0, largest > 0)
        assert all(change == changes[0, motif] for motif, change in zip(found[0], by[0], strict=True) if motif >= 0)
        assert (found[1] == -1).all() and (by[1] == 0).all()
    assert np.abs(scores.difference[1]).max() < np.finfo(np.float32).eps  # scored in batches of one and of two windows


def test_a_reference_window_is_scored_once(scorer: Scorer, inside: Variant, monkeypatch: pytest.MonkeyPatch) -> None:
    near = Variant("chr3", inside.position + 3, *_change(scorer.genome, inside.position + 3))
    pairs = [scorer.windows.pair(variant) for variant in (inside, near)]
    apart = [scorer.score([pair]) for pair in pairs]
    sizes: list[int] = []
    monkeypatch.setattr(
        scorer, "log_odds", lambda codes, *where: sizes.append(len(codes)) or Scorer.log_odds(scorer, codes, *where)
    )
    reference, alternate = scorer.score(pairs)
    assert sizes == [3]
    assert np.allclose(reference, np.concatenate([one[0] for one in apart]), atol=1e-5)
    assert np.allclose(alternate, np.concatenate([one[1] for one in apart]), atol=1e-5)


def _change(genome: Genome, position: int) -> tuple[str, str]:
    ref = decode(genome.fetch("chr3", position, position + 1))
    return ref, "ACGT"["ACGT".index(ref) - 1]


def test_offsets_are_symmetric_and_evenly_spaced() -> None:
    assert offsets(1, 512) == [0]
    assert offsets(3, 512) == [-128, 0, 128]
    assert offsets(5, 60) == [-20, -10, 0, 10, 20]


def test_shifted_windows_hold_the_variant_and_their_log_odds_are_averaged(
    scorer: Scorer, toy_predictor: Path, toy: Corpus, genome: Genome, inside: Variant
) -> None:
    pairs = scorer.windows.pairs(inside, 5)
    start = scorer.windows.start(inside)
    assert pairs[2].start == start
    assert [pair.start for pair in pairs[:2]] == [start + offset for offset in offsets(5, WIDTH)[:2]]
    for pair in pairs:
        at = inside.position - pair.start
        assert 0 <= at < WIDTH
        assert (decode(pair.reference)[at], decode(pair.alternate)[at]) == (inside.ref, inside.alt)
    odds = scorer.score(pairs)
    moved = Scorer(Predictor.open(toy_predictor, "cpu"), genome, toy, [], shifts=5).scores([inside])
    assert np.allclose(moved.reference[0], odds[0].mean(axis=0), atol=1e-6)
    assert np.allclose(moved.alternate[0], odds[1].mean(axis=0), atol=1e-6)


def test_vcf_and_tables_hold_the_same_scores(
    toy_world: World, toy_folder: Path, toy_predictor: Path, inside: Variant, tmp_path: Path
) -> None:
    other = "ACGT"["ACGT".index(inside.ref) - 2]
    vcf = write_vcf(
        tmp_path / "v.vcf",
        ("chr3", inside.position + 1, "rs1", inside.ref, f"{inside.alt},{other}"),
        ("chr3", inside.position + 2, "mis", "N", "A"),
        ("chr3", 19_990, "far", "A", "<DEL>"),
    )
    out = variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "out"))
    table = pd.read_csv(out / "variants.tsv", sep="\t")
    assert len(table) == 2 * 3
    assert np.allclose(table["difference"], table["alternate"] - table["reference"], atol=1e-4)
    with pysam.VariantFile(str(out / "variants.vcf.gz")) as file:
        records = list(file)
    effects = [entry.split("|") for entry in records[0].info["GENEBERT"]]
    assert [(alt, cell_type) for alt, cell_type, *_ in effects] == list(
        zip(table["alt"], table["cell_type"], strict=True)
    )
    assert np.allclose([float(e[4]) for e in effects], table["difference"], atol=1e-4)
    strongest = table.groupby("alt", sort=False)["difference"].agg(lambda d: d.iloc[d.abs().to_numpy().argmax()])
    assert np.allclose(records[0].info["GENEBERT_MAX"], strongest, atol=1e-4)
    assert "GENEBERT" not in records[1].info
    metrics = read_manifest(out).metrics
    assert metrics["alleles_scored"] == 2 and sum(metrics["alleles_skipped"].values()) == 2
    assert len(pd.read_csv(out / "skipped.tsv", sep="\t")) == 2


def test_mutagenesis_of_a_base_equals_scoring_that_substitution(scorer: Scorer, inside: Variant) -> None:
    pair = scorer.windows.pair(inside)
    reference, _ = scorer.score([pair])
    row = pd.DataFrame(
        [
            {
                "variant": inside.name,
                "cell_type": "NK",
                "chrom": "chr3",
                "position": inside.position + 1,
                "ref": inside.ref,
                "alt": inside.alt,
                "id": ".",
            }
        ]
    )
    table = mutagenesis(scorer, row)
    assert set(table["offset"]) == set(range(-10, 21))  # the window begins 10 bp before the variant
    assert (table.groupby(["allele", "offset"]).size() == 3).all()
    column = scorer.cell_types.index("NK")
    found = table.query("allele == 'reference' and offset == 3").iloc[0]
    codes = pair.reference.copy()
    codes[13] = encode(found["mutated_to"]).codes[0]
    direct = scorer.log_odds(codes[None], ["chr3"], np.array([pair.start]))[0, column]
    assert found["difference"] == pytest.approx(direct - reference[0, column], abs=1e-4)


def test_a_sequence_model_scores_without_cell_types(
    toy_world: World, genome: Genome, sequence_predictor: Path, inside: Variant, tmp_path: Path
) -> None:
    vcf = write_vcf(tmp_path / "v.vcf", ("chr3", inside.position + 1, ".", inside.ref, inside.alt))
    out = variants(
        VariantsSettings(
            vcf=vcf,
            model=sequence_predictor,
            genome=toy_world.genome,
            out=tmp_path / "out",
            device="cpu",
            mutagenesis=0,
            null=0,
        )
    )
    table = pd.read_csv(out / "variants.tsv", sep="\t")
    assert list(table["cell_type"]) == ["all"]
    predictor = Predictor.open(sequence_predictor, "cpu")
    pair = Scorer(predictor, genome, None, []).windows.pair(inside)
    codes = np.stack([pair.reference, pair.alternate])
    probability = predictor.ensemble.predict(Examples(codes, predictor.scanner))[:, 1]
    assert table.loc[0, ["reference", "alternate"]].tolist() == pytest.approx(logit(probability), abs=1e-4)
    assert len(pd.read_csv(out / "mutagenesis.tsv", sep="\t")) == 0


def test_nothing_to_score_is_an_error_that_names_the_mismatches(
    toy_world: World, toy_folder: Path, toy_predictor: Path, inside: Variant, tmp_path: Path
) -> None:
    wrong = "ACGT"["ACGT".index(inside.ref) - 1]
    vcf = write_vcf(tmp_path / "v.vcf", ("chr3", inside.position + 1, ".", wrong, inside.ref))
    with pytest.raises(UserError) as error:
        variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "out"))
    assert f"chr3:{inside.position + 1}:{wrong}>{inside.ref} where the genome has {inside.ref}" in str(error.value)
    assert "v.vcf" in str(error.value) and "same assembly" in str(error.value)
    assert not (tmp_path / "out").exists()


def many(world: World, toy: Corpus, path: Path, count: int, seed: int = 1) -> Path:
    """SNVs and short indels at random places of the regions, sorted."""
    generator = np.random.default_rng(seed)
    rows = []
    with Genome(world.genome) as genome:
        held_out = toy.regions[toy.regions["chrom"] == "chr3"]
        for row in generator.choice(len(held_out), count):
            position = int(held_out["start"].iloc[row]) + int(generator.integers(5, WIDTH - 5))
            ref, alt = _change(genome, position)
            rows.append(("chr3", position + 1, f"v{len(rows)}", ref, alt if len(rows) % 4 else f"{alt},{ref}GC"))
    return write_vcf(path, *sorted(rows, key=lambda row: row[1]))


def test_an_interrupted_run_resumes_and_equals_one_that_was_not(
    toy_world: World,
    toy_folder: Path,
    toy: Corpus,
    toy_predictor: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Killed while random variants are scored, then while the others are; nothing is scored twice."""
    monkeypatch.setattr(run, "CHUNK", 8)
    vcf = many(toy_world, toy, tmp_path / "v.vcf", 30)
    options = {"null": 20, "mutagenesis": 1, "cell_types": ["B", "T"]}
    whole = variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "whole", **options))
    left: list[int] = []
    score = Scorer.scores

    def interrupted(self: Scorer, several: list[Variant]) -> Scores:
        if not left.pop():
            raise KeyboardInterrupt
        return score(self, several)

    monkeypatch.setattr(Scorer, "scores", interrupted)
    again = settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "again", **options)
    for parts in (1, 3):
        left[:] = [0] + [1] * parts
        with pytest.raises(KeyboardInterrupt):
            variants(again)
        assert not again.out.exists()
    left[:] = [1] * 3  # of the 3 + 4 parts, 4 are there
    resumed = variants(again)
    assert left == []
    files = sorted(path.name for path in whole.iterdir() if path.name != "manifest.json")
    assert files == sorted(path.name for path in resumed.iterdir() if path.name != "manifest.json")
    assert {
        "variants.vcf.gz",
        "variants.vcf.gz.tbi",
        "variants.tsv",
        "skipped.tsv",
        "mutagenesis.tsv",
        "motif_sites.json",
    } == set(files)
    for name in files:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name
    assert read_manifest(whole).metrics == read_manifest(resumed).metrics


def test_memory_does_not_grow_with_the_number_of_variants(
    toy_world: World,
    toy_folder: Path,
    toy: Corpus,
    toy_predictor: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten times as many variants, whose scores are made up: what Python and numpy hold at most stays the same."""
    template = Scorer.scores
    kept: list[Scores] = []

    def made_up(self: Scorer, several: list[Variant]) -> Scores:
        if not kept:
            kept.append(template(self, several[:1]))
        return Scores(**{name: np.repeat(array, len(several), axis=0) for name, array in vars(kept[0]).items()})

    monkeypatch.setattr(Scorer, "scores", made_up)
    peaks = []
    monkeypatch.setattr(run, "CHUNK", 32)
    for count in (100, 100, 1000):  # the first run loads what is loaded once
        vcf = many(toy_world, toy, tmp_path / f"{count}.vcf", count)
        out = tmp_path / f"out{len(peaks)}"
        options = settings(vcf, toy_world, toy_folder, toy_predictor, out, null=20, cell_types=["B"])
        tracemalloc.start()
        variants(options)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] < 1.1 * peaks[1] + 100_000


def test_parquet_holds_what_tsv_holds(
    toy_world: World, toy_folder: Path, toy: Corpus, toy_predictor: Path, tmp_path: Path
) -> None:
    vcf = many(toy_world, toy, tmp_path / "v.vcf", 12)
    tables = []
    for name, options in (("tsv", {"null": 0}), ("parquet", {"format": "parquet", "null": 30})):
        out = variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / name, **options))
        tables.append(
            pd.read_csv(out / "variants.tsv", sep="\t") if name == "tsv" else pd.read_parquet(out / "variants.parquet")
        )
    text, packed = tables
    assert list(text) == list(packed) == list(COLUMNS)
    assert len(text) == 15 * 3
    for column in ("reference", "alternate", "difference"):
        assert np.allclose(text[column], packed[column], atol=1e-4)
    words = ["variant", "given", "id", "chrom", "ref", "alt", "cell_type", "gained", "lost"]
    assert text[words].astype(str).equals(packed[words].astype(str))
    assert text["p"].isna().all()
    assert ((packed["p"] > 0) & (packed["p"] <= 1)).all()


def test_an_indel_is_scored_left_aligned_and_the_record_kept(
    toy_world: World, toy_folder: Path, toy: Corpus, toy_predictor: Path, tmp_path: Path
) -> None:
    """A deletion in a homopolymer, written at its right end, and with bases to spare."""
    with Genome(toy_world.genome) as genome:
        for region in toy.regions.query("chrom == 'chr3'").itertuples():
            letters = decode(genome.fetch("chr3", region.start, region.end))
            found = next((i for i in range(5, 50) if letters[i] == letters[i + 1] != letters[i - 1]), None)
            if found is not None:
                break
    start, base = int(region.start) + found, letters[found]
    before, after = letters[found - 1], letters[found + 2]
    vcf = write_vcf(tmp_path / "v.vcf", ("chr3", start + 1, "del", base * 2 + after, base + after))
    out = variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "out"))
    row = pd.read_csv(out / "variants.tsv", sep="\t").iloc[0]
    assert row["variant"] == f"chr3:{start}:{before}{base}>{before}"
    assert row["given"] == f"chr3:{start + 1}:{base}{base}{after}>{base}{after}"
    assert (row["position"], row["ref"], row["alt"]) == (start, before + base, before)
    with pysam.VariantFile(str(out / "variants.vcf.gz")) as file:
        (record,) = file
    assert (record.pos, record.alleles) == (start + 1, (base * 2 + after, base + after))
    assert record.info["GENEBERT_AS"] == (row["variant"].replace(":", "%3A"),)


def test_regions_choose_records(
    toy_world: World, toy_folder: Path, toy: Corpus, toy_predictor: Path, tmp_path: Path
) -> None:
    vcf = many(toy_world, toy, tmp_path / "v.vcf", 12)
    positions = [int(line.split("\t")[1]) for line in vcf.read_text().splitlines() if line[0] != "#"]
    region = f"chr3:{positions[3]}-{positions[6]}"
    out = variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "out", regions=[region]))
    expected = [position for position in positions if positions[3] <= position <= positions[6]]
    with pysam.VariantFile(str(out / "variants.vcf.gz")) as file:
        assert [record.pos for record in file] == expected
    assert read_manifest(out).metrics["records"] == len(expected)


def test_a_bed_of_regions_counts_by_what_it_holds(tmp_path: Path) -> None:
    shared = {"vcf": tmp_path / "v.vcf", "model": tmp_path, "genome": tmp_path / "g.fa", "out": tmp_path / "out"}
    (tmp_path / "some.bed").write_text("chr3\t0\t900\n")
    copied = shutil.copy(tmp_path / "some.bed", tmp_path / "same.bed")
    first, second = (VariantsSettings(**shared, regions=[str(path)]) for path in (tmp_path / "some.bed", copied))
    assert first.identity() == second.identity()
    assert VariantsSettings(**shared, regions=["chr3"]).identity()["regions"] == ["chr3"]


def test_a_model_per_cell_type_needs_a_corpus_and_known_cell_types(
    toy_world: World, toy_folder: Path, toy_predictor: Path, inside: Variant, tmp_path: Path
) -> None:
    vcf = write_vcf(tmp_path / "v.vcf", ("chr3", inside.position + 1, ".", inside.ref, inside.alt))
    with pytest.raises(UserError, match="Add --corpus"):
        variants(
            VariantsSettings(vcf=vcf, model=toy_predictor, genome=toy_world.genome, out=tmp_path / "out", device="cpu")
        )
    with pytest.raises(UserError, match="no cell type 'Treg'"):
        variants(settings(vcf, toy_world, toy_folder, toy_predictor, tmp_path / "out", cell_types=["Treg"]))

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
import torch
from scipy.special import logit
from toys import WIDTH, World

from genebert.batches import neighbourhood
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.methods.base import Examples
from genebert.predictor import Predictor
from genebert.schema import Variant, decode, encode, reverse_complement
from genebert.settings import VariantsSettings
from genebert.stage import read_manifest
from genebert.tokens import sequence_tokens
from genebert.variants.mutagenesis import mutagenesis
from genebert.variants.run import variants
from genebert.variants.scorer import Scorer

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
        **{"vcf": vcf, "model": model, "genome": world.genome, "corpus": corpus, "out": out, "device": "cpu", **changes}
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
                matrix = neighbourhood(toy, np.array([index]), position, own, model.config.region_columns, WIDTH)
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
    planted = Variant("chr3", inside.position, ref, ref + site)
    unchanged = Variant("chr3", inside.position, ref, ref)
    ((gained, gain), _), nothing = scorer.motif_changes([planted, unchanged])
    assert gain > 0
    assert gained in {motif.name for motif in toy.motifs}
    assert nothing == ((".", 0), (".", 0))


def test_motif_changes_do_not_depend_on_the_other_variants(scorer: Scorer, inside: Variant) -> None:
    long = Variant("chr3", inside.position, inside.ref, inside.ref + "ACGTTGCA" * 4)
    assert scorer.motif_changes([long, inside]) == scorer.motif_changes([long]) + scorer.motif_changes([inside])


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

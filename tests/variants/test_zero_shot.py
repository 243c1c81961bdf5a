from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pysam
import pytest
import torch
from toys import WIDTH, World

from genebert.corpus.build import prepare
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.pretrain import pretrain
from genebert.region_matrix import neighbourhood
from genebert.schema import Variant, decode, encode, reverse_complement
from genebert.settings import PretrainSettings, VariantsSettings
from genebert.tokens import CLS, MASK, SEP, VOCABULARY_BASES, segments, sequence_tokens, vocabulary
from genebert.variants.run import variants
from genebert.variants.windows import Pair
from genebert.variants.zero_shot import Pretrained, ZeroShotScorer


@pytest.fixture(scope="module")
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.fixture(scope="module")
def trimer_model(toy_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trimers") / "model"
    return pretrain(PretrainSettings(out=out, corpus=toy_folder, batch_size=16, epochs=1, k=3, device="cpu"))


@pytest.fixture
def scorer(toy_model: Path, toy_folder: Path, genome: Genome) -> ZeroShotScorer:
    return ZeroShotScorer(Pretrained.open(toy_model, toy_folder, "cpu"), genome, [])


@pytest.fixture
def trimers(trimer_model: Path, toy_folder: Path, genome: Genome) -> ZeroShotScorer:
    return ZeroShotScorer(Pretrained.open(trimer_model, toy_folder, "cpu"), genome, [])


def variant_in(genome: Genome, corpus: Corpus, offset: int, ref_length: int = 1, alt: str = "") -> Variant:
    """A variant some bases into the first test region; an SNV if no alternate allele is given."""
    at = int(corpus.regions[corpus.regions["chrom"] == "chr3"].iloc[0]["start"]) + offset
    ref = decode(genome.fetch("chr3", at, at + ref_length))
    return Variant("chr3", at, ref, alt or "ACGT"["ACGT".index(ref) - 1])


def mirrored(pair: Pair) -> Pair:
    """The reverse complement of a pair of windows of an SNV, at the same place."""
    variant = pair.variant
    ref, alt = (decode(reverse_complement(encode(allele).codes)) for allele in (variant.ref, variant.alt))
    position = pair.start + WIDTH - 1 - (variant.position - pair.start)
    windows = (reverse_complement(codes) for codes in (pair.reference, pair.alternate))
    return Pair(replace(variant, position=position, ref=ref, alt=alt), pair.start, *windows)


def masked_log_probabilities(scorer: ZeroShotScorer, codes: np.ndarray, place: int) -> dict[str, float]:
    """Log p of the bases at one place, from tokens written by hand."""
    k, letters = scorer.network.config.k, decode(codes)
    number = {word: i for i, word in enumerate(vocabulary(k))}
    ids = [CLS]
    for begin in (0, WIDTH // 2):
        for first in range(begin, begin + WIDTH // 2 - k + 1):
            covers = first <= place < first + k
            ids.append(MASK if covers else number[letters[first : first + k]])
            if first + k // 2 == place:
                scored = len(ids) - 1
        ids.append(SEP)
    model = scorer.network
    with torch.no_grad():
        states = model.genebert(torch.tensor([ids]), torch.from_numpy(segments(1, WIDTH, k))).last_hidden_state
        found = model.base_head(states[:, scored], model.genebert.token_embeddings)[0]
    return dict(zip(VOCABULARY_BASES, found.tolist(), strict=True))


@pytest.mark.parametrize("tokens", ["scorer", "trimers"])
def test_likelihood_ratio_is_that_of_the_hidden_base_on_both_strands(
    tokens: str, request: pytest.FixtureRequest, genome: Genome, toy: Corpus
) -> None:
    scorer: ZeroShotScorer = request.getfixturevalue(tokens)
    pair = scorer.windows.pair(variant_in(genome, toy, 30))
    forward = masked_log_probabilities(scorer, pair.reference, 30)
    backward = masked_log_probabilities(scorer, reverse_complement(pair.reference), WIDTH - 1 - 30)
    complement = dict(zip("ACGT", "TGCA", strict=True))
    ref, alt = pair.variant.ref, pair.variant.alt
    expected = [forward[alt] - forward[ref], backward[complement[alt]] - backward[complement[ref]]]
    assert scorer.named([pair])["likelihood_ratio"][0] == pytest.approx(np.mean(expected), abs=1e-5)


def test_likelihood_ratio_of_a_deletion_is_what_the_lost_bases_have_over_random_ones(
    scorer: ZeroShotScorer, genome: Genome, toy: Corpus
) -> None:
    at = variant_in(genome, toy, 40).position
    ref = decode(genome.fetch("chr3", at, at + 3))
    pair = scorer.windows.pair(Variant("chr3", at, ref, ref[0]))
    expected = 0.0
    for place in (41, 42):
        forward = masked_log_probabilities(scorer, pair.reference, place)[decode(pair.reference)[place]]
        turned = reverse_complement(pair.reference)
        backward = masked_log_probabilities(scorer, turned, WIDTH - 1 - place)[decode(turned)[WIDTH - 1 - place]]
        expected -= (forward + backward) / 2 + np.log(4)
    assert scorer.named([pair])["likelihood_ratio"][0] == pytest.approx(expected, abs=1e-5)


def test_shared_bases_inside_substitutions_do_not_count(scorer: ZeroShotScorer, genome: Genome, toy: Corpus) -> None:
    """Each base that differs is judged with the others of its own allele, and those that both have are not."""
    ref = variant_in(genome, toy, 40, 5, "A" * 5).ref
    other = str.translate(ref, str.maketrans("ACGT", "CATG"))
    variant = variant_in(genome, toy, 40, 5, other[0] + ref[1:4] + other[4])
    pair = scorer.windows.pair(variant)
    bases = list(scorer._bases(pair))
    assert [(sign, place) for sign, _, place in bases] == [(-1, 40), (-1, 44), (1, 40), (1, 44)]
    assert scorer.likelihood_ratios([pair])[0] != 0


def test_bases_of_indels_in_repeats_count_wherever_the_window_begins(
    toy_model: Path, toy_folder: Path, toy: Corpus, genome: Genome
) -> None:
    at = int(toy.regions[toy.regions["chrom"] == "chr3"].iloc[0]["start"]) + 3
    base = decode(genome.fetch("chr3", at, at + 1))
    scorer = ZeroShotScorer(Pretrained.open(toy_model, toy_folder, "cpu"), genome, [])
    pairs = scorer.windows.pairs(Variant("chr3", at, base, base * 3), 5)
    assert max(pair.start for pair in pairs) == at + 1  # where the window begins after the anchor
    assert [len(list(scorer._bases(pair))) for pair in pairs] == [2] * 5


def test_embedding_distance_and_matching_shift_by_hand(scorer: ZeroShotScorer, genome: Genome, toy: Corpus) -> None:
    pair = scorer.windows.pair(variant_in(genome, toy, 50))
    model, head, width = scorer.network, scorer.network.matching_head, toy.width
    cell_type = toy.cell_types.index("NK")
    position = toy.line_positions(["chr3"], np.array([pair.start + width // 2]))
    pooled, logits = {}, {}
    for name, codes in {"reference": pair.reference[None], "alternate": pair.alternate[None]}.items():
        evidence = toy.scanner.scan(codes)
        matrix = neighbourhood(
            toy, np.array([cell_type]), position, evidence, scorer.network.config.region_columns, width
        )
        with torch.no_grad():
            region = head.project_region(model.genebert(matrix=matrix).region)[0]
            strands = [
                model.genebert(*map(torch.from_numpy, sequence_tokens(one, 1))).sequence
                for one in (codes, reverse_complement(codes))
            ]
            cosines = [(head.project_sequence(one)[0] @ region).item() for one in strands]
        pooled[name] = [one[0] for one in strands]
        logits[name] = head.scale.item() * np.mean(cosines)
    distances = [(b - a).norm().item() for a, b in zip(pooled["reference"], pooled["alternate"], strict=True)]
    found = scorer.named([pair])
    assert found["embedding_distance"][0] == pytest.approx(np.mean(distances), rel=1e-4)
    for name, logit in logits.items():
        assert found[name].shape == (1, 3)
        assert found[name][0, cell_type] == pytest.approx(logit, abs=1e-4)


@pytest.mark.parametrize("tokens", ["scorer", "trimers"])
def test_scores_do_not_depend_on_the_other_variants(
    tokens: str, request: pytest.FixtureRequest, genome: Genome, toy: Corpus
) -> None:
    scorer: ZeroShotScorer = request.getfixturevalue(tokens)
    offsets = (0, 1, 30, WIDTH // 2 - 1, WIDTH // 2, WIDTH - 1)
    variants = [variant_in(genome, toy, offset) for offset in offsets]
    variants += [variant_in(genome, toy, 60, 1, "ACGTT"), variant_in(genome, toy, 70, 4, "T")]
    pairs = [scorer.windows.pair(variant) for variant in variants]
    together = scorer.named(pairs)
    for i, pair in enumerate(pairs):
        for name, alone in scorer.named([pair]).items():
            np.testing.assert_allclose(together[name][i], alone[0], atol=2e-5)
    assert (together["likelihood_ratio"] != 0).all()


@pytest.mark.parametrize("tokens", ["scorer", "trimers"])
@pytest.mark.parametrize("offset", [0, 40, WIDTH // 2])
def test_the_other_strand_has_the_same_scores(
    offset: int, tokens: str, request: pytest.FixtureRequest, genome: Genome, toy: Corpus
) -> None:
    scorer: ZeroShotScorer = request.getfixturevalue(tokens)
    pair = scorer.windows.pair(variant_in(genome, toy, offset))
    found, turned = scorer.named([pair]), scorer.named([mirrored(pair)])
    for name, value in found.items():
        np.testing.assert_allclose(value, turned[name], atol=2e-5)


def test_swapped_alleles_have_opposite_scores(scorer: ZeroShotScorer, genome: Genome, toy: Corpus) -> None:
    pair = scorer.windows.pair(variant_in(genome, toy, 20, 2, "GATTACA"))
    variant = pair.variant
    swapped = Pair(replace(variant, ref=variant.alt, alt=variant.ref), pair.start, pair.alternate, pair.reference)
    found, opposite = scorer.named([pair]), scorer.named([swapped])
    np.testing.assert_allclose(found["likelihood_ratio"], -opposite["likelihood_ratio"], atol=2e-5)
    np.testing.assert_allclose(found["reference"], opposite["alternate"], atol=2e-5)
    np.testing.assert_allclose(found["embedding_distance"], opposite["embedding_distance"], atol=2e-5)


def test_an_alternate_allele_that_is_the_reference_changes_nothing(
    scorer: ZeroShotScorer, genome: Genome, toy: Corpus
) -> None:
    snv = variant_in(genome, toy, 30)
    found = scorer.scores([replace(snv, alt=snv.ref)])
    np.testing.assert_allclose(found.difference, 0, atol=2e-5)
    np.testing.assert_allclose(found.further["embedding_distance"], 0, atol=2e-5)
    assert found.further["likelihood_ratio"] == 0


def test_scores_are_averaged_over_shifts(toy_model: Path, toy_folder: Path, toy: Corpus, genome: Genome) -> None:
    snv = variant_in(genome, toy, WIDTH // 2)
    shifted = ZeroShotScorer(Pretrained.open(toy_model, toy_folder, "cpu"), genome, ["T", "B", "T"], 3)
    assert shifted.cell_types == ["T", "B"]
    each = shifted.named(shifted.windows.pairs(snv, 3))
    found = shifted.scores([snv])
    np.testing.assert_allclose(found.difference[0], (each["alternate"] - each["reference"]).mean(axis=0), atol=2e-5)
    for name, values in found.further.items():
        assert values.shape == (1,)
        assert values[0] == pytest.approx(each[name].mean(), abs=2e-5)


def test_the_stage_writes_what_a_pretrained_model_makes_of_variants(
    toy_world: World, toy_folder: Path, toy_model: Path, toy: Corpus, genome: Genome, tmp_path: Path
) -> None:
    several = [variant_in(genome, toy, 30), variant_in(genome, toy, 50, 2, "A"), variant_in(genome, toy, 9_000)]
    vcf = tmp_path / "some.vcf"
    rows = "".join(f"{one.chrom}\t{one.position + 1}\t.\t{one.ref}\t{one.alt}\t.\t.\t.\n" for one in several)
    vcf.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n" + rows)
    given = {"vcf": vcf, "model": toy_model, "genome": toy_world.genome, "null": 20, "device": "cpu"}
    out = variants(VariantsSettings(**given, corpus=toy_folder, out=tmp_path / "tsv"))
    table = pd.read_csv(out / "variants.tsv", sep="\t")
    scorer = ZeroShotScorer(Pretrained.open(toy_model, toy_folder, "cpu"), genome, [])
    normalised = [Variant(row.chrom, row.position - 1, row.ref, row.alt) for row in table[::3].itertuples()]
    expected = scorer.scores(normalised)
    np.testing.assert_allclose(table["difference"], expected.difference.reshape(-1), atol=1e-4)
    assert list(table["cell_type"].unique()) == toy.cell_types
    for column in ("p", "likelihood_ratio_p", "embedding_distance_p"):
        assert (table[column] * 21).round(3).isin(range(1, 22)).all()  # of 20 random variants
    with pysam.VariantFile(str(out / "variants.vcf.gz")) as written:
        info = [dict(record.info) for record in written]
    for name, field in {"likelihood_ratio": "GENEBERT_RATIO", "embedding_distance": "GENEBERT_DISTANCE"}.items():
        np.testing.assert_allclose(table[name], np.repeat(expected.further[name], 3), rtol=1e-3, atol=1e-4)
        for column, further in ((name, field), (f"{name}_p", f"{field}_P")):
            values = [one[further][0] for one in info[: len(normalised)]]
            np.testing.assert_allclose(values, table[column][::3], rtol=1e-4)
    packed = variants(VariantsSettings(**given, corpus=toy_folder, out=tmp_path / "parquet", format="parquet"))
    same = pd.read_parquet(packed / "variants.parquet")
    assert list(same) == list(table)
    np.testing.assert_allclose(same["likelihood_ratio"], table["likelihood_ratio"], rtol=1e-4)
    with pytest.raises(UserError, match="Add --corpus"):
        variants(VariantsSettings(**given, out=tmp_path / "none"))


def test_a_corpus_with_other_motifs_is_refused(toy_world: World, toy_model: Path, tmp_path: Path) -> None:
    other = prepare(toy_world.settings(tmp_path / "other", pseudocount=0.2))
    with pytest.raises(UserError, match="do not belong together"):
        Pretrained.open(toy_model, other, "cpu")


def test_a_model_without_the_tasks_is_refused(toy_folder: Path, tmp_path: Path) -> None:
    settings = PretrainSettings(
        out=tmp_path / "model", corpus=toy_folder, batch_size=16, epochs=0.1, mgm_weight=0, srm_weight=0, device="cpu"
    )
    with pytest.raises(UserError, match=r"(?s)MGM.*pre-trained without it.*SRM"):
        Pretrained.open(pretrain(settings), toy_folder, "cpu")


def test_a_corpus_with_wider_regions_than_the_model_reads_is_refused(
    toy_world: World, toy_model: Path, tmp_path: Path
) -> None:
    wide = prepare(toy_world.settings(tmp_path / "wide", region_width=600))
    with pytest.raises(UserError, match="has 600 bp, which is 603 tokens, and it reads"):
        Pretrained.open(toy_model, wide, "cpu")

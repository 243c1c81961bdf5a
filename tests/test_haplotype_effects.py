from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy_genotypes import random_calls, random_sites, write_cohort
from toys import WIDTH, World

from genebert import haplotype_effects as module
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.haplotype_effects import HaplotypeEffects, haplotype_effects, tf_changes
from genebert.haplotypes import CohortHaplotypes, read_haplotypes
from genebert.inputs.genome import Genome
from genebert.inputs.motif_changes import motif_changes
from genebert.labelled import LabelledFiles, read_labelled
from genebert.methods.base import Examples, Place
from genebert.methods.genebert import shown_of
from genebert.methods.motif_trees import MotifTrees
from genebert.predictor import Ensemble, Predictor
from genebert.schema import Variant, decode, reverse_complement
from genebert.tokens import sequence_tokens


@pytest.fixture(scope="module")
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


@pytest.fixture(scope="module")
def cohort(toy: Corpus, genome: Genome, tmp_path_factory: pytest.TempPathFactory) -> CohortHaplotypes:
    """20 individuals in three regions of the test chromosome, of which the second has no variants, and two overlap."""
    starts = toy.regions.loc[toy.regions["chrom"] == "chr3", "start"].to_numpy()[:3]
    regions = pd.DataFrame({"chrom": "chr3", "start": [starts[0], starts[1], starts[2], starts[0] + 40]})
    regions["end"] = regions["start"] + WIDTH
    generator = np.random.default_rng(0)
    letters = decode(genome.fetch("chr3", 0, genome.lengths["chr3"]))
    places = sorted(int(start + offset) for start in starts[[0, 2]] for offset in generator.integers(40, WIDTH, 4))
    lines = [
        f"chr3 {at + 1} . {ref} {','.join(alts)} {' '.join(random_calls(len(alts), 20, generator))}"
        for at, ref, alts in random_sites(letters, places, generator)
    ]
    vcf = write_cohort(tmp_path_factory.mktemp("cohort") / "v.vcf", [f"p{i}" for i in range(20)], *lines)
    return read_haplotypes(vcf, genome, regions)


@pytest.fixture(scope="module")
def predictor(toy_predictor: Path) -> Predictor:
    return Predictor.open(toy_predictor, "cpu")


@pytest.fixture(scope="module")
def effects(predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus) -> HaplotypeEffects:
    return haplotype_effects(predictor, cohort, toy, [])


def by_hand(
    predictor: Predictor, toy: Corpus, codes: np.ndarray, start: int, cell_type: int
) -> tuple[float, np.ndarray]:
    """Log-odds and states of one window, of whole networks on inputs that are put together here."""
    position = toy.line_positions(["chr3"], np.array([start + WIDTH // 2]))
    own = toy.scanner.scan(codes[None])
    probabilities, states = [], []
    for _, fitted in predictor.ensemble.members:
        model, of_strands = fitted.model, []
        matrix = Place(toy, position, own).matrix(cell_type, model.config.region_columns, WIDTH, shown_of(model.config))
        for strand in (codes, reverse_complement(codes)):
            ids, segments = map(torch.from_numpy, sequence_tokens(strand[None], model.config.k))
            with torch.inference_mode():
                probabilities.append(model(ids, segments, matrix, torch.from_numpy(strand[None])).softmax(dim=1))
                encoded = model.genebert(ids, segments, matrix)
            of_strands.append(torch.cat([encoded.sequence, encoded.region], dim=1))
        states.append(torch.stack(of_strands).mean(dim=0)[0])
    average = torch.stack(probabilities).double().mean(dim=0)[0]
    odds = float(average[1].log() - average[0].log()) / predictor.ensemble.calibration.temperature
    return odds, torch.cat(states).numpy()


def test_changes_are_those_of_whole_networks_on_both_strands(
    predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus, effects: HaplotypeEffects
) -> None:
    assert effects.cell_types == toy.cell_types
    assert effects.change.shape == (len(cohort.haplotypes), 3) and effects.change.dtype == np.float32
    assert effects.embedding is not None and effects.embedding.dtype == np.float32
    for haplotype in (0, len(cohort.haplotypes) // 2, len(cohort.haplotypes) - 1):
        region = cohort.haplotypes["region"][haplotype]
        start = int(cohort.regions["start"][region])
        pairs = [
            [by_hand(predictor, toy, codes, start, i) for codes in (cohort.reference[region], cohort.codes[haplotype])]
            for i in range(3)
        ]
        assert effects.change[haplotype] == pytest.approx([after[0] - before[0] for before, after in pairs], abs=1e-4)
        moved = np.mean([after[1] - before[1] for before, after in pairs], axis=0)
        assert effects.embedding[haplotype] == pytest.approx(moved, abs=1e-4)
    assert np.abs(effects.change).max() > 1e-3 and np.abs(effects.embedding).max() > 1e-3


def test_chosen_cell_types(
    predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus, effects: HaplotypeEffects
) -> None:
    some = haplotype_effects(predictor, cohort, toy, ["T", "B"])
    assert some.cell_types == ["T", "B"]
    assert np.array_equal(some.change, effects.change[:, [toy.cell_types.index(name) for name in some.cell_types]])


def test_a_predictor_without_a_network_has_changes_of_log_odds_and_no_states(
    predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus, toy_labels: Path, toy_world: World, toy_folder: Path
) -> None:
    labelled = read_labelled(LabelledFiles(toy_labels, genome=toy_world.genome, corpus=toy_folder), predictor.scanner)
    trees = MotifTrees(trees=60, learning_rate=0.1, least_rows=10).fit(
        labelled.examples("train"), labelled.examples("valid"), labelled.target, seed=0
    )
    alone = Ensemble(labelled.target, [("motif-trees", trees)])
    found = haplotype_effects(replace(predictor, ensemble=alone), cohort, toy, ["B"])
    assert found.embedding is None and found.change.shape == (len(cohort.haplotypes), 1) and found.change.any()

    region = cohort.haplotypes["region"].to_numpy()
    centres = cohort.regions["start"].to_numpy()[region] + WIDTH // 2
    position = toy.line_positions(["chr3"] * len(region), centres)
    cell_type, odds = toy.cell_types.index("B"), []
    for codes in (cohort.codes, cohort.reference[region]):
        examples = Place(toy, position, toy.scanner.scan(codes)).examples(codes, cell_type)
        first, second = trees.predict(examples).T
        odds.append(np.log(second) - np.log(first))
    np.testing.assert_allclose(found.change[:, 0], odds[0] - odds[1], atol=1e-5)


def test_each_distinct_sequence_is_read_once(
    predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    sound = module._Sequences.readings
    monkeypatch.setattr(
        module._Sequences, "readings", lambda self, rows: read.append(len(self.codes[rows])) or sound(self, rows)
    )
    haplotype_effects(predictor, cohort, toy, ["B"])
    assert sum(read) == len(cohort.haplotypes) + cohort.haplotypes["region"].nunique()
    assert cohort.haplotypes["region"].nunique() == 3  # the reference of a region without variants is not read


def test_a_killed_run_goes_on_and_ends_as_any_other(
    predictor: Predictor,
    cohort: CohortHaplotypes,
    toy: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "BLOCK", 16)
    whole = haplotype_effects(predictor, cohort, toy, [], tmp_path / "whole")
    sound, read = module._read_block, []

    def dying(sequences: object, rows: slice) -> object:
        read.append(rows.start)
        if len(read) == 3:
            raise KeyboardInterrupt
        return sound(sequences, rows)

    monkeypatch.setattr(module, "_read_block", dying)
    with pytest.raises(KeyboardInterrupt):
        haplotype_effects(predictor, cohort, toy, [], tmp_path / "killed")
    resumed = haplotype_effects(predictor, cohort, toy, [], tmp_path / "killed")
    assert read[:4] == [0, 16, 32, 32] and len(read) == len(list((tmp_path / "whole").iterdir())) + 1
    assert resumed.change.tobytes() == whole.change.tobytes()
    assert resumed.embedding.tobytes() == whole.embedding.tobytes()
    assert not list((tmp_path / "killed").rglob("*.pkl"))


def test_a_predictor_without_cell_types(sequence_predictor: Path, cohort: CohortHaplotypes, genome: Genome) -> None:
    predictor = Predictor.open(sequence_predictor, "cpu")
    regions = cohort.regions.assign(end=cohort.regions["start"] + predictor.width)
    reference = cohort.reference[:, : predictor.width]
    narrow = CohortHaplotypes(
        **{**vars(cohort), "regions": regions, "reference": reference, "codes": cohort.codes[:, : predictor.width]}
    )
    effects = haplotype_effects(predictor, narrow, None, [])
    assert effects.cell_types == ["all"]
    before = predictor.ensemble.predict(Examples(reference[narrow.haplotypes["region"]], predictor.scanner))
    after = predictor.ensemble.predict(Examples(narrow.codes, predictor.scanner))
    expected = np.log(after[:, 1] / after[:, 0]) - np.log(before[:, 1] / before[:, 0])
    assert effects.change[:, 0] == pytest.approx(expected, abs=1e-4)
    same = (narrow.codes == reference[narrow.haplotypes["region"]]).all(axis=1)
    assert same.any() and np.abs(effects.change[same]).max() < 1e-5 and np.abs(effects.embedding[same]).max() < 1e-5
    with pytest.raises(UserError, match=r"cell types B are asked for, and the model knows none\. Leave"):
        haplotype_effects(predictor, narrow, None, ["B"])


def test_what_cannot_be_scored(predictor: Predictor, cohort: CohortHaplotypes, toy: Corpus) -> None:
    with pytest.raises(UserError, match="no cell type 'Treg'"):
        haplotype_effects(predictor, cohort, toy, ["Treg"])
    wide = CohortHaplotypes(**{**vars(cohort), "reference": np.zeros((4, WIDTH + 1), dtype=np.uint8)})
    with pytest.raises(ValueError, match=f"{WIDTH + 1} bp, and the model reads {WIDTH} bp"):
        haplotype_effects(predictor, wide, toy, [])
    oriented = Predictor(**{**vars(predictor), "oriented": True})
    with pytest.raises(UserError, match=r"oriented windows.*without --oriented"):
        haplotype_effects(oriented, cohort, toy, [])


def test_motif_changes_of_every_row(cohort: CohortHaplotypes, toy: Corpus, genome: Genome) -> None:
    found = tf_changes(toy.scanner, genome, cohort)
    assert found.shape == (len(cohort.variants), len(toy.motifs)) and found.dtype == np.float32
    assert cohort.variants["name"].duplicated().any()  # two regions overlap
    for row, variant in zip(found, cohort.variants.itertuples(), strict=True):
        alone = Variant(variant.chrom, variant.position - 1, variant.ref, variant.alt)
        assert np.array_equal(row, motif_changes(genome, toy.scanner, [alone])[0])

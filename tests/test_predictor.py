import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
import torch
import toys
from numpy.typing import NDArray
from scipy.special import softmax
from toy_models import small

from genebert import predictor
from genebert.calibration import Calibration
from genebert.corpus.store import Corpus
from genebert.errors import UserError
from genebert.inputs.scan import Scanner
from genebert.methods import method_class
from genebert.methods.base import Examples, Fitted, Place
from genebert.methods.genebert import FittedGeneBert
from genebert.model.genebert import GeneBertForSequenceClassification
from genebert.predictor import Ensemble, Predictor
from genebert.settings import Device
from genebert.stage import read_manifest
from genebert.target import Target
from genebert.tasks.windows import Windows

TWO = Target("classes", ("no", "yes"))
NUMBER = Target("value", ("value",), 5.0, 2.0)
SCANNER = Scanner([toys.consensus_motif(name, name, 0.9) for name in ("GATAAG", "CACGTG", "TGACTCA")])


@dataclass(frozen=True)
class Constant(Fitted):
    """Predicts the same for every window."""

    prediction: tuple[float, ...]

    def predict(self, examples: Examples) -> NDArray[np.float64]:
        return np.tile(self.prediction, (len(examples), 1))

    def save(self, folder: Path) -> None:
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path, target: Target, device: Device) -> Self:
        raise NotImplementedError


def windows(rows: int = 6) -> Examples:
    codes = np.random.default_rng(0).integers(0, 4, size=(rows, 60), dtype=np.uint8)
    return Examples(codes, SCANNER)


def network(seed: int, target: Target = TWO, **changes: Any) -> FittedGeneBert:
    torch.manual_seed(seed)
    config = small(motifs=3, num_labels=len(target.names), **changes)
    return FittedGeneBert(GeneBertForSequenceClassification(config).eval(), target)


def test_each_method_counts_once_whatever_its_number_of_seeds() -> None:
    members = [("a", Constant((0.2, 0.8))), ("b", Constant((0.9, 0.1))), ("a", Constant((0.4, 0.6)))]
    found = Ensemble(TWO, members).predict(windows())
    np.testing.assert_allclose(found, [[(0.3 + 0.9) / 2, (0.7 + 0.1) / 2]] * 6)


def test_the_average_is_calibrated() -> None:
    members = [("a", Constant((0.2, 0.8))), ("b", Constant((0.4, 0.6)))]
    found = Ensemble(TWO, members, Calibration(2.0)).predict(windows(1))
    np.testing.assert_allclose(found, [softmax(np.log([0.3, 0.7]) / 2)])
    numbers = Ensemble(NUMBER, [("a", Constant((3.0,))), ("b", Constant((5.0,)))], Calibration(2.0))
    assert numbers.predict(windows(2)).tolist() == [[4], [4]]


def kmer_regression(target: Target, truth: NDArray[Any]) -> Fitted:
    examples = windows(40)
    given = Examples(examples.codes, SCANNER, truth)
    method = method_class("kmer-regression")(lengths=(2,), strengths=(1.0,))
    return method.fit(given, given, target, 0)


@pytest.mark.parametrize("target", [TWO, NUMBER], ids=lambda target: target.kind)
def test_what_was_saved_predicts_the_same(target: Target, tmp_path: Path) -> None:
    truth = np.arange(40) % 2 if target is TWO else np.arange(40.0)[:, None]
    members = [("genebert", network(0, target)), ("kmer-regression", kmer_regression(target, truth))]
    members.insert(1, ("genebert", network(1, target)))
    offsets, threshold = ((-1.5, 1.5), 0.3) if target is TWO else ((), (0.2, 0.8))
    ensemble = Ensemble(target, members, Calibration(1.7, offsets), threshold)
    ensemble.save(tmp_path, SCANNER)
    assert {path.name for path in tmp_path.iterdir()} == {"members", "predictor.json", "motifs.json"}
    names = ["0-genebert", "1-genebert", "2-kmer-regression"]
    assert sorted(path.name for path in (tmp_path / "members").iterdir()) == names
    loaded = Ensemble.load(tmp_path, "cpu")
    assert (loaded.target, loaded.calibration) == (target, Calibration(1.7, offsets))
    assert loaded.threshold == threshold
    assert [key for key, _ in loaded.members] == [key for key, _ in members]
    np.testing.assert_allclose(loaded.predict(windows()), ensemble.predict(windows()), atol=1e-6)


@pytest.fixture(scope="module")
def crowd() -> Corpus:
    return toys.random_corpus(np.random.default_rng(0), regions=60)


def test_predictions_in_cell_types_are_averaged_and_calibrated_too(crowd: Corpus) -> None:
    networks = [network(seed) for seed in range(3)]
    codes = windows(5).codes
    position = crowd.line_positions(["chr1"] * 5, np.arange(500, 5500, 1000))
    place, cell_types = Place(crowd, position, crowd.scanner.scan(codes)), np.array([3, 0])
    ensemble = Ensemble(TWO, [("genebert", one) for one in networks], Calibration(0.5))
    found = list(ensemble.predict_in_cell_types(codes, place, cell_types))
    each = [list(one.predict_in_cell_types(codes, place, cell_types)) for one in networks]
    assert len(found) == 2
    for predicted, *alone in zip(found, *each, strict=True):
        np.testing.assert_allclose(predicted, Calibration(0.5).apply(TWO, np.mean(alone, axis=0)))
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("lacking", ["offsets", "threshold"])
def test_what_an_earlier_version_wrote_is_refused(lacking: str, tmp_path: Path) -> None:
    """It once ended in a KeyError, or was read as if it were complete."""
    Ensemble(TWO, [("genebert", network(0))]).save(tmp_path, SCANNER)
    path = tmp_path / "predictor.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in facts.items() if name != lacking}))
    with pytest.raises(UserError, match=f"an earlier version made it, which did not write {lacking}. Fine-tune again"):
        Ensemble.load(tmp_path, "cpu")


def test_a_folder_that_does_not_say_whether_it_is_oriented_is_refused(
    sequence_predictor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = read_manifest(sequence_predictor, "finetune")
    del manifest.metrics["oriented"]
    monkeypatch.setattr(predictor, "read_manifest", lambda *_, **__: manifest)
    with pytest.raises(UserError, match=r"which did not write oriented\. Fine-tune again"):
        Predictor.open(sequence_predictor, "cpu")


# Opened -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def of_sequences(sequence_predictor: Path) -> Predictor:
    return Predictor.open(sequence_predictor, "cpu")


@pytest.fixture(scope="module")
def per_cell_type(toy_predictor: Path) -> Predictor:
    return Predictor.open(toy_predictor, "cpu")


def test_an_opened_predictor_knows_what_it_was_made_for(of_sequences: Predictor, per_cell_type: Predictor) -> None:
    assert (of_sequences.width, of_sequences.per_cell_type, len(of_sequences.ensemble.members)) == (60, False, 1)
    assert (per_cell_type.width, per_cell_type.per_cell_type, len(per_cell_type.ensemble.members)) == (128, True, 2)
    assert of_sequences.target == Target("classes", ("0", "1"))
    facts = read_manifest(per_cell_type.manifest.folder, "finetune").metrics
    assert facts["calibration"]["temperature"] == per_cell_type.ensemble.calibration.temperature


def test_a_corpus_is_needed_for_cell_types_only(
    of_sequences: Predictor, per_cell_type: Predictor, toy: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    assert of_sequences.need_corpus(None) is None
    assert capsys.readouterr().err == ""
    assert of_sequences.need_corpus(toy.folder) is None
    assert (
        f"--corpus {toy.folder} is not used: the model" in capsys.readouterr().err
    )  # it was passed over without a word
    with pytest.raises(UserError) as error:
        per_cell_type.need_corpus(None)
    assert str(per_cell_type.manifest.folder) in str(error.value) and "Add --corpus" in str(error.value)
    assert per_cell_type.need_corpus(toy.folder).cell_types == toy.cell_types


def of_width(width: int, rows: int = 3) -> Windows:
    codes = np.random.default_rng(1).integers(0, 4, size=(rows, width), dtype=np.uint8)
    return Windows(pd.DataFrame({"sequence_id": range(rows)}), codes, Path("given.fa"))


def test_windows_of_another_width_are_refused(of_sequences: Predictor) -> None:
    of_sequences.check_windows(of_width(60))
    for width in (59, 61):
        with pytest.raises(UserError, match=f"given.fa: its longest window has {width} bp, .* windows of 60 bp"):
            of_sequences.check_windows(of_width(width))


def test_windows_are_predicted_with_the_motifs_of_the_model(of_sequences: Predictor) -> None:
    given = of_width(60)
    expected = of_sequences.ensemble.predict(Examples(given.codes, of_sequences.scanner))
    np.testing.assert_array_equal(of_sequences.predict(given, None), expected)


def test_windows_in_their_cell_types_are_those_of_a_loop_over_cell_types(per_cell_type: Predictor, toy: Corpus) -> None:
    codes = of_width(128, rows=6).codes
    start = np.arange(1000, 7000, 1000)
    cell_types = np.array(["NK", "B", "T", "T", "B", "NK"])
    where = pd.DataFrame({"chrom": "chr3", "start": start, "end": start + 128, "cell_type": cell_types})
    found = per_cell_type.predict(Windows(where, codes, Path("given.bed")), toy)
    place = Place(toy, toy.line_positions(["chr3"] * 6, start + 64), toy.scanner.scan(codes))
    every = per_cell_type.ensemble.predict_in_cell_types(codes, place, np.arange(3))
    for name, predicted in zip(toy.cell_types, every, strict=True):
        rows = cell_types == name
        np.testing.assert_allclose(found[rows], predicted[rows], atol=1e-6)

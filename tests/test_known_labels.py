from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from toys import World

from genebert.errors import UserError
from genebert.inputs.genome import Genome
from genebert.known_labels import KnownLabels, mean_of_said, pooled, softened, with_known
from genebert.target import Target

TARGET = Target("classes", ("no", "yes"))
NUMBERED = Target("classes", ("0", "1"))
WIDE = """chrom,start,end,label:A,label:B,label:C
chr1,1000,1060,1,1,0
chr1,2000,2060,0,,1
chr1,3000,3060,,,
"""
LONG = """chrom,start,end,cell_type,label
chr1,1000,1060,A,yes
chr1,1000,1060,B,yes
chr1,1000,1060,C,no
chr1,2000,2060,A,no
chr1,2000,2060,C,yes
"""
PRIOR = 3 / 5
"""Of the five labels that are known, three are of the second class."""


@pytest.fixture
def genome(toy_world: World) -> Iterator[Genome]:
    with Genome(toy_world.genome) as opened:
        yield opened


def read(tmp_path: Path, text: str, genome: Genome, target: Target = TARGET, width: int = 60) -> KnownLabels:
    path = tmp_path / "known.csv"
    path.write_text(text)
    return KnownLabels.read(path, genome, target, width)


@pytest.mark.parametrize(("text", "target"), [(WIDE, NUMBERED), (LONG, TARGET)])
def test_other_cell_types_are_counted_and_the_share_of_all_labels_as_one_more(
    text: str, target: Target, genome: Genome, tmp_path: Path
) -> None:
    known = read(tmp_path, text, genome, target)
    asked = [("chr1", 1000, 1060, "D"), ("chr1", 1000, 1060, "C"), ("chr1", 2000, 2060, "A"), ("chr1", 1000, 1061, "D")]
    found = known.of(pd.DataFrame(asked, columns=["chrom", "start", "end", "cell_type"]))
    np.testing.assert_allclose(found, [(2 + PRIOR) / 4, (2 + PRIOR) / 3, (1 + PRIOR) / 2, np.nan])


def test_asking_about_the_very_windows_changes_nothing_that_is_known(genome: Genome, tmp_path: Path) -> None:
    known = read(tmp_path, LONG, genome)
    windows = known.truth.index.to_frame(index=False).assign(cell_type="A")
    first = known.of(windows)
    np.testing.assert_allclose(first, [(1 + PRIOR) / 3, (1 + PRIOR) / 2])
    np.testing.assert_array_equal(known.of(windows), first)


def test_windows_are_widened_as_those_to_predict_are(genome: Genome, tmp_path: Path) -> None:
    known = read(tmp_path, LONG, genome, width=80)
    windows = pd.DataFrame({"chrom": ["chr1"], "start": [990], "end": [1070], "cell_type": ["D"]})
    np.testing.assert_allclose(known.of(windows), [(2 + PRIOR) / 4])


def test_log_odds_are_averaged_and_kept_finite() -> None:
    # odds of 9 and 1/4, whose geometric mean is 3/2; and of 1 and 999,999
    found = pooled(np.array([[0.9, 0.5], [0.2, 1.0]]))
    np.testing.assert_allclose(found, [0.6, np.sqrt(999_999) / (1 + np.sqrt(999_999))])


def test_what_a_member_does_not_say_the_others_say_alone() -> None:
    members = np.array([[0.9, np.nan, np.nan], [0.2, 0.3, np.nan]])
    np.testing.assert_allclose(pooled(members), [0.6, 0.3, np.nan])
    np.testing.assert_allclose(mean_of_said(members), [0.55, 0.3, np.nan])


def test_a_mean_of_few_labels_is_drawn_further() -> None:
    np.testing.assert_allclose(softened(np.array([1.0, 1.0]), np.array([1, 4]), 0.1), [0.55, 4.1 / 5])


def test_predictions_stay_where_nothing_is_known() -> None:
    predicted = np.array([[0.1, 0.9], [1 - 1e-9, 1e-9]])
    np.testing.assert_allclose(with_known(predicted, np.array([0.2, np.nan])), [[0.4, 0.6], [1, 1e-9]])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sequence,label\nACGTACGTACGT,yes\n", "no coordinates.*and no `sequence`"),
        (WIDE, "its labels are 0 and 1, and the model's classes are no, yes"),
        (LONG + "chr1,1000,1060,A,no\n", "chr1:1000-1060, A: several rows say different things"),
        ("chrom,start,end,label\nchr1,1000,1060,yes\n", "names no cell types"),
        ("chrom,start,end,cell_type,label\nchr1,1000,1060,A,maybe\n", "does not know: maybe.*classes are no, yes"),
        ("chrom,start,end,cell_type,value\nchr1,1000,1060,A,0.3\n", "no `label`"),
        ("chrom,start,end,cell_type,label\nchr1,1000,1060,A,yes\nchr9,5,65,A,no\n", "chr9"),
    ],
)
def test_labels_that_cannot_be_used(text: str, problem: str, genome: Genome, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=problem):
        read(tmp_path, text, genome)


def test_without_any_label_there_is_nothing_to_know(genome: Genome, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no label is known"):
        read(tmp_path, "chrom,start,end,label:A\nchr1,1000,1060,\n", genome, NUMBERED)

import numpy as np
import pandas as pd

from genebert.explanation.tables import importance_rows, means, pair_rows
from genebert.resampling import region_weights

MOTIFS = pd.DataFrame({"motif": ["m0", "m1", "m2"], "name": ["A", "B", "C"]})
WEIGHTS = region_weights(np.arange(4))
WINDOWS = [np.array([0, 1]), np.array([3, 1, 2])]
EFFECTS = [
    np.array([[1, -2, 0], [3, 2, 0]], dtype=np.float32),
    np.array([[0, 1, 0], [0, 1, 0], [3, 1, 0]], dtype=np.float32),
]


def test_means_of_each_resample_are_those_of_the_windows_drawn() -> None:
    found = means(WEIGHTS, WINDOWS, EFFECTS)
    assert found.shape == (2, 1001, 3)
    assert found[0, 0].tolist() == [2, 0, 0] and found[1, 0].tolist() == [1, 1, 0]
    for resample in (1, 17, 1000):
        drawn = np.repeat(EFFECTS[1], WEIGHTS[resample, [3, 1, 2]].astype(int), axis=0)
        assert np.allclose(found[1, resample], drawn.mean(axis=0) if len(drawn) else np.nan, equal_nan=True)
    none = WEIGHTS[:, WINDOWS[0]].sum(axis=1) == 0
    assert none.any() and (np.isnan(found[0]).all(axis=1) == none).all()


def test_resamples_without_a_region_of_a_cell_type_do_not_count_as_without_an_effect() -> None:
    """Two regions with effects of 1.0 and 1.1 once had an interval from 0 on, and the other cell type with them."""
    weights = region_weights(np.arange(40))
    windows = [np.array([0, 1]), np.arange(2, 40)]
    effects = [np.full((2, 1), 1.0, dtype=np.float32), np.full((38, 1), 0.5, dtype=np.float32)]
    effects[0][1] = 1.1
    table = importance_rows(["few", "many"], MOTIFS[:1], "occlusion, all", weights, windows, effects)
    assert table["effect_low"].tolist() == [1.0, 0.5] and table["effect_high"].iloc[0] == np.float32(1.1)
    assert table["specific_low"].iloc[1] == (0.5 - np.float32(1.1)) / 2


def test_rows_by_hand() -> None:
    table = importance_rows(["x", "y"], MOTIFS, "occlusion, all", WEIGHTS, WINDOWS, EFFECTS)
    x = table[table["cell_type"] == "x"].set_index("motif")
    assert x["effect"].tolist() == [2, 0, 0]
    assert x["absolute"].tolist() == [2, 2, 0]
    assert x["rank"].tolist() == [1.5, 1.5, 3]
    assert x["specific"].tolist() == [0.5, -0.5, 0]
    y = table[table["cell_type"] == "y"].set_index("motif")
    assert y["specific"].tolist() == [-0.5, 0.5, 0]
    assert (y.loc["m1", ["effect_low", "effect_high"]] == 1).all()  # the same in every region: no doubt about it
    assert y.loc["m0", "effect_low"] == 0 and y.loc["m0", "effect_high"] > 2
    for name in ("effect", "absolute", "rank", "specific"):
        assert (table[f"{name}_low"] <= table[name]).all() and (table[name] <= table[f"{name}_high"]).all()
    assert list(table)[:4] == ["cell_type", "motif", "name", "measure"]


def test_pairs_by_hand() -> None:
    joint = np.array([[3.0, 1.0], [5.0, 1.0]], dtype=np.float32)
    interaction = np.array([[1.0, 0.0], [2.0, 0.0]], dtype=np.float32)
    found = pair_rows("x", MOTIFS, [(0, 2), (1, 2)], WEIGHTS, WINDOWS[0], joint, interaction)
    assert found["first_name"].tolist() == ["A", "B"] and found["second"].tolist() == ["m2", "m2"]
    assert found["joint"].tolist() == [4, 1] and found["interaction"].tolist() == [1.5, 0]
    assert found.loc[0, "interaction_low"] == 0 or found.loc[0, "interaction_low"] == 1
    assert found.loc[0, "interaction_high"] == 2

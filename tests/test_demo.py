from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from genebert.demo import Inputs, read_data, truth_agreement
from genebert.errors import UserError
from genebert.settings import CONFIGS


@pytest.mark.parametrize("path", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_shipped_description_of_a_data_folder_is_valid(path: Path) -> None:
    inputs = Inputs.model_validate(yaml.safe_load(path.read_text()))
    assert not set(inputs.valid_chromosomes) & set(inputs.test_chromosomes)


def test_absent_files_and_descriptions_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"inputs\.yaml: there is no such file.*blood\.yaml"):
        read_data(tmp_path, "inputs.yaml")
    (tmp_path / "tss.bed").write_text("x")
    with pytest.raises(UserError) as error:
        read_data(tmp_path, "blood.yaml")
    assert "hg19_windows.fa.gz" in str(error.value) and "tss.bed" not in str(error.value)
    (tmp_path / "inputs.yaml").write_text("genome: g.fa\npeeks: p\n")
    with pytest.raises(UserError) as error:
        read_data(tmp_path, "inputs.yaml")
    heading, *lines = str(error.value).splitlines()
    assert heading == f"The description of a data folder {tmp_path / 'inputs.yaml'} cannot be used:"
    assert "  - peeks: there is no such key. See the README for its keys." in lines
    assert "  - vcf: it is required. Add it." in lines


def test_motifs_may_be_those_of_jaspar_and_names_of_chromosomes_numbers(tmp_path: Path) -> None:
    for name in ("g.fa", "p.narrowPeak", "tss.bed", "v.vcf"):
        (tmp_path / name).write_text("x")
    files = "genome: g.fa\npeaks: p.narrowPeak\ntss: tss.bed\nvcf: v.vcf\n"
    (tmp_path / "inputs.yaml").write_text(
        f"{files}motifs: jaspar:vertebrates\nvalid_chromosomes: [8]\ntest_chromosomes: [9, X]\n"
    )
    data = read_data(tmp_path, "inputs.yaml")
    assert data.motifs == "jaspar:vertebrates" and "motifs" not in data.files()
    assert data["genome"] == tmp_path / "g.fa"
    assert (data.inputs.valid_chromosomes, data.inputs.test_chromosomes) == (["8"], ["9", "X"])
    (tmp_path / "inputs.yaml").write_text(f"{files}motifs: m.meme\nvalid_chromosomes: [a]\ntest_chromosomes: [b]\n")
    with pytest.raises(UserError, match=r"files that it names are absent: .*m\.meme"):
        read_data(tmp_path, "inputs.yaml")


def test_agreement_with_the_truth_is_the_rank_correlation_of_pairs_on_the_chosen_chromosomes(tmp_path: Path) -> None:
    rows = [("a", "chr1", "B", 9.0), ("b", "chr2", "B", 0.1), ("b", "chr2", "T", 0.3), ("c", "chr2", "B", 0.2)]
    pd.DataFrame(rows, columns=["id", "chrom", "cell_type", "difference"]).to_csv(tmp_path / "s", sep="\t", index=False)
    truth = {"id": ["a", "b", "c"], "delta_B": [-1.0, 2.0, 1.0], "delta_T": [0.0, 3.0, 0.0]}
    pd.DataFrame(truth).to_csv(tmp_path / "t", sep="\t", index=False)
    estimate, n = truth_agreement(tmp_path / "s", tmp_path / "t", ["chr2"])
    # predicted .1 .3 .2 against true 2 3 1: ranks 1 3 2 against 2 3 1, so 1 - 6 * (1 + 0 + 1) / (3 * 8) = 0.5
    assert (estimate.value, n) == (pytest.approx(0.5), 3)


def test_cell_types_of_a_variant_are_drawn_together(tmp_path: Path) -> None:
    """They share most of what is wrong about it: drawn one by one, the interval was too narrow."""
    generator = np.random.default_rng(0)
    truth = generator.normal(size=60)
    noisy = truth + generator.normal(size=60)
    names = [f"v{i}" for i in range(60)]
    found = {}
    for count in (1, 8):
        own = [(name, "chr1", f"T{j}", noisy[i]) for i, name in enumerate(names) for j in range(count)]
        pd.DataFrame(own, columns=["id", "chrom", "cell_type", "difference"]).to_csv(tmp_path / "s", sep="\t")
        columns = {f"delta_T{j}": truth for j in range(count)}
        pd.DataFrame({"id": names, **columns}).to_csv(tmp_path / "t", sep="\t", index=False)
        found[count] = truth_agreement(tmp_path / "s", tmp_path / "t", ["chr1"])[0]
    assert found[8].low == pytest.approx(found[1].low) and found[8].high == pytest.approx(found[1].high)

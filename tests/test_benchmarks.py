"""The benchmarks run, at a size that says nothing of speed: what they call has moved under them before."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from toys import World

from genebert.corpus.store import Corpus
from genebert.inputs.motifs import read_motifs
from genebert.schema import SPLITS, N, decode, encode, reverse_complement
from genebert.stage import read_manifest
from genebert.tokens import DIGIT_OF_CODE, sequence_tokens

FOLDER = Path(__file__).parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))  # they import each other, as scripts do

ablation, composition, dnabert_style, masking, motifs_without_chip = map(
    import_module, ("ablation", "composition", "dnabert_style", "masking", "motifs_without_chip")
)
pretraining, sequence_corpus, variant_speed = map(import_module, ("pretraining", "sequence_corpus", "variant_speed"))


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_of_corpus", FOLDER / "corpus.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def output(command: str, corpus: Path, *words: str) -> Any:
    made = CliRunner().invoke(pretraining.main, [command, "--corpus", str(corpus), *words], catch_exceptions=False)
    assert made.exit_code == 0, made.output
    facts = json.loads(made.stdout)
    assert facts["machine"] and facts["command"].startswith("python benchmarks/")
    return facts


def test_genebert_and_bioframe_keep_the_same_windows(benchmark: ModuleType) -> None:
    rng = np.random.default_rng(0)
    start = rng.integers(0, 60_000, 800)
    columns = {"chrom": rng.choice(["chr1", "chr2"], 800), "start": start, "score": rng.random(800).round(2)}
    windows = pd.DataFrame({**columns, "cell_type": rng.integers(0, 4, 800), "end": start + benchmark.WIDTH})
    kept = benchmark.with_genebert(windows)
    assert 100 < len(kept) < 250
    pd.testing.assert_frame_equal(kept, benchmark.with_bioframe(windows), check_dtype=False)


def test_the_simulated_atlas_is_prepared_and_read(benchmark: ModuleType, tmp_path: Path) -> None:
    atlas = benchmark.Atlas(tmp_path / "inputs", 0.0002)
    atlas.simulate()
    found = benchmark.run_prepare(atlas, tmp_path / "corpus", workers=1)
    assert (found["regions"], found["cell_types"], found["motifs"]) == (210, 54, 1000)
    assert found["phases"].keys() == {"reading peaks", "finding regions", "measuring signal", "scanning motifs"}
    benchmark.read.callback(folder=tmp_path / "corpus", batch=8, seconds=0.01)


def test_neighbours_of_the_same_composition_are_found_to_be_alike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shares = rng.dirichlet([4, 4, 4, 4], 400)
    blocks = [rng.choice(list("ACGT"), 512, p=share) for share in shares]
    (tmp_path / "alike.fa").write_text(">chr1\n" + "".join(map("".join, blocks)) + "\n>chr2\n" + 100 * "N" + "\n")
    (tmp_path / "random.fa").write_text(">chr1\n" + "".join(rng.choice(list("ACGT"), 200_000)) + "\n")
    found = {name: composition.facts(composition.pairs(tmp_path / name, 2000, 0)) for name in ("alike.fa", "random.fa")}
    for name in ("GC content", "AT skew", "GC skew"):
        assert found["alike.fa"][name]["correlation_of_neighbours"] > 0.5
        assert abs(found["random.fa"][name]["correlation_of_neighbours"]) < 0.1
    assert found["random.fa"]["CpG"]["mean"] == pytest.approx(1, abs=0.05)
    codes = np.zeros((1, 128), np.uint8)
    codes[0, 1:9:2] = 1  # ACACACAC, then A only
    assert {name: value.item() for name, value in composition.measures(codes).items()} == pytest.approx(
        {
            "GC content": 4 / 128,
            "AT skew": 124 / 125,
            "GC skew": -4 / 5,
            "CpG": 1,
            "TpA": 1,
            "ApA or TpT": ((119 + 0.5) / (124 * 124 / 128 + 0.5) + 1) / 2,
        }
    )


# ------------------------------------------------------------------------------------------- the DNABERT-style rival


@pytest.mark.parametrize("k", [3, 6])
def test_the_rival_makes_the_same_tokens_from_text(k: int, tmp_path: Path) -> None:
    codes = np.random.default_rng(k).integers(0, 4, (5, 100)).astype(np.uint8)
    pairs = [(decode(row[:50]), decode(row[50:])) for row in codes]
    ids, segments = sequence_tokens(codes, k)
    for tokenizer in (dnabert_style.slow_tokenizer(k, tmp_path), dnabert_style.fast_tokenizer(k)):
        found = dnabert_style.tokenized(pairs, k, tokenizer)
        made = np.array(found["input_ids"])
        assert made.shape == (5, dnabert_style.TOKENS)
        np.testing.assert_array_equal(made[:, : ids.shape[1]], ids)
        assert (made[:, ids.shape[1] :] == 0).all()
        np.testing.assert_array_equal(np.array(found["token_type_ids"])[:, : ids.shape[1]], segments)


def rival_batch(pairs: int, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens of random pairs of 100 bases, the same masked, and the labels."""
    codes = np.random.default_rng(0).integers(0, 4, (pairs, 200)).astype(np.uint8)
    texts = [(decode(row[:100]), decode(row[100:])) for row in codes]
    tokenizer = dnabert_style.fast_tokenizer(k)
    ids = torch.tensor(dnabert_style.tokenized(texts, k, tokenizer)["input_ids"])
    torch.manual_seed(0)
    return ids, *dnabert_style.mask_tokens(ids.clone(), k, tokenizer)


def test_the_rival_masks_runs_of_k_tokens() -> None:
    ids, masked, labels = rival_batch(200, 6)
    chosen = labels != dnabert_style.IGNORED
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(masked[~chosen], ids[~chosen])
    assert not chosen[ids < 5].any()  # special tokens and padding
    inner = chosen[:, 1:96]  # the first segment's 95 tokens
    edges = np.diff(np.pad(inner.numpy().astype(int), ((0, 0), (1, 1))))
    begin, end = np.nonzero(edges == 1), np.nonzero(edges == -1)
    length, cut = end[1] - begin[1], (begin[1] == 0) | (end[1] == 95)
    assert (length[~cut] >= 6).all() and (length[~cut] == 6).mean() > 0.7
    assert chosen[ids >= 5].float().mean() == pytest.approx(0.15, abs=0.02)
    parts = [(masked[chosen] == value).float().mean() for value in (4, ids[chosen])]
    assert parts == pytest.approx([0.8, 0.1], abs=0.02)


def test_the_rival_pays_no_attention_to_what_is_cut_off(tmp_path: Path) -> None:
    pipeline = dnabert_style.Pipeline([("ACGTACGT", "TTTTGGGG")], [1], 3, dnabert_style.fast_tokenizer(3))
    batch = pipeline.batch(0, 2)
    assert batch["next_sentence_label"].tolist() == [0, 0]  # the second follows the first
    assert dnabert_style.without_padding(batch, 15)["input_ids"].shape == (2, 15)
    batch["labels"][0, 14] = 7
    with pytest.raises(AssertionError, match="only padding"):
        dnabert_style.without_padding(batch, 14)


# ----------------------------------------------------------------------------------------------------------- masking


def one_run(k: int, tokens: range) -> Any:
    """AAAA... in two halves of 20 bases, with a run of masked tokens in the first."""
    chosen = np.zeros((1, 2 * (20 - k + 1) + 3), dtype=bool)
    chosen[0, [1 + token for token in tokens]] = True
    return masking.Masked(np.zeros((1, 40), dtype=np.int64), chosen, chosen, k)


@pytest.mark.parametrize(("guess", "right"), [(0, 1.0), (3, 0.0)])
def test_k_contiguous_tokens_hide_one_base(guess: int, right: float) -> None:
    """The bug of the usual recipe, counted: whoever guesses that base has all k tokens."""
    found = masking.tokens_given_away(one_run(4, range(8, 12)), {"reader": np.full(4**5, guess)})
    assert found["hidden_bases_per_example"] == 1
    assert found["hidden_bases_per_masked_token"] == 1
    assert found["bases_revealed"] == 0.75
    assert found["tokens_with_one_hidden_base"] == 1
    assert found["tokens_right"] == {"reader": right}


def test_a_run_at_the_border_hides_more() -> None:
    found = masking.tokens_given_away(one_run(4, range(4)), {})
    assert found["hidden_bases_per_example"] == 4
    assert found["hidden_bases_per_masked_token"] == (4 + 3 + 2 + 1) / 4


def test_a_base_that_a_visible_token_covers_is_found() -> None:
    run = one_run(3, range(5, 8))
    with pytest.raises(AssertionError, match="visible token"):
        masking.bases_given_away(run, {})
    scored = np.zeros_like(run.scored)
    scored[0, 1 + 6] = True  # the middle token: its central base is the one that is hidden
    assert masking.bases_given_away(replace(run, scored=scored), {})["hidden_bases_per_example"] == 1


def test_a_reader_goes_on_from_what_it_has_read() -> None:
    after = np.zeros(4**5, dtype=np.int64)
    after[[int("00001", 4), int("00012", 4)]] = 2, 3  # AAAAT is followed by C, AAATC by G
    digits = DIGIT_OF_CODE[np.array([[0, 0, 0, 0, 3, 1, 2, 0]])]  # AAAATCGA
    shown = np.array([[True, True, True, True, True, False, False, True]])
    assert masking.read(digits, shown, after).tolist() == digits.tolist()


@pytest.mark.parametrize("k", masking.LENGTHS)
def test_both_implementations_of_the_recipe_agree(k: int) -> None:
    codes = np.random.default_rng(k).integers(0, 4, (400, 256)).astype(np.uint8)
    found = masking.recipes(codes, k, {})
    described, ours = found["dnabert, as described"], found["dnabert, in genebert"]
    for name in ("tokens_masked", "bases_revealed", "hidden_bases_per_masked_token"):
        assert ours[name] == pytest.approx(described[name], rel=0.05)
    assert found["hidden-bases"]["hidden_bases_per_example"] > 2 * ours["hidden_bases_per_example"]


def test_masking_is_measured_on_held_out_regions(toy_folder: Path, toy: Corpus) -> None:
    found = output("masking", toy_folder)
    whole = ~(toy.sequence == N).any(axis=1)
    assert found["regions"] == (whole & (toy.split == SPLITS.index("test"))).sum()
    assert found["k = 6"]["hidden-bases"]["bases_right"].keys() == {"majority base", "order-5 Markov"}


# ------------------------------------------------------------------------------------------------ speed of pre-training


SMALL = ("--preset", "tiny", "--precision", "fp32", "--batch", "4", "--steps", "1", "--runs", "1", "--threads", "1")


def test_data_sides_are_compared(toy_folder: Path) -> None:
    found = output(
        "data",
        toy_folder,
        "--preset",
        "tiny",
        "--batch",
        "32",
        "--rival-batch",
        "4",
        "--runs",
        "1",
        "--seconds",
        "0.01",
    )
    assert found["motifs"] == 6
    ratios = found["whole_batches_are_faster_by"]
    speeds = found["examples_per_second"]
    for name in pretraining.RIVAL_DATA:
        assert ratios[name] == pytest.approx(speeds["genebert"] / speeds[name], rel=0.01)


def test_steps_are_compared(toy_folder: Path) -> None:
    found = output("step", toy_folder, *SMALL)["fp32"]
    assert found["examples_per_second"].keys() == {*pretraining.RIVALS, *pretraining.OURS}
    shares = found["shares_of_our_time"]
    assert "Swin, forward" not in shares[pretraining.OURS[0]]  # as it is off, it costs nothing
    for parts in shares.values():
        assert min(parts.values()) > 0 and sum(parts.values()) == pytest.approx(1, abs=0.001)


def test_levers_are_pulled(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (pretraining.LEVERS, pretraining.OUR_LEVERS):
        for name in table.keys() - {"as it comes", "eager attention"}:
            monkeypatch.delitem(table, name)
    found = output("levers", toy_folder, *SMALL)["fp32"]
    assert found["BertForPreTraining"].keys() == pretraining.LEVERS.keys()
    assert found["genebert"]["as it comes"] == 1


def test_operations_are_those_that_torch_counts(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "PRODUCTS", ((64, 64, 64), (0, 0, 0)))
    found = output("flops", toy_folder, *SMALL)["fp32"]
    for name in pretraining.OURS:
        assert found[name]["counted_by_torch_over_that"] == pytest.approx(1, abs=0.001)


def test_a_device_is_measured_at_several_batch_sizes(toy_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining, "PRODUCTS", ((64, 64, 64), (0, 0, 0)))
    words = ("--device", "cpu", "--preset", "tiny", "--precision", "fp32", "--batches", "4,8", "--steps", "1")
    rows = output("device", toy_folder, *words, "--no-compile")["rows"]
    assert [row["batch"] for row in rows] == [4, 8]
    for row in rows:
        hours = pretraining.EXAMPLES / row["examples_per_second"] / 3600
        assert row["hours_for_17,000,000_examples"] == pytest.approx(hours, rel=0.01)


# ---------------------------------------------------------------------------------------------------------- ablation


def ablate(*words: str) -> Any:
    return CliRunner().invoke(ablation.main, words)


def test_finished_runs_are_put_together_and_failed_ones_named(
    toy_folder: Path, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run of the plain variant is there already; that of another cannot start, its place being taken."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    plain, taken = (tmp_path / "runs" / name for name in ("as-the-preset-has-it", "without-MGM"))
    shutil.copytree(toy_model, plain / "seed-0")
    (taken / "seed-0").mkdir(parents=True)
    (taken / "seed-0" / "thesis.txt").write_text("mine")
    words = ("--corpus", str(toy_folder), "--out", str(tmp_path), "--epochs", "2", "--batch-size", "16", "--seeds", "1")
    made = ablate(*words, "--only", f"{ablation.PLAIN},without MGM")
    assert made.exit_code != 0 and "without-MGM, seed-0: failed" in made.stderr
    assert (taken / "seed-0" / "thesis.txt").exists()
    facts = json.loads((tmp_path / "ablation.json").read_text())
    measured = read_manifest(toy_model).metrics["evaluation"]
    assert [row["variants"][ablation.PLAIN]["values"] for row in facts["rows"]] == [
        [row["model"]["value"]] for row in measured
    ]
    text = (tmp_path / "ablation.md").read_text()
    assert all(f"## {row['task']}: {row['regions']} chromosomes" in text for row in measured)


def test_only_known_variants_are_taken(toy_folder: Path, tmp_path: Path) -> None:
    made = ablate("--corpus", str(toy_folder), "--out", str(tmp_path), "--only", "without BERT")
    assert made.exit_code == click.UsageError.exit_code and "without NGSP" in made.output


def evaluated(values: dict[str, float], chance: float) -> Any:
    """What a run's manifest says of some metrics of one task."""
    return {
        ("test", "train", "SRM", metric): {
            "task": "SRM",
            "metric": metric,
            "model": {"value": value},
            "baselines": {"chance": {"value": chance}},
            "n": 64,
        }
        for metric, value in values.items()
    }


def test_variants_are_compared_seed_by_seed() -> None:
    key = ("test", "train", "SRM", "at 1")
    runs = {
        ablation.PLAIN: {seed: evaluated({"at 1": value}, 0.1) for seed, value in enumerate((0.2, 0.3, 0.4))},
        "better": {seed: evaluated({"at 1": value}, 0.1) for seed, value in enumerate((0.25, 0.35, 0.41))},
        "other": {seed: evaluated({"at 1": value}, 0.2) for seed, value in enumerate((0.5, 0.2, 0.1))},
        "two seeds": {seed: evaluated({"at 1": value}, 0.1) for seed, value in ((1, 0.8), (2, 0.9))},
        "none": {0: evaluated({}, 0.1)},
    }
    row = ablation.row_of(key, runs)
    assert row["variants"].keys() == {ablation.PLAIN, "better", "other", "two seeds"}
    assert row["variants"]["better"]["above_plain"] == pytest.approx([0.05, 0.05, 0.01])
    assert row["variants"]["two seeds"]["above_plain"] == pytest.approx([0.5, 0.5])
    assert row["baselines"]["chance"]["mean"] == pytest.approx((8 * 0.1 + 3 * 0.2) / 11)
    table = "".join(ablation.table_of([row], runs))
    assert "| as the preset has it | 0.300 (0.200..0.400) |" in table
    assert "| better | 0.337 (0.250..0.410) ↑ |" in table
    assert "| other | 0.267 (0.100..0.500) |" in table
    assert "| two seeds | 0.850 (0.800..0.900) |" in table
    assert "none" not in table and "| *chance* | 0.127 (0.100..0.200) |" in table


def test_motifs_of_chip_seq_are_left_out(tmp_path: Path) -> None:
    collection, kept = tmp_path / "hocomoco.meme", tmp_path / "selex.meme"
    names = ["A.H13CORE.0.PSM.A", "B.H13CORE.0.SM.B", "C.H13CORE.1.P.C", "D.H13CORE.0.GI.D"]
    matrix = "letter-probability matrix: alength= 4 w= 2\n0.7 0.1 0.1 0.1\n0.1 0.1 0.1 0.7\n"
    collection.write_text("MEME version 4\n\nALPHABET= ACGT\n\n" + "\n".join(f"MOTIF {n}\n{matrix}" for n in names))
    made = CliRunner().invoke(motifs_without_chip.main, [str(collection), str(kept)], catch_exceptions=False)
    assert made.output == "2 of 4 motifs\n"
    assert [motif.id for motif in read_motifs(str(kept))] == [names[1], names[3]]
    collection.write_text(collection.read_text().replace(names[0], "MA0001.1"))
    refused = CliRunner().invoke(motifs_without_chip.main, [str(collection), str(kept)])
    assert refused.exit_code == 1 and "MA0001.1 is no name of HOCOMOCO" in refused.output


def test_a_corpus_of_sequences_holds_nothing_of_the_rows_to_be_tested_on(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    first, second, third = (decode(generator.integers(0, 4, 101).astype(np.uint8)) for _ in range(3))
    mirrored = decode(reverse_complement(encode(second).codes[None])[0])
    (tmp_path / "train.csv").write_text(f"sequence\n{first}\n{second}\n")
    (tmp_path / "test.csv").write_text(f"sequence\n{third[:60]}{mirrored[-41:]}\n{third[:40]}\n")
    windows = sequence_corpus.pieces(tmp_path / "train.csv", 50)
    assert windows == [first[:50], first[50:100], second[:50], second[50:100]]
    # the other strand of `second` ends with what begins it, 41 bases of which the test row has
    assert sequence_corpus.apart_from(windows, tmp_path / "test.csv") == [*windows[:2], windows[3]]


def test_variants_are_scored_both_ways(toy_folder: Path, toy_world: World) -> None:
    """That both give the same is asserted by the benchmark itself."""
    words = ["--corpus", str(toy_folder), "--genome", str(toy_world.genome), "--preset", "tiny"]
    words += ["--variants", "3", "--per-region", "2", "--pairs", "2", "--runs", "1"]
    made = CliRunner().invoke(variant_speed.main, words, catch_exceptions=False)
    assert made.exit_code == 0, made.output
    (row,) = json.loads(made.stdout)["rows"]
    assert (row["variants"], row["cell_types"]) == (3, 3)
    assert row["largest_difference_between_both"] < 1e-4
    assert len(row["milliseconds_per_window"]) == 4

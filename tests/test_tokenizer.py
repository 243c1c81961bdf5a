from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel, AutoTokenizer

from genebert.errors import UserError
from genebert.model.genebert import GeneBertConfig  # registers the configuration
from genebert.schema import decode
from genebert.tokenizer import KmerTokenizer
from genebert.tokens import MASK, PAD, SPECIAL_TOKENS, UNK, sequence_tokens, tokenize, vocabulary, vocabulary_size

KMER_LENGTHS = (1, 3, 4, 5, 6)
TOKENIZERS = {k: KmerTokenizer(k=k) for k in KMER_LENGTHS}
reads_a_file_it_leaves_open = pytest.mark.filterwarnings(  # transformers, when it looks for the configuration
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.mark.parametrize("k", KMER_LENGTHS)
def test_vocabulary_is_that_of_dnabert(k: int) -> None:
    expected = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("".join, product("ATCG", repeat=k))]
    assert vocabulary(k) == expected
    tokenizer = TOKENIZERS[k]
    assert tokenizer.vocab_size == len(tokenizer) == vocabulary_size(k)
    assert tokenizer.get_vocab() == {word: i for i, word in enumerate(expected)}
    assert set(tokenizer.all_special_ids) == set(range(5))
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id) == (PAD, UNK, MASK)


@given(
    k=st.sampled_from(KMER_LENGTHS),
    half=st.integers(6, 30),
    unknown=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 999),
)
def test_ids_are_those_of_the_network_s_input(k: int, half: int, unknown: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    codes = generator.integers(0, 4, size=(1, 2 * half), dtype=np.uint8)
    codes[generator.random(codes.shape) < unknown] = 4
    letters = decode(codes[0])
    encoded = TOKENIZERS[k](letters[:half], letters[half:].lower())
    ids, segments = sequence_tokens(codes, k)
    assert encoded["input_ids"] == ids[0].tolist()
    assert encoded["token_type_ids"] == segments[0].tolist()
    assert encoded["attention_mask"] == [1] * ids.shape[1]
    assert TOKENIZERS[k](letters, add_special_tokens=False)["input_ids"] == tokenize(codes, k)[0].tolist()


def test_by_hand() -> None:
    tokenizer = TOKENIZERS[3]
    assert tokenizer.tokenize("aaauN") == ["AAA", "AAT", "ATN"]
    assert tokenizer("AAATN")["input_ids"] == [2, 5, 6, UNK, 3]
    assert tokenizer("AAATR")["input_ids"] == [2, 5, 6, UNK, 3]
    assert tokenizer("AAA", "AAT")["input_ids"] == [2, 5, 3, 6, 3]
    assert tokenizer("AAA", "AAT")["token_type_ids"] == [0, 0, 0, 1, 1]
    assert tokenizer.decode([2, 5, 6, 4, 3]) == "[CLS] AAA AAT [MASK] [SEP]"
    assert tokenizer.decode([2, 5, 6, 4, 3], skip_special_tokens=True) == "AAA AAT"
    assert tokenizer("AAA", "AAT", return_special_tokens_mask=True)["special_tokens_mask"] == [1, 0, 1, 0, 1]


def test_kmers_with_spaces_are_taken_as_they_are() -> None:
    tokenizer = TOKENIZERS[3]
    assert tokenizer("AAA AAT ATN")["input_ids"] == tokenizer("AAATN")["input_ids"]
    assert tokenizer("AAA [MASK] ATC")["input_ids"] == [2, 5, MASK, 5 + 4 + 2, 3]
    assert tokenizer(tokenizer.decode(tokenizer("ACGTACC")["input_ids"][1:-1])) == tokenizer("ACGTACC")
    assert tokenizer("")["input_ids"] == [2, 3]


def test_batches_are_padded_and_cut() -> None:
    batch = TOKENIZERS[6](["ACGTACGT", "ACGTACGTA", "ACGTAC"], padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (3, 6)
    assert batch["attention_mask"].sum(1).tolist() == [5, 6, 3]
    assert (batch["input_ids"][batch["attention_mask"] == 0] == PAD).all()
    assert batch["input_ids"].dtype == torch.int64
    assert len(TOKENIZERS[6]("ACGT" * 50, truncation=True, max_length=64)["input_ids"]) == 64


@pytest.mark.parametrize("k", KMER_LENGTHS)
@reads_a_file_it_leaves_open
def test_saved_and_loaded(k: int, tmp_path: Path) -> None:
    TOKENIZERS[k].save_pretrained(tmp_path)
    GeneBertConfig(k=k).save_pretrained(tmp_path)
    assert (tmp_path / "vocab.txt").read_text().splitlines() == vocabulary(k)
    expected = TOKENIZERS[k]("ACGTTGCANACGT", "TTTTTTTT")
    for loaded in (KmerTokenizer.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)):
        assert type(loaded) is KmerTokenizer
        assert loaded.k == k
        assert loaded("ACGTTGCANACGT", "TTTTTTTT") == expected


@reads_a_file_it_leaves_open
def test_a_saved_tokenizer_knows_how_much_the_model_reads(toy_model: Path) -> None:
    model = AutoModel.from_pretrained(toy_model)
    inputs = AutoTokenizer.from_pretrained(toy_model)("ACGT" * 300, truncation=True, return_tensors="pt")
    assert inputs["input_ids"].shape == (1, model.config.max_tokens)
    assert model(**inputs).last_hidden_state.shape[1] == model.config.max_tokens


@reads_a_file_it_leaves_open
def test_a_vocabulary_as_dnabert_publishes_it_is_enough(tmp_path: Path) -> None:
    words = [*SPECIAL_TOKENS, *map("".join, product("ATCG", repeat=4))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    GeneBertConfig(k=4).save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is KmerTokenizer
    assert loaded("ACGTT") == TOKENIZERS[4]("ACGTT")


def test_added_tokens_have_ids_behind_the_others() -> None:
    tokenizer = KmerTokenizer(k=3)
    assert tokenizer.add_tokens(["[CELL]"]) == 1
    assert tokenizer("[CELL] AAA")["input_ids"] == [2, 69, 5, 3]
    assert (tokenizer.vocab_size, len(tokenizer)) == (69, 70)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ACGTXACG", "letter 5 is 'X', and that is no nucleotide"),
        ("ACG", "'ACG', which is 3 letters long, and k-mers here have 6"),
        ("ACGTAC ACG", "'ACG', which is 3 letters long"),
        ("ACGTAC[MASK]ACG", "'ACG', which is 3 letters long"),
        (">chr1", "letter 1 is '>'"),
        ("ACGTACé", "letter 7 is 'é'"),
        ("Q" * 1000, "letter 1 is 'Q'"),
    ],
)
def test_texts_that_are_no_dna(text: str, said: str) -> None:
    with pytest.raises(UserError, match=r"^the text ") as caught:
        TOKENIZERS[6](text)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("k", [None, 0, 9, -1])
def test_lengths_of_kmers_that_there_are_not(k: int | None) -> None:
    with pytest.raises(UserError, match="length of k-mers from 1 to 8, or a vocab_file"):
        KmerTokenizer(k=k)


def test_vocabularies_of_others(tmp_path: Path) -> None:
    path = tmp_path / "vocab.txt"
    for words in ([], ["[PAD]", "the", "gene"], sorted(vocabulary(3)), vocabulary(3)[:-1]):
        path.write_text("".join(f"{word}\n" for word in words))
        with pytest.raises(UserError, match="not the tokens of DNABERT in their order"):
            KmerTokenizer(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    for unreadable in (path, tmp_path / "absent"):
        with pytest.raises(UserError, match="it cannot be read"):
            KmerTokenizer(str(unreadable))
    path.write_text("".join(f"{word}\n" for word in vocabulary(3)))
    with pytest.raises(UserError, match="its k-mers have 3 letters, and k is 4"):
        KmerTokenizer(str(path), k=4)

"""The tokens of `tokens` behind the interface of Hugging Face tokenizers, and registered for AutoTokenizer."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizer

from genebert.errors import UserError, problem
from genebert.model.config import GeneBertConfig
from genebert.schema import decode, encode
from genebert.tokens import CLS, MASK, PAD, SEP, SPECIAL_TOKENS, UNK, vocabulary

_LONGEST = 8
_VOCABULARY_FILE = "vocab.txt"


class KmerTokenizer(PreTrainedTokenizer):
    """Overlapping k-mers of DNA.

    A text is a sequence in letters of either case ("ACGTTNA"; U is T), or, as for DNABERT, its k-mers with spaces
    between them ("ACG CGT GTT"). A k-mer that holds an N, or another letter of an ambiguous base, is [UNK]. Two
    texts become [CLS] A [SEP] B [SEP]. GeneBERT is trained on halves of regions: `tokenizer(first, second)`.

    Args:
        vocab_file: vocab.txt with all tokens in DNABERT's order, one in each line.
        k: length of a k-mer, 1 to 8; that of the file, if there is one.
        kwargs: of `PreTrainedTokenizer`.

    Raises:
        UserError: neither file nor k is given, the file is none of DNABERT's, or (later) a text is no DNA.
    """

    vocab_files_names = {"vocab_file": _VOCABULARY_FILE}  # noqa: RUF012
    model_input_names = ["input_ids", "token_type_ids", "attention_mask"]  # noqa: RUF012

    def __init__(self, vocab_file: str | None = None, k: int | None = None, **kwargs: Any) -> None:
        self.k = _checked(k) if vocab_file is None else _length_in(Path(vocab_file), k)
        self._words = vocabulary(self.k)
        self._ids = {word: i for i, word in enumerate(self._words)}
        names = {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
        fixed = {"k": self.k, "special_tokens_pattern": "cls_sep"}
        super().__init__(**{name: SPECIAL_TOKENS[i] for name, i in names.items()} | kwargs | fixed)

    @property
    def vocab_size(self) -> int:
        """Number of tokens, those added later not counted."""
        return len(self._words)

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token."""
        return self._ids | self._added_tokens_encoder

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str]:
        """Write vocab.txt into a folder and return its path."""
        path = Path(save_directory, f"{filename_prefix}-{_VOCABULARY_FILE}" if filename_prefix else _VOCABULARY_FILE)
        path.write_text("".join(f"{word}\n" for word in self._words))
        return (str(path),)

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        words = [_letters(word) for word in text.split()]
        if len(words) == 1:
            words = [words[0][i : i + self.k] for i in range(max(1, len(words[0]) - self.k + 1))]
        wrong = next((word for word in words if len(word) != self.k), None)
        if wrong is not None:
            raise UserError(
                problem(
                    f"the text {_shown(text)}",
                    f"it holds {_shown(wrong)}, which is {len(wrong)} letters long, and k-mers here have {self.k}",
                    f"Give a sequence of at least {self.k} bases without spaces, or k-mers of {self.k} with spaces.",
                )
            )
        return words

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, UNK)

    def _convert_id_to_token(self, index: int) -> str:
        return self._words[index]


def _letters(word: str) -> str:
    """Return a word in the letters A C G T N."""
    encoded = encode(word)
    if encoded.invalid:
        place, letter = encoded.invalid
        raise UserError(
            problem(
                f"the text {_shown(word)}",
                f"letter {place + 1} is {letter!r}, and that is no nucleotide",
                "Give DNA: A C G T, or N and the other IUPAC letters for bases that are not known.",
            )
        )
    return decode(encoded.codes)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def _checked(k: int | None) -> int:
    if k is None or not 1 <= k <= _LONGEST:
        raise UserError(problem("k", f"it is {k}", f"Give a length of k-mers from 1 to {_LONGEST}, or a vocab_file."))
    return k


def _length_in(path: Path, k: int | None) -> int:
    """Return the length of the k-mers in a vocabulary file, which has to be DNABERT's of this length."""
    try:
        words = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(problem(path, f"it cannot be read ({error})", "Give no vocab_file but k.")) from None
    found = len(words[-1]) if words else 0
    if not 1 <= found <= _LONGEST or words != vocabulary(found):
        raise UserError(
            problem(
                path,
                "these are not the tokens of DNABERT in their order",
                "Give no vocab_file but k; then the tokens are made.",
            )
        )
    if k not in (None, found):
        raise UserError(problem(path, f"its k-mers have {found} letters, and k is {k}", "Leave k out."))
    return found


AutoTokenizer.register(GeneBertConfig, KmerTokenizer)

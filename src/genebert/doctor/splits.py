"""Splits: what is held out, and how much of all it is."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from genebert.corpus.splits import check_cell_types, check_installed
from genebert.doctor.finding import Finding, attempt, judge, percent
from genebert.errors import listed
from genebert.inputs.genome import spelled_chromosomes
from genebert.schema import SPLITS, split_of
from genebert.settings import CorpusInputs

_LITTLE, _MUCH = 0.05, 0.5
_SPECIAL = {"X", "Y", "W", "Z", "M", "MT"}
_MITOCHONDRIAL = {"M", "MT"}


def examine_splits(
    settings: CorpusInputs, lengths: Mapping[str, int], cell_types: Sequence[str], places: NDArray[np.int64]
) -> list[Finding]:
    """Look at what is held out.

    Args:
        settings: name it.
        lengths: chromosome -> length in bp.
        cell_types: their names.
        places: number of places with peaks on each chromosome, int64, in the order of `lengths`.
    """
    found = list(_chromosomes(settings, lengths, places))
    asked = settings.valid_cell_types, settings.test_cell_types
    if any(asked):
        attempt(found, "splits", lambda: check_cell_types(cell_types, *asked))
    if settings.max_shared_kmers is not None:
        attempt(found, "splits", check_installed)
    return found


def _chromosomes(settings: CorpusInputs, lengths: Mapping[str, int], places: NDArray[np.int64]) -> Iterator[Finding]:
    valid, test = settings.valid_chromosomes, settings.test_chromosomes
    mapped = spelled_chromosomes([*valid, *test], lengths)
    unknown = [name for name in [*valid, *test] if name not in mapped]
    parts = [{mapped[name] for name in names if name in mapped} for names in (valid, test)]
    twice = sorted(set.intersection(*parts))
    yield judge(
        "splits",
        "chromosomes",
        f"validation on {listed(valid) or 'none'}, testing on {listed(test) or 'none'}"
        + (f"; the genome lacks {listed(unknown)}" if unknown else "")
        + (f"; {listed(twice)} in both" if twice else ""),
        [
            (bool(unknown), "wrong", f"Name chromosomes of the genome: {listed(lengths, 12)}."),
            (bool(twice), "wrong", "Name each once."),
            (not valid or not test, "look", "What is not held out cannot be measured on; name chromosomes for both."),
        ],
    )
    if places.any():
        yield _shares(parts, lengths, places)
    special = sorted(name for part in parts for name in part if _bare(name) in _SPECIAL)
    remedy = "Results on sex and mitochondrial chromosomes do not carry over to the others; hold out an autosome."
    found = listed(special) or "none is held out"
    yield judge("splits", "special chromosomes", found, [(bool(special), "look", remedy)])
    on_mitochondria = sum(int(n) for name, n in zip(lengths, places, strict=True) if _bare(name) in _MITOCHONDRIAL)
    remedy = "Mitochondrial DNA has no nucleosomes, and its peaks no meaning; add it to the --blacklist."
    yield judge("splits", "mitochondria", f"{on_mitochondria:,} peaks", [(on_mitochondria > 0, "look", remedy)])


def _bare(name: str) -> str:
    return name.removeprefix("chr").upper()


def _shares(parts: Sequence[set[str]], lengths: Mapping[str, int], places: NDArray[np.int64]) -> Finding:
    """Look at how the places with peaks are divided."""
    number = np.bincount(split_of(lengths, *parts), weights=places, minlength=len(SPLITS))
    empty = [name for name, part, n in zip(SPLITS[1:], parts, number[1:], strict=True) if part and not n]
    empty += ["train"] if not number[0] else []
    held_out = number[1:].sum() / max(1, number.sum())
    text = ", ".join(f"{name} {percent(n / max(1, number.sum()))}" for name, n in zip(SPLITS, number, strict=True))
    return judge(
        "splits",
        "shares",
        f"{text} of {int(number.sum()):,} places with peaks",
        [
            (bool(empty), "wrong", f"No peak is left for {listed(empty)}; choose other chromosomes."),
            (any(parts) and held_out < _LITTLE, "look", "Measures on so little will be uncertain; hold out more."),
            (held_out > _MUCH, "look", "Little is left to learn from; hold out less."),
        ],
    )

"""Which chromosomes are held out, as the user names them and as the genome does."""

from collections.abc import Mapping, Sequence

from genebert.errors import Problems, listed
from genebert.inputs.genome import spelled_chromosomes


def held_out_chromosomes(
    valid: Sequence[str], test: Sequence[str], lengths: Mapping[str, int]
) -> tuple[list[str], list[str]]:
    """Return the chromosomes for validation and for testing as the genome names them, sorted.

    Args:
        valid, test: names as the user gives them, chr1 or 1.
        lengths: chromosome -> length of the genome in bp.

    Raises:
        UserError: the genome has no such chromosome, or one is given for both.
    """
    found = Problems("The splits cannot be made:")
    mapped = {}
    for option, names in (("--valid-chromosomes", valid), ("--test-chromosomes", test)):
        known = spelled_chromosomes(names, lengths)
        for name in names:
            if name not in known:
                what = f"the genome has no chromosome {name!r}; it has {listed(lengths, 12)}"
                found.add(option, what, "Correct the name.")
        mapped[option] = sorted({known[name] for name in names if name in known})
    for name in sorted(set.intersection(*map(set, mapped.values()))):
        found.add(name, "the chromosome is given for validation and for testing", "Name it once.")
    found.raise_any()
    return mapped["--valid-chromosomes"], mapped["--test-chromosomes"]

import pytest

from genebert.corpus.chromosomes import held_out_chromosomes
from genebert.errors import UserError

LENGTHS = {"chr1": 9, "chr2": 9, "chr3": 9, "chr10": 9}


def test_names_are_those_of_the_genome_sorted_and_each_once() -> None:
    assert held_out_chromosomes(["3", "chr10"], ["chr1", "1"], LENGTHS) == (["chr10", "chr3"], ["chr1"])
    assert held_out_chromosomes([], [], LENGTHS) == ([], [])


def test_unknown_names_and_names_given_twice_are_reported_together() -> None:
    with pytest.raises(UserError) as error:
        held_out_chromosomes(["chr1", "chr7"], ["1", "X"], LENGTHS)
    for fragment in (
        "--valid-chromosomes: the genome has no chromosome 'chr7'",
        "--test-chromosomes: the genome has no chromosome 'X'",
        "chr1: the chromosome is given for validation and for testing",
    ):
        assert fragment in str(error.value)

import pytest

from genebert.console import duration_of, say, size_of


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (89, "89 s"),
        (90, "2 min"),
        (5399, "90 min"),
        (5400, "2 h"),
        (172799, "48 h"),
        (172800, "2.0 days"),
    ],
)
def test_a_time_is_in_the_unit_that_fits(seconds: float, said: str) -> None:
    assert duration_of(seconds) == said


@pytest.mark.parametrize(("size", "said"), [(0, "0.0 MB"), (99e6, "99.0 MB"), (1e8, "0.10 GB"), (1e12, "1,000.00 GB")])
def test_a_size_is_in_gb_unless_it_is_small(size: float, said: str) -> None:
    assert size_of(size) == said


def test_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    say("chr1:100:A>T [bold]x[/bold]")
    assert capsys.readouterr().err == "chr1:100:A>T [bold]x[/bold]\n"

"""The parts that hold for the whole page: headline numbers, how to read it, where it comes from."""

from collections.abc import Sequence

from genebert.corpus.store import Corpus
from genebert.report import tables
from genebert.report.compare import by_part
from genebert.report.content import Prose, Section, Terms, Tile
from genebert.stage import Manifest

TERMS = (
    (
        "Region",
        (
            "A window of fixed width on the genome, centred on a consensus ATAC-seq peak. Coordinates are"
            " 0-based and half-open; variants are named with the VCF's 1-based position."
        ),
    ),
    (
        "Cell type",
        ("Whatever the ATAC-seq signal was grouped by. A region is accessible in a cell type if it has signal there."),
    ),
    (
        "Motif evidence",
        "−log₁₀ p of the best match of a transcription factor's motif in a region, on either strand.",
    ),
    (
        "Region matrix",
        (
            "Transcription factors by the accessible regions around a position, in one cell type: motif"
            " evidence and accessibility."
        ),
    ),
    (
        "MGM",
        (
            "Masked genome modelling: name hidden bases. Spans are hidden so that no visible token covers the"
            " base asked for."
        ),
    ),
    (
        "NGSP",
        (
            "Next genome segment prediction: are two segments neighbours, or is the second from another"
            " region of similar GC content?"
        ),
    ),
    ("SRM", "Sequence-region matching: find, among 64 region matrices, the one that belongs to a sequence."),
    (
        "Probe",
        (
            "A logistic regression on the pooled vectors of a network that is not trained further: it tells what is in"
            " them, by linear means. Fitted on training chromosomes and training cell types."
        ),
    ),
    (
        "AUROC",
        (
            "Probability that a random positive is ranked above a random negative; 0.5 is chance. AUPRC:"
            " average precision; chance is the share of positives. MCC: Matthews' correlation; 0 is chance."
        ),
    ),
    (
        "0.612 [0.586, 0.637]",
        (
            "A measure and its 95% percentile bootstrap interval (1,000 resamples of the examples, in pre-training"
            " of the regions with all of their examples). With several seeds, the mean over seeds."
        ),
    ),
    ("Log-odds", "ln(p / (1 − p)) of a class, in nats; a difference of 0.69 doubles the odds."),
)


def tiles(corpus: Corpus, pretrained: Manifest | None, predictors: Sequence[Manifest]) -> list[Tile]:
    """Return the headline numbers."""
    found = [
        Tile(f"{len(corpus.regions):,}", "regions", f"of {corpus.width:,} bp"),
        Tile(f"{len(corpus.cell_types):,}", "cell types"),
        Tile(f"{len(corpus.motifs):,}", "motifs"),
        Tile(f"{len(corpus.accessible_regions):,}", "examples", "cell type, accessible region"),
    ]
    if pretrained is not None:
        found.append(
            Tile(
                f"{pretrained.metrics['parameters']:,}",
                "parameters",
                f"{pretrained.metrics['steps']:,} steps",
            )
        )
    for manifest in predictors:
        results = manifest.metrics["results"]
        model = results[0]["method"] if results else None
        found += [
            Tile(f"{row['value']:.3f}", "test AUROC", f"{model}, {manifest.folder.name}")
            for row in results
            if (row["method"], row["metric"]) == (model, "AUROC")
        ]
    return found


def held_out(corpus: Corpus, pretrained: Manifest | None) -> str:
    """Say in a sentence or two what was held out."""
    said = "No chromosome was held out: no measure on this page speaks for sequences that the model has not seen."
    if corpus.test_chromosomes or corpus.valid_chromosomes:
        held_out = _for_what(corpus.test_chromosomes, corpus.valid_chromosomes)
        said = f"Held out by whole chromosomes: {held_out} (choice of epochs); weights are fitted on the others."
    if corpus.test_cell_types or corpus.valid_cell_types:
        said += f" Cell types held out: {_for_what(corpus.test_cell_types, corpus.valid_cell_types)}."
    if pretrained is not None:
        said += f" Pre-training is measured on {'; on '.join(by_part(pretrained.metrics['evaluation']))}."
    return said


def _for_what(test: Sequence[str], valid: Sequence[str]) -> str:
    return f"{', '.join(test) or 'none'} for testing, {', '.join(valid) or 'none'} for validation"


def provenance_section(manifests: Sequence[Manifest]) -> Section:
    """Say how each result came about."""
    return Section(
        "Provenance",
        [
            Prose(
                "Inputs are identified by the SHA-256 of their content (for a folder made by an earlier"
                " stage, of its manifest). Equal fingerprints mean the same stage with equal settings and"
                " equal inputs. The commands repeat each stage; where it runs (device, output folder) does"
                " not change the result's identity."
            ),
            *[tables.provenance(manifest) for manifest in manifests],
        ],
    )


def reading_section() -> Section:
    """Define the words that the page uses."""
    text = (
        "Every comparison is on the same rows for all methods. Larger is better for all measures but losses and"
        " the Brier score. A sentence says “above” or “below” where the two 95% intervals do not overlap (in a cohort,"
        " where that of the difference excludes 0), and else that they overlap or cannot be told apart; its mark is"
        " that of the least favourable comparison."
        " Intervals show the spread over examples; they do not include the spread over repetitions of pre-training."
    )
    return Section("How to read this page", [Prose(text), Terms(TERMS)])

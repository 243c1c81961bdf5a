"""Folders that hold a network: its weights, and the motif collection that it was trained with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from numpy.typing import NDArray

from genebert.corpus.store import Corpus
from genebert.errors import UserError, problem
from genebert.inputs.scan import Scanner
from genebert.region_matrix import Context
from genebert.schema import Motif
from genebert.stage import write_json
from genebert.tasks.windows import Windows

MOTIFS_FILE = "motifs.json"


def load_weights(kind: Any, folder: Path, **options: Any) -> Any:
    """Load a model of ours from a folder, without messages about heads that come or go.

    Raises:
        UserError: the files are damaged.
    """
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        return kind.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:  # safetensors and transformers raise many kinds for damaged files
        raise UserError(problem(folder, f"the model cannot be loaded ({error})", "Make it again.")) from None
    finally:
        transformers.logging.set_verbosity(level)
        transformers.logging.enable_progress_bar()


def read_scanner(folder: Path) -> Scanner:
    """Return the scanner of the motif collection that is kept beside a model."""
    value = json.loads((folder / MOTIFS_FILE).read_text())
    return Scanner([Motif.from_json(motif) for motif in value["motifs"]], value["pseudocount"], value["gc_background"])


def same_scan(first: Scanner | Corpus, second: Scanner | Corpus) -> bool:
    """Return whether two have the same motifs, and scan for them in the same way."""
    backgrounds = [one.gc if isinstance(one, Scanner) else one.gc_background for one in (first, second)]
    return (
        (first.pseudocount, backgrounds[0]) == (second.pseudocount, backgrounds[1])
        and len(first.motifs) == len(second.motifs)
        and all(
            a.id == b.id and np.array_equal(a.probabilities, b.probabilities)
            for a, b in zip(first.motifs, second.motifs, strict=True)
        )
    )


def check_motifs(scanner: Scanner, corpus: Corpus, of: str) -> None:
    """Check that a corpus was prepared with a motif collection.

    Args:
        scanner: of the collection.
        corpus: the corpus.
        of: what has the collection, for the error.

    Raises:
        UserError: it was prepared with another one.
    """
    if not same_scan(scanner, corpus):
        raise UserError(
            problem(
                corpus.folder,
                f"the corpus and {of} do not belong together: their motif collections, or how they are "
                f"scanned, differ ({len(corpus.motifs)} and {len(scanner.motifs)} motifs)",
                "Use a corpus prepared with the same --motifs, --archetypes, --pseudocount and --background.",
            )
        )


def check_width(k: int, most: int, corpus: Corpus, folder: Path) -> None:
    """Check that a network reads the regions of a corpus whole.

    Args:
        k: bases of a token.
        most: tokens that it reads.
        corpus: the corpus.
        folder: of the network, for the error.

    Raises:
        UserError: they are too long.
    """
    needed = corpus.width - 2 * k + 5
    if needed > most:
        what = f"a region of the corpus has {corpus.width} bp, which is {needed} tokens, and it reads {most}"
        raise UserError(problem(folder, what, "Give a model that was made for regions of this width."))


def write_scanner(scanner: Scanner, folder: Path) -> None:
    """Keep a motif collection beside a model."""
    write_json(
        folder / MOTIFS_FILE,
        {
            "pseudocount": scanner.pseudocount,
            "gc_background": scanner.gc,
            "motifs": [motif.to_json() for motif in scanner.motifs],
        },
    )


def context_of(windows: Windows, corpus: Corpus, cell_type: NDArray[np.int64]) -> Context:
    """Return where windows with coordinates lie, each looked at in the cell type of the given index."""
    table = windows.table
    centre = (table["start"].to_numpy(np.int64) + table["end"].to_numpy(np.int64)) // 2
    return Context(corpus, cell_type, corpus.line_positions(table["chrom"].tolist(), centre))

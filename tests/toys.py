"""Small worlds, written as ordinary files or held in memory, for tests of all modules."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.corpus import splits
from genebert.corpus.store import FACTS, Corpus, CorpusWriter
from genebert.schema import Motif, encode, split_of
from genebert.settings import PrepareSettings, StageSettings
from genebert.stage import Manifest, open_stage

WIDTH = 128
"""Region width of the toy corpora."""
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")
NO_MANIFEST = Manifest(Path("toy"), "prepare", {}, {}, {}, {}, {}, "toy")


def random_bases(length: int, generator: np.random.Generator) -> str:
    return "".join(generator.choice(list("ACGT"), size=length))


def reverse_complement(letters: str) -> str:
    return letters[::-1].translate(COMPLEMENT)


def random_motif(name: str, width: int, generator: np.random.Generator) -> Motif:
    return Motif(name, name.upper(), generator.dirichlet(np.full(4, 0.4), size=width))


def consensus_motif(name: str, letters: str, strength: float = 1.0) -> Motif:
    """A motif whose every column has probability `strength` for one base and shares the rest."""
    rest = (1 - strength) / 3
    return Motif(
        name,
        name,
        np.array([[strength if base == letter else rest for base in "ACGT"] for letter in letters]),
    )


def write_fasta(path: Path, sequences: Mapping[str, str], line: int = 60) -> Path:
    with path.open("w") as handle:
        for name, letters in sequences.items():
            handle.write(f">{name}\n")
            handle.writelines(f"{letters[i : i + line]}\n" for i in range(0, len(letters), line))
    return path


def read_fasta(path: Path) -> dict[str, str]:
    """The sequences by name; leaves no index beside the file, which a changed file would outdate."""
    records = path.read_text().split(">")[1:]
    return {record.split("\n", 1)[0]: record.split("\n", 1)[1].replace("\n", "") for record in records}


@dataclass(frozen=True)
class Peak:
    """One line of a narrowPeak file; summit is an offset from start."""

    chrom: str
    start: int
    end: int
    summit: int = -1
    p: float = 5.0
    signal: float = 1.0

    def __str__(self) -> str:
        return f"{self.chrom}\t{self.start}\t{self.end}\tpeak\t0\t.\t{self.signal}\t{self.p}\t-1\t{self.summit}"


def write_peaks(path: Path, peaks: Iterable[Peak | str]) -> Path:
    path.write_text("".join(f"{peak}\n" for peak in peaks))
    return path


def write_meme(path: Path, motifs: Iterable[Motif]) -> Path:
    lines = [
        "MEME version 4",
        "",
        "ALPHABET= ACGT",
        "",
        "Background letter frequencies",
        "A 0.25 C 0.25 G 0.25 T 0.25",
        "",
    ]
    for motif in motifs:
        lines += [
            f"MOTIF {motif.id} {motif.name}",
            f"letter-probability matrix: alength= 4 w= {motif.width} nsites= 20 E= 0",
        ]
        lines += [" ".join(f"{value:.6f}" for value in row) for row in motif.probabilities]
        lines.append("")
    path.write_text("\n".join(lines))
    return path


@dataclass(frozen=True)
class World:
    """The input files of `prepare`, in one folder: 3 chromosomes of 20 kb, 3 cell types, 6 motifs."""

    folder: Path

    @property
    def genome(self) -> Path:
        return self.folder / "genome.fa"

    @property
    def peaks(self) -> Path:
        return self.folder / "peaks"

    @property
    def motifs(self) -> Path:
        return self.folder / "motifs.meme"

    def settings(self, out: Path, **changes: Any) -> PrepareSettings:
        chosen: dict[str, Any] = {
            "genome": self.genome,
            "peaks": [self.peaks],
            "motifs": str(self.motifs),
            "region_width": WIDTH,
            "valid_chromosomes": ["chr2"],
            "test_chromosomes": ["chr3"],
        }
        return PrepareSettings(out=out, **(chosen | changes))

    def arguments(self, out: Path) -> list[str]:
        """The same as words of the command line."""
        return [
            "prepare",
            "--genome",
            str(self.genome),
            "--peaks",
            str(self.peaks),
            "--motifs",
            str(self.motifs),
            "--region-width",
            str(WIDTH),
            "--valid-chromosomes",
            "chr2",
            "--test-chromosomes",
            "chr3",
            "--out",
            str(out),
        ]


CHROMOSOMES = {"chr1": 20_000, "chr2": 20_000, "chr3": 20_000}
CELL_TYPES = ("B", "NK", "T")


def random_peaks(generator: np.random.Generator, count: int = 40) -> list[Peak]:
    """Peaks on the toy chromosomes; summits crowd on a grid, so that cell types share many sites."""
    found = {}
    for _ in range(count):
        chrom = str(generator.choice(list(CHROMOSOMES)))
        summit = 500 + 300 * int(generator.integers(0, 63)) + int(generator.integers(-40, 41))
        left, right = generator.integers(30, 200, size=2).tolist()
        found[chrom, summit - left, summit + right] = Peak(
            chrom,
            summit - left,
            summit + right,
            left,
            round(float(generator.uniform(2, 30)), 3),
            round(float(generator.uniform(1, 9)), 3),
        )
    return list(found.values())


def write_world(folder: Path, seed: int = 0) -> World:
    generator = np.random.default_rng(seed)
    world = World(folder)
    world.peaks.mkdir(parents=True)
    write_fasta(world.genome, {name: random_bases(length, generator) for name, length in CHROMOSOMES.items()})
    for name in CELL_TYPES:
        write_peaks(world.peaks / f"{name}.narrowPeak", random_peaks(generator))
    write_meme(world.motifs, [random_motif(f"m{i}", 6 + i, generator) for i in range(6)])
    return world


def corpus_of(
    regions: Sequence[tuple[str, int]],
    accessible: Mapping[str, Mapping[int, float]],
    *,
    width: int = 100,
    lengths: Mapping[str, int] = CHROMOSOMES,
    valid: Sequence[str] = (),
    test: Sequence[str] = (),
    valid_cell_types: Sequence[str] = (),
    test_cell_types: Sequence[str] = (),
    motifs: Sequence[Motif] = (),
    sequence: Sequence[str] | None = None,
    seed: int = 0,
) -> Corpus:
    """A corpus in memory.

    Args:
        regions: (chromosome, start), sorted.
        accessible: cell type -> {region: value}.
        valid, test: chromosomes held out.
        sequence: letters of each region; random if None.
    """
    generator = np.random.default_rng(seed)
    table = pd.DataFrame({"chrom": [c for c, _ in regions], "start": [s for _, s in regions]})
    table["end"] = table["start"] + width
    part = splits.cell_type_split(list(accessible), valid_cell_types, test_cell_types)
    seen = {region for of, found in zip(part, accessible.values(), strict=True) if of == 0 for region in found}
    split = splits.region_split(split_of(table["chrom"], valid, test), np.isin(np.arange(len(table)), list(seen)))
    table["split"] = np.array(splits.NAMES)[split]
    codes = (
        generator.integers(0, 4, size=(len(regions), width), dtype=np.uint8)
        if sequence is None
        else np.stack([encode(letters).codes for letters in sequence])
    )
    members = [sorted(found) for found in accessible.values()]
    return Corpus(
        folder=Path("toy"),
        manifest=NO_MANIFEST,
        signal="peaks",
        cell_types=list(accessible),
        valid_cell_types=list(valid_cell_types),
        test_cell_types=list(test_cell_types),
        lengths=dict(lengths),
        width=width,
        valid_chromosomes=list(valid),
        test_chromosomes=list(test),
        regions=table,
        motifs=list(motifs),
        archetypes={},
        pseudocount=0.01,
        gc_background=0.5,
        sequence=codes,
        evidence=generator.integers(1, 256, size=(len(regions), max(1, len(motifs))), dtype=np.uint8),
        accessible_offsets=np.cumsum([0, *map(len, members)], dtype=np.int64),
        accessible_regions=np.array([region for found in members for region in found], dtype=np.int32),
        accessible_values=np.array(
            [found[r] for found in accessible.values() for r in sorted(found)], dtype=np.float32
        ),
        reference_regions=np.flatnonzero(split == 0).astype(np.int32),
    )


def random_corpus(
    generator: np.random.Generator,
    *,
    width: int = 100,
    regions: int = 120,
    cell_types: int = 4,
    valid_cell_types: Sequence[str] = (),
    test_cell_types: Sequence[str] = (),
) -> Corpus:
    """A corpus of crowded regions that may abut; chr2 is for validation, chr3 for testing; cell0, cell1, ..."""
    slots = [(chrom, start) for chrom, length in CHROMOSOMES.items() for start in range(0, length - width, width)]
    near = [slot for slot in slots if slot[1] < 8000]
    chosen = sorted(generator.choice(len(near), size=regions, replace=False).tolist())
    accessible = {}
    for i in range(cell_types):
        members = np.flatnonzero(generator.random(regions) < generator.uniform(0.1, 0.9)).tolist() or [0]
        accessible[f"cell{i}"] = {region: float(generator.uniform(1, 9)) for region in members}
    return corpus_of(
        [near[i] for i in chosen],
        accessible,
        width=width,
        valid=["chr2"],
        test=["chr3"],
        valid_cell_types=valid_cell_types,
        test_cell_types=test_cell_types,
        motifs=[random_motif(f"m{i}", 5, generator) for i in range(3)],
        seed=int(generator.integers(1000)),
    )


def write_corpus(corpus: Corpus, folder: Path) -> None:
    """Write the files of a corpus in memory, all but the manifest, into an existing folder."""
    writer = CorpusWriter(folder, *corpus.sequence.shape, corpus.evidence.shape[1])
    writer.write_block(0, corpus.sequence, corpus.evidence)
    names = ("accessible_offsets", "accessible_regions", "accessible_values", "reference_regions")
    accessibility = {name: getattr(corpus, name) for name in names}
    writer.finish({name: getattr(corpus, name) for name in FACTS}, corpus.regions, corpus.motifs, accessibility)


def finish_corpus(corpus: Corpus, folder: Path) -> Path:
    """Write a corpus in memory as `prepare` would."""
    with open_stage("prepare", StageSettings(out=folder), {}) as run:
        write_corpus(corpus, run.folder)
        return run.finish({})


def with_values(corpus: Corpus, values: Mapping[int, float]) -> Corpus:
    """The corpus with other accessibility for some of its examples."""
    changed = corpus.accessible_values.copy()
    changed[list(values)] = list(values.values())
    return replace(corpus, accessible_values=changed)

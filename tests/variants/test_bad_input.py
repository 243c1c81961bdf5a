"""What users get wrong with `genebert variants`, and what odd but valid VCFs become."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pysam
import pytest
from click.testing import CliRunner, Result
from toys import World

from genebert.cli import main
from genebert.corpus.store import Corpus
from genebert.inputs.genome import Genome
from genebert.schema import decode
from genebert.settings import VariantsSettings
from genebert.stage import read_manifest
from genebert.variants.run import variants

VERSION = "##fileformat=VCFv4.2\n"
CONTIG = "##contig=<ID=chr3>\n"
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"
OURS = ("GENEBERT", "GENEBERT_MAX", "GENEBERT_GAINED", "GENEBERT_LOST", "GENEBERT_AS")


@dataclass(frozen=True)
class Case:
    """Inputs of `genebert variants`, and bases inside a region of the test chromosome."""

    folder: Path
    world: World
    corpus: Path
    model: Path
    position: int
    bases: str

    @property
    def vcf(self) -> Path:
        return self.folder / "given.vcf"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def row(self, offset: int = 0, alt: str = "", info: str = ".", filters: str = ".", ref: str = "") -> str:
        """A record at an offset from the first base; an SNV where `alt` is not given."""
        base = self.bases[offset]
        alt = alt or other(base)
        return f"chr3\t{self.position + 1 + offset}\tid{offset}\t{ref or base}\t{alt}\t.\t{filters}\t{info}\n"

    def write(self, *rows: str, header: str = VERSION + CONTIG, columns: str = COLUMNS) -> Path:
        self.vcf.write_text(header + columns + "\n" + "".join(rows))
        return self.vcf

    def run(self) -> Path:
        return variants(
            VariantsSettings(
                vcf=self.vcf,
                model=self.model,
                genome=self.world.genome,
                corpus=self.corpus,
                out=self.out,
                mutagenesis=0,
                null=0,
                device="cpu",
            )
        )

    def call(self, **changes: Path | str | None) -> Result:
        options = {"model": self.model, "genome": self.world.genome, "corpus": self.corpus, "device": "cpu"}
        options |= {"null": "0", "mutagenesis": "0"} | changes
        words = [word for name, value in options.items() if value for word in (f"--{name}", str(value))]
        return CliRunner().invoke(main, ["variants", str(self.vcf), "--out", str(self.out), *words])


def other(base: str) -> str:
    """Another base than this one."""
    return "ACGT"["ACGT".index(base) - 1]


@pytest.fixture
def case(toy_world: World, toy_folder: Path, toy: Corpus, toy_predictor: Path, tmp_path: Path) -> Case:
    region = toy.regions[toy.regions["chrom"] == "chr3"].iloc[0]
    start = int(region["start"]) + 10
    with Genome(toy_world.genome) as genome:
        bases = decode(genome.fetch("chr3", start, start + 60))
    return Case(tmp_path, toy_world, toy_folder, toy_predictor, start, bases)


def refused(case: Case, result: Result, *fragments: str) -> None:
    assert result.exit_code == 2, result.output
    assert "error: " in result.stderr
    assert "Traceback" not in result.output
    assert [fragment for fragment in fragments if fragment not in result.stderr] == []
    assert not case.out.exists()
    assert not Path(f"{case.out}.partial").exists()


def truncated(case: Case) -> None:
    plain = case.write(*[case.row(i % 50, info=f"X={i * 7919}") for i in range(5000)])
    pysam.tabix_compress(str(plain), str(case.folder / "whole.vcf.gz"), force=True)
    case.vcf.write_bytes((case.folder / "whole.vcf.gz").read_bytes()[:-2000])


VCF_FAULTS: dict[str, tuple[Callable[[Case], object], tuple[str, ...]]] = {
    "no header": (lambda case: case.vcf.write_text(case.row()), ("no VCF or BCF with a header", "#CHROM POS")),
    "empty": (lambda case: case.vcf.write_text(""), ("the file is empty", "Give a VCF")),
    "no records": (lambda case: case.write(), ("none of its 0 records", "it has no records")),
    "absent": (lambda case: None, ("no such file or folder", "Check the path")),
    "truncated": (truncated, ("truncated", "bcftools view")),
    "folder": (lambda case: case.vcf.mkdir(), ("no VCF or BCF", "#CHROM POS")),
    "malformed": (
        lambda case: case.write(case.row(), "chr3\tx\t.\tA\tC\t.\t.\t.\n"),
        ("record 2: it cannot be read", "bcftools view"),
    ),
    "mismatches": (
        lambda case: case.write(*[case.row(i, alt=case.bases[i], ref=other(case.bases[i])) for i in range(3)]),
        ("none of its 3 records", "3 REF mismatch", "where the genome has", "same assembly"),
    ),
    "symbolic": (
        lambda case: case.write(case.row(0, "<DEL>"), case.row(1, "*"), case.row(2, "<NON_REF>")),
        ("none of its 3 records", "3 symbolic, missing or ambiguous allele"),
    ),
    "no alleles": (lambda case: case.write(case.row(0, ".")), ("none of its 1 records", "no alternate alleles")),
}


@pytest.mark.parametrize("fault", VCF_FAULTS)
def test_a_vcf_that_cannot_be_used(fault: str, case: Case) -> None:
    change, fragments = VCF_FAULTS[fault]
    change(case)
    refused(case, case.call(), str(case.vcf), *fragments)


def test_an_unknown_cell_type(case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(**{"cell-types": "NK,Treg"}), str(case.corpus), "no cell type 'Treg'", "it has B, NK, T")


def test_cell_types_for_a_model_that_knows_none(case: Case, sequence_predictor: Path) -> None:
    case.write(case.row())
    result = case.call(model=sequence_predictor, **{"cell-types": "NK"})
    refused(case, result, str(sequence_predictor), "--cell-types NK", "knows no cell types", "Leave --cell-types out")


def test_a_model_folder_that_is_a_corpus(case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(model=case.corpus), str(case.corpus), "made by `genebert prepare`", "`genebert finetune`")


def test_damaged_weights(case: Case) -> None:
    case.write(case.row())
    model = Path(shutil.copytree(case.model, case.folder / "model"))
    weights = model / "members/0-genebert/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-8] ^= 255
    weights.write_bytes(content)
    refused(case, case.call(model=model), str(weights), "has changed since it was written", "genebert finetune")


def test_a_corpus_that_is_needed_or_absent(case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(corpus=None), str(case.model), "predicts per cell type", "Add --corpus")
    nowhere = case.folder / "nowhere"
    refused(case, case.call(corpus=nowhere), str(nowhere), "no such file or folder", "Check the path")


def mismatched(case: Case, wrong: list[tuple[str, str]], right: int) -> None:
    """Write records whose REF and ALT are given, one for each base from the first on, and right ones."""
    rows = [case.row(i % 60, alt=alt, ref=ref) for i, (ref, alt) in enumerate(wrong)]
    case.write(*rows, *[case.row(i % 60) for i in range(right)])


COMPLEMENT = dict(zip("ACGT", "TGCA", strict=True))


def another(base: str, times: int) -> str:
    return "ACGT"[("ACGT".index(base) + times) % 4]


WRONG_ALLELES = {
    "another assembly": (lambda b: (another(b, 2), another(b, 1)), 15, 9, "15 of 24 alleles", "another assembly"),
    "swapped": (lambda b: (another(b, 2), b), 15, 9, "15 of 24 alleles", "REF and ALT seem to be swapped"),
    "other strand": (lambda b: (COMPLEMENT[b], another(b, 2)), 15, 9, "15 of 24 alleles", "of the other strand"),
    "a few": (lambda b: (another(b, 2), another(b, 1)), 2, 110, "2 of 112 alleles (1.8%)", "--max-mismatches"),
}


@pytest.mark.parametrize("fault", WRONG_ALLELES)
def test_too_many_mismatches_are_an_error_that_says_the_likely_reason(fault: str, case: Case) -> None:
    make, wrong, right, count, reason = WRONG_ALLELES[fault]
    mismatched(case, [make(case.bases[i % 60]) for i in range(wrong)], right)
    refused(case, case.call(), f"{case.vcf}: the REF of {count}", "is not what the genome", "where it has", reason)


def test_more_mismatches_can_be_allowed(case: Case) -> None:
    mismatched(case, [(another(base, 1), another(base, 2)) for base in case.bases[:2]], 110)
    result = case.call(**{"max-mismatches": "0.02"})
    assert result.exit_code == 0, result.output
    assert "2 REF mismatch" in result.stderr


REGION_FAULTS = {
    "chr9": ("no chromosome 'chr9'", "It has chr1"),
    "chr3:0-10": ("--regions chr3:0-10", "1-based"),
    "chr3:10-5": ("--regions chr3:10-5", "Write the first and the last base"),
    "chr3:5": ("'chr3:5' is no region, and no file of that name is there", "chr1:1000-2000"),
    "absent.bed:x": ("is no region", "one BED file"),
}


@pytest.mark.parametrize("regions", REGION_FAULTS)
def test_regions_that_cannot_be_read(regions: str, case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(regions=regions), *REGION_FAULTS[regions])


def test_all_faults_of_regions_are_reported_together(case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(regions="chr9,chr3:10-5"), "chr9", "chr3:10-5")


def test_regions_without_variants(case: Case) -> None:
    case.write(case.row())
    refused(case, case.call(regions="chr1"), "none of its 0 records", "it has no records")


def test_an_even_number_of_shifts(case: Case) -> None:
    case.write(case.row())
    result = case.call(shifts="2")
    assert result.exit_code == 2
    assert "has to be odd" in result.stderr


@pytest.mark.parametrize(("wrong", "right"), [(10, 10), (15, 4)])
def test_few_mismatches_or_few_alleles_give_no_warning(wrong: int, right: int, case: Case) -> None:
    rows = [case.row(i, alt=case.bases[i], ref=other(case.bases[i])) for i in range(wrong)]
    case.write(*rows, *[case.row(i) for i in range(20, 20 + right)])
    result = case.call(mutagenesis="0")
    assert result.exit_code == 0, result.output
    assert "warning" not in result.stderr


def records_of(path: Path) -> list[pysam.VariantRecord]:
    verbosity = pysam.set_verbosity(0)
    with pysam.VariantFile(str(path)) as file:
        records = list(file)
    pysam.set_verbosity(verbosity)
    return records


def kept(record: pysam.VariantRecord) -> tuple[object, ...]:
    """What a record is, apart from samples and our INFO."""
    info = {name: value for name, value in record.info.items() if name not in OURS}
    return record.chrom, record.pos, record.id, record.alleles, record.qual, list(record.filter), info


def scored(case: Case) -> list[pysam.VariantRecord]:
    """Score the VCF, compare what came back with what was given, and return it."""
    records = records_of(case.run() / "variants.vcf.gz")
    assert [kept(record) for record in records] == [kept(record) for record in records_of(case.vcf)]
    return records


def skipped(case: Case) -> dict[str, int]:
    metrics = read_manifest(case.out).metrics
    table = pd.read_csv(case.out / "skipped.tsv", sep="\t")
    assert len(table) == sum(metrics["alleles_skipped"].values())
    rows = pd.read_csv(case.out / "variants.tsv", sep="\t")
    assert len(rows) == metrics["alleles_scored"] * len(metrics["cell_types"])
    return metrics["alleles_skipped"]


SYMBOLIC = "symbolic, missing or ambiguous allele"


def test_symbolic_and_missing_alleles_stay_beside_scored_ones(case: Case) -> None:
    alt = other(case.bases[0])
    case.write(
        case.row(0, f"<DEL>,{alt},*"),
        case.row(1, "."),
        case.row(2, "<NON_REF>", info="END=9000"),
        case.row(3, f"{other(case.bases[3])},<NON_REF>"),
        case.row(4, f"{case.bases[4]}[chr1:500["),
        "chr3\t0\t.\tN\t<DEL>\t.\t.\t.\n",
    )
    first, *others = scored(case)
    assert [entry.split("|")[:2] for entry in first.info["GENEBERT"]] == [[alt, name] for name in ("B", "NK", "T")]
    assert [value is None for value in first.info["GENEBERT_MAX"]] == [True, False, True]
    assert ["GENEBERT" in record.info for record in others] == [False, False, True, False, False]
    assert skipped(case) == {SYMBOLIC: 6}


def test_undeclared_contigs_filters_and_fields(case: Case) -> None:
    unknown = "scaffold_9\t5\t.\tA\tC\t.\tPASS\t.\n"
    case.write(case.row(0, filters="q10;LowQual", info="DP=3;FLAG"), case.row(1), unknown, header=VERSION)
    records = scored(case)
    assert ["GENEBERT" in record.info for record in records] == [True, True, False]
    assert skipped(case) == {"chromosome not in the genome": 1}


def test_windows_line_ends_and_lower_case(case: Case) -> None:
    case.write(case.row(0, other(case.bases[0]).lower(), ref=case.bases[0].lower(), info="DP=3"), case.row(1))
    case.vcf.write_bytes(case.vcf.read_bytes().replace(b"\n", b"\r\n"))
    first, _ = scored(case)
    assert first.info["GENEBERT"][0].startswith(f"{other(case.bases[0]).lower()}|B|")
    assert skipped(case) == {}


def test_samples_are_dropped_and_info_is_preserved(case: Case) -> None:
    header = (
        VERSION
        + CONTIG
        + '##INFO=<ID=AF,Number=A,Type=Float,Description="frequency">\n'
        + '##INFO=<ID=DB,Number=0,Type=Flag,Description="known">\n'
        + '##INFO=<ID=GENEBERT,Number=1,Type=Integer,Description="of an earlier run">\n'
        + '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
    )
    rows = [case.row(0, info="AF=0.125;DB;GENEBERT=7"), case.row(1, "<DEL>", info="GENEBERT=7")]
    samples = [row.replace("\n", "\tGT\t0/1\t1/1\n") for row in rows]
    case.write(*samples, header=header, columns=f"{COLUMNS}\tFORMAT\ts1\ts2")
    first, second = scored(case)
    assert list(first.header.samples) == []
    assert (first.info["AF"], first.info["DB"], len(first.info["GENEBERT"])) == ((0.125,), True, 3)
    assert "GENEBERT" not in second.info
    assert first.header.info["GENEBERT"].type == "String"


def test_unsorted_records_are_complete_without_an_index(case: Case) -> None:
    case.write(*[case.row(offset) for offset in (5, 1, 3)])
    assert all("GENEBERT" in record.info for record in scored(case))
    assert not (case.out / "variants.vcf.gz.tbi").exists()


def test_a_sorted_file_has_an_index(case: Case) -> None:
    case.write(*[case.row(offset) for offset in (1, 3, 5)], header=VERSION)
    case.run()
    with pysam.VariantFile(str(case.out / "variants.vcf.gz")) as file:
        assert len(list(file.fetch("chr3", case.position + 2, case.position + 6))) == 2


def test_duplicate_records_have_one_entry_per_allele_and_cell_type(case: Case) -> None:
    case.write(case.row(0), case.row(0, info="DP=3"), case.row(1))
    first, second, _ = scored(case)
    assert first.info["GENEBERT"] == second.info["GENEBERT"]
    assert len(first.info["GENEBERT"]) == 3
    table = pd.read_csv(case.out / "variants.tsv", sep="\t")
    assert len(table) == 3 * 3
    assert skipped(case) == {}

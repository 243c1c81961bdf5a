"""What a user can set: one class per stage. Its fields are the CLI options, the YAML keys and the reference.

Only pydantic is imported here, so that `genebert VERB --help` answers at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

CONFIGS = Path(__file__).parent / "configs"
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["fp32", "bf16"]
Masking = Literal["hidden-bases", "dnabert"]
Modalities = Literal["both", "sequence", "motifs"]
Mode = Literal["full", "frozen", "lora", "linear-probe"]
PredictionFormat = Literal["tsv", "parquet", "bed", "bigwig"]
VariantFormat = Literal["tsv", "parquet"]
KmerLength = Annotated[Literal[1, 3, 4, 5, 6], BeforeValidator(lambda k: int(k) if str(k).isdecimal() else k)]
"""As text too, as the command line gives it."""
Strategy = Literal["ddp", "fsdp"]
Attention = Literal["sdpa", "eager", "flash_attention_2"]
Epochs = Annotated[int, Field(ge=1, description="most passes over the training rows; the best on validation is kept")]
Patience = Annotated[int, Field(ge=1, description="stop after so many passes that are no better on validation")]
WeightDecay = Annotated[float, Field(ge=0, description="AdamW weight decay of linear and convolutional layers")]


JASPAR = "jaspar:"
"""Begins the name of a collection of motifs that comes with pyjaspar, where a file could be given."""


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("has to be odd")
    return number


def positional(description: str, default: Any = ...) -> Any:
    """Declare a field that the CLI takes by position."""
    return Field(default, description=description, json_schema_extra={"positional": True})


def machine(default: Any, description: str, **limits: Any) -> Any:
    """Declare a field that says where or how to run, and does not change what comes out."""
    return Field(default, description=description, json_schema_extra={"machine": True}, **limits)


class Settings(BaseModel):
    """Base of all settings: unknown keys are errors, values cannot change; a number may be a name, as `8` in YAML."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)


class StageSettings(Settings):
    """Settings of a stage that makes a folder."""

    out: Path = Field(description="folder to make")

    def identity(self) -> dict[str, Any]:
        """Return, as JSON values, the settings that determine the result; files count elsewhere."""
        skip = {name for name, field in type(self).model_fields.items() if "Path" in str(field.annotation)}
        skip |= {
            name
            for name, field in type(self).model_fields.items()
            if isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("machine")
        }
        return self.model_dump(mode="json", exclude=skip)


class SimulateSettings(StageSettings):
    """Make a seeded genome, ATAC-seq peaks, annotation, variants and a cohort, with the truth beside them."""

    genome_mb: float = Field(4.0, ge=2, le=200, description="genome size in Mb (10^6 bp)")
    chromosomes: int = Field(8, ge=4, le=64, description="number of chromosomes, of equal length")
    cell_types: int = Field(6, ge=2, le=64, description="number of cell types")
    regions: int = Field(4000, ge=50, description="number of regulatory elements in the genome")
    genes: int = Field(800, ge=20, description="number of genes, each with a promoter and introns")
    individuals: int = Field(200, ge=20, description="number of individuals")
    variants: int = Field(2000, ge=50, description="number of variants in the cohort VCF")
    architecture: Literal["common", "rare"] = Field(
        "common", description="of the cohort: common variants all over the genome, or rare ones, many in each region"
    )
    effects: Literal["converge", "scatter"] = Field(
        "converge",
        description="with rare: all variants of a causal region act, through the region's change of accessibility; or "
        "one of them, with an effect that has nothing to do with accessibility",
    )
    cohort_regions: int | None = Field(
        None,
        ge=1,
        description="with rare: number of regions that the variants lie in (default: all with a peak)",
    )
    causal: int = Field(20, ge=1, description="number of causal variants; with rare, of causal regions")
    heritability: float = Field(
        0.5, ge=0, le=0.9, description="variance of the liability to disease that variants explain"
    )
    case_fraction: float = Field(0.5, gt=0, lt=1, description="fraction of the individuals that are cases")
    siblings: int = Field(0, ge=0, description="with rare: number of pairs of siblings among the individuals")
    structure: float = Field(
        0.0, ge=0, le=1, description="with rare: fraction of the variants that are private to one of four populations"
    )
    shuffled: bool = Field(False, description="shuffle disease and trait over the individuals: a null cohort")
    cohort_seed: int | None = Field(
        None, ge=0, description="seed of the cohort, to draw another on the same genome (default: the seed)"
    )
    seed: int = Field(0, ge=0, description="seed; the same seed and settings give the same bytes")


class AtacInputs(Settings):
    """A genome, and ATAC-seq on it in one of its forms."""

    genome: Path = Field(description="genome: FASTA (also bgzip) or 2bit")
    peaks: list[Path] = Field(
        [],
        description="narrowPeak or BED files (gzip allowed), or folders of them: one per cell type, whose file name "
        "without its ending names the cell type; with --bigwigs or --fragments, peak sets to measure",
    )
    bigwigs: list[Path] = Field(
        [], description="bigWig files of coverage, one per cell type, or folders of them; needs --peaks"
    )
    fragments: list[Path] = Field(
        [],
        description="fragments.tsv.gz files (10x format; no index needed); needs --barcodes; without --peaks, windows "
        "that are enriched in a cell type are candidates for regions",
    )
    barcodes: Path | None = Field(
        None,
        description="CSV or TSV with a header: barcode, cell_type, and file (name of the fragments file) if there "
        "is more than one",
    )
    anndata: Path | None = Field(None, description="h5ad of cells x peaks (raw counts), instead of --peaks")
    cell_type_column: str = Field("cell_type", description="column of the h5ad's obs that names the cell type")


class CorpusInputs(AtacInputs):
    """What a corpus is made of, and how it is split."""

    min_cells: int = Field(20, ge=1, description="a cell type with fewer cells is dropped (fragments, h5ad)")
    min_fragments: int = Field(
        5000, ge=0, description="a cell type with fewer fragments (h5ad: counts) is dropped (fragments, h5ad)"
    )
    min_count: int = Field(
        2, ge=1, description="fewest counts that make a region accessible in a cell type (fragments, h5ad)"
    )
    min_cpm: float | None = Field(
        None,
        ge=0,
        description="fewest counts per million that make a region accessible (bigWig, fragments, h5ad; default: the "
        "mean over the cell type's training regions)",
    )
    motifs: str = Field(
        "jaspar:vertebrates",
        description="MEME, JASPAR, TRANSFAC or HOCOMOCO file, or jaspar:GROUP for JASPAR CORE offline "
        "(vertebrates, plants, insects, nematodes, fungi, urochordates)",
    )
    archetypes: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="merge motifs whose best hits correlate at least so much into archetypes; 0.5 is a good choice "
        "(default: keep all)",
    )
    pseudocount: float = Field(0.01, gt=0, le=1, description="weight of the background mixed into each PWM column")
    background: str = Field(
        "uniform", description="base composition under which hits are scored: uniform, regions, or a GC fraction"
    )
    blacklist: Path | None = Field(None, description="BED of intervals to leave out (gzip allowed)")
    region_width: int = Field(512, ge=64, le=16384, description="width of a region in bp, even")
    max_n_fraction: float = Field(0.1, ge=0, le=1, description="a region with a larger fraction of N is dropped")
    valid_chromosomes: list[str] = Field([], description="chromosomes for validation (epoch choice, thresholds)")
    test_chromosomes: list[str] = Field([], description="chromosomes held out for testing")
    valid_cell_types: list[str] = Field([], description="cell types for validation, never trained on")
    test_cell_types: list[str] = Field([], description="cell types held out for testing")
    max_shared_kmers: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="held-out regions that share a larger fraction of their 21-mers with training regions are used "
        "in no split (default: keep them)",
    )
    skip_unknown_chromosomes: bool = Field(
        False, description="drop and count peaks on chromosomes that the genome lacks"
    )
    workers: int | None = machine(None, "processes on this machine (default: one per core)", ge=1)
    scheduler: str | None = machine(None, "address of a Dask scheduler to work on instead, such as tcp://host:8786")


class PrepareSettings(CorpusInputs, StageSettings):
    """Build a corpus: consensus regions, sequence, motif evidence, accessibility per cell type, splits."""

    dry_run: bool = machine(False, "say what it would take (time, memory, disk) and stop")

    def identity(self) -> dict[str, Any]:
        """Return the settings that determine the result; a motif file counts by content, elsewhere."""
        settings = super().identity()
        if not self.motifs.startswith(JASPAR):
            del settings["motifs"]
        return settings


class AddCellTypeSettings(AtacInputs, StageSettings):
    """Add cell types to a corpus, each from its ATAC-seq alone: models made with the corpus know them at once.

    They count as held out for testing: nothing is ever trained on them.
    """

    corpus: Path = Field(description="folder made by prepare or add-cell-type")
    regions: Literal["extend", "keep"] = Field(
        "extend",
        description="extend: peaks where the corpus has no region become regions, too; keep: its regions and no others",
    )
    blacklist: Path | None = Field(None, description="BED of intervals where no region is added (gzip allowed)")
    min_cells: int | None = Field(None, ge=1, description="as for prepare (default: as the corpus was prepared)")
    min_fragments: int | None = Field(None, ge=0, description="as for prepare (default: as the corpus was prepared)")
    min_count: int | None = Field(None, ge=1, description="as for prepare (default: as the corpus was prepared)")
    min_cpm: float | None = Field(None, ge=0, description="as for prepare (default: as the corpus was prepared)")
    max_n_fraction: float | None = Field(
        None, ge=0, le=1, description="as for prepare (default: as the corpus was prepared)"
    )
    skip_unknown_chromosomes: bool = Field(
        False, description="drop and count peaks on chromosomes that the genome lacks"
    )
    workers: int | None = machine(None, "processes on this machine (default: one per core)", ge=1)
    scheduler: str | None = machine(None, "address of a Dask scheduler to work on instead, such as tcp://host:8786")


class DoctorSettings(CorpusInputs):
    """Check the inputs of a corpus before the work starts, and say in plain words what looks wrong."""


class ExportSettings(StageSettings):
    """Write a corpus as AnnData or Parquet, for other tools."""

    corpus: Path = positional("folder made by prepare")
    format: Literal["anndata", "parquet"] = Field("anndata", description="what to write")


class ModelSettings(Settings):
    """Sizes of the network."""

    k: KmerLength = Field(6, description="k-mer length of a token")
    hidden_size: int = Field(description="width of the sequence encoder")
    layers: int = Field(description="number of BERT layers")
    heads: int = Field(description="attention heads per BERT layer")
    stem: int = Field(
        0, ge=0, description="width of a convolution over token embeddings before BERT, in tokens; 0 for none"
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on hidden states")
    region_columns: int = Field(description="R, regions per region matrix")
    patch: tuple[int, int] = Field(description="Swin patch: (motifs, regions)")
    window: int = Field(description="Swin attention window, in patches")
    embed_dim: int = Field(description="width of the first Swin stage")
    depths: list[int] = Field(description="Swin blocks per stage")
    stage_heads: list[int] = Field(description="attention heads per Swin stage")
    projection_dim: int = Field(128, description="width of the space in which SRM compares sequence and region matrix")


class TrainingSettings(Settings):
    """How long and how fast to train."""

    epochs: float = Field(gt=0, description="passes over the training examples")
    batch_size: int = Field(ge=2, description="examples per optimiser step")
    learning_rate: float = Field(gt=0, description="peak learning rate of AdamW")
    warmup: float = Field(0.1, ge=0, lt=1, description="fraction of all examples over which the learning rate rises")
    weight_decay: float = Field(
        0.01, ge=0, description="AdamW weight decay of linear and convolutional layers; all else is exempt"
    )
    mask_fraction: float = Field(0.15, gt=0, lt=0.5, description="fraction of bases hidden for MGM")
    longest_run: int = Field(6, ge=1, le=64, description="bases are hidden in runs of 1 to so many")
    mgm_weight: float = Field(1.0, ge=0, description="weight of masked genome modelling in the loss; 0 turns it off")
    ngsp_weight: float = Field(1.0, ge=0, description="weight of next genome segment prediction; 0 turns it off")
    srm_weight: float = Field(
        0.15,
        ge=0,
        description="weight of sequence-region matching, whose gradient is many times as long as MGM's and NGSP's; "
        "0 turns it off",
    )
    masking: Masking = Field(
        "hidden-bases",
        description="hidden-bases: no visible token covers a scored base; dnabert: k contiguous tokens, as published, "
        "which gives all but one of their bases away",
    )
    balanced: bool = Field(False, description="draw all cell types equally often")
    mrm_weight: float = Field(0.0, ge=0, description="weight of masked region modelling (hidden columns and TFs)")
    hard_negatives: bool = Field(
        False, description="SRM: the same region in a cell type where it is not accessible is a negative too"
    )
    rc_weight: float = Field(0.0, ge=0, description="weight of reverse-complement consistency")
    accessibility_weight: float = Field(
        0.0, ge=0, description="weight of predicting a region's signal in a cell type from sequence and neighbourhood"
    )


class Preset(Settings):
    """A shipped YAML: a network and the way to train it."""

    model: ModelSettings
    training: TrainingSettings


def load_preset(name: str) -> Preset:
    """Load the shipped preset `name` (tiny, small, paper or plus)."""
    return Preset.model_validate(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text()))


class PretrainSettings(StageSettings):
    """Pre-train the two-modality model with MGM, NGSP and SRM, on one device or many; an interrupted run resumes."""

    corpus: Path = Field(description="folder made by prepare")
    preset: Literal["tiny", "small", "paper", "plus"] = Field("tiny", description="sizes and schedule")
    k: KmerLength | None = Field(None, description="k-mer length of a token (default: the preset's)")
    init_sequence: Path | None = Field(
        None, description="folder of a DNABERT checkpoint whose weights the sequence encoder starts from"
    )
    epochs: float | None = Field(None, gt=0, description="passes over the training examples (default: the preset's)")
    batch_size: int | None = Field(
        None, ge=2, description="examples per step, over all devices together (default: the preset's)"
    )
    accumulate: int = Field(
        1,
        ge=1,
        description="parts in which a device works through its share of a batch, to save memory; SRM's negatives are "
        "those of a part (over all devices)",
    )
    learning_rate: float | None = Field(None, gt=0, description="peak learning rate (default: the preset's)")
    warmup: float | None = Field(
        None, ge=0, lt=1, description="fraction of all examples over which it rises (default: the preset's)"
    )
    weight_decay: float | None = Field(None, ge=0, description="AdamW weight decay (default: the preset's)")
    mask_fraction: float | None = Field(
        None, gt=0, lt=0.5, description="fraction of bases hidden for MGM (default: the preset's)"
    )
    longest_run: int | None = Field(
        None,
        ge=1,
        le=64,
        description="bases are hidden in runs of 1 to so many (default: the preset's; with another --k, 1 if that is "
        "1, else 6)",
    )
    mgm_weight: float | None = Field(None, ge=0, description="weight of MGM, 0 turns it off (default: the preset's)")
    ngsp_weight: float | None = Field(None, ge=0, description="weight of NGSP, 0 turns it off (default: the preset's)")
    srm_weight: float | None = Field(None, ge=0, description="weight of SRM, 0 turns it off (default: the preset's)")
    masking: Masking | None = Field(None, description="hidden-bases or dnabert (default: the preset's)")
    balanced: bool | None = Field(None, description="draw all cell types equally often (default: the preset's)")
    mrm_weight: float | None = Field(
        None, ge=0, description="weight of masked region modelling (default: the preset's)"
    )
    hard_negatives: bool | None = Field(
        None, description="SRM against the same region in another cell type (default: the preset's)"
    )
    rc_weight: float | None = Field(
        None, ge=0, description="weight of reverse-complement consistency (default: the preset's)"
    )
    accessibility_weight: float | None = Field(
        None, ge=0, description="weight of accessibility prediction (default: the preset's)"
    )
    seed: int = Field(0, ge=0, description="seed of weights, order, masks and negatives")
    precision: Precision = Field("fp32", description="arithmetic: fp32, or bf16 mixed precision")
    device: Device = machine("auto", "where to run")
    devices: int = machine(
        1, "processes on this machine: one per GPU, or sharing the CPU's cores; torchrun has its own number", ge=1
    )
    strategy: Strategy = machine("ddp", "what each of several devices holds: the model (ddp), or a share of it (fsdp)")
    workers: int | None = machine(None, "processes per device that make batches (default: 4 for a GPU, else 0)", ge=0)
    attention: Attention = machine("sdpa", "implementation of attention")
    compile: bool = machine(False, "run the network through torch.compile; the first steps take minutes")
    checkpoint_activations: bool = machine(
        False, "keep no activations but those between layers, and compute them again: less memory, a third slower"
    )
    checkpoint_steps: int = machine(100, "steps between checkpoints for resuming", ge=1)
    keep_checkpoints: int = machine(2, "how many of the last checkpoints are kept while it trains", ge=1)
    tensorboard: bool = machine(False, "write the losses for TensorBoard too, into the output folder")
    wandb: str | None = machine(None, "project at Weights & Biases that the losses are sent to")
    estimate: bool = machine(False, "say what it would take (parameters, FLOPs, memory, time) and stop")


class LabelsSettings(StageSettings):
    """What can be set for every task that labels are made for; the tasks are in `genebert.tasks`."""

    genome: Path | None = Field(None, description="genome: FASTA (also bgzip) or 2bit")
    corpus: Path | None = Field(None, description="folder made by prepare, whose held-out chromosomes are taken")
    valid_chromosomes: list[str] = Field([], description="chromosomes for validation, where no --corpus is given")
    test_chromosomes: list[str] = Field([], description="chromosomes held out for testing, where no --corpus is given")
    seed: int = Field(0, ge=0, description="seed of everything that is drawn at random")


class LearningSettings(Settings):
    """How a network learns from labelled windows."""

    epochs: Epochs = 8
    patience: Patience = 3
    batch_size: int = Field(64, ge=2, description="rows per step")
    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate of AdamW")
    weight_decay: WeightDecay = 0.1
    class_weights: bool = Field(False, description="weigh classes by the inverse of their frequency in training")
    device: Device = machine("auto", "where to run")


class TuningSettings(LearningSettings):
    """What a fine-tuned GeneBERT reads, and what of it is trained: for the stage `finetune`, and as a method."""

    mode: Mode = Field(
        "full",
        description="what is trained: full: everything; lora: adapters of rank 8 in both encoders, and the heads; "
        "frozen: the heads; linear-probe: a linear head over the encoders' states",
    )
    modalities: Modalities = Field("both", description="what is read: the sequence, the region matrix, or both")
    encoders: bool = Field(
        True, description="read the states of the encoders; without them, the summary alone: many times as fast"
    )
    region_states: bool = Field(
        True, description="read the states of the region encoder; without them, just the motifs of the window itself"
    )
    summary: bool = Field(True, description="read k-mer counts and the best evidence of each motif directly, too")
    own_accessibility: bool = Field(
        False,
        description="read how accessible the window itself is in its cell type, too; not where that is the question",
    )
    oriented: bool = Field(
        False,
        description="windows are aligned and have a direction (promoters, splice sites): positions and strands are "
        "told apart; else predictions are averaged over both strands",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="dropout on hidden states and in the encoders' head")
    precision: Precision = Field("fp32", description="arithmetic: fp32, or bf16 mixed precision")

    @property
    def reads_encoders(self) -> bool:
        """Whether the states of any encoder are read: for motifs without region states, there are none."""
        return self.encoders and (self.modalities != "motifs" or self.region_states)

    @property
    def tells_cell_types(self) -> bool:
        """Whether anything that is read differs between cell types."""
        reads_regions = self.encoders and self.region_states
        return self.modalities != "sequence" and (reads_regions or (self.summary and self.mode != "linear-probe"))


class FinetuneInputs(StageSettings):
    """What is fine-tuned on what."""

    labels: Path = Field(
        description="CSV or TSV with a header: label (classes), value (a number) or several label:NAME (0, 1, empty); "
        "sequence, or chrom, start, end (0-based, half-open); optionally strand, cell_type, split; or a folder made by "
        "labels"
    )
    model: Path = Field(description="folder made by pretrain")
    valid: Path | None = Field(None, description="labelled validation sequences, if labels has no split column")
    test: Path | None = Field(None, description="labelled test sequences, if labels has no split column")
    genome: Path | None = Field(None, description="genome: FASTA (also bgzip) or 2bit, for labels with coordinates")
    corpus: Path | None = Field(None, description="folder made by prepare, for labels with a cell_type column")


class FinetuneSettings(TuningSettings, FinetuneInputs):
    """Fine-tune a pre-trained model on labelled sequences or windows; baselines are trained beside it."""

    threshold: Literal["half", "valid"] = Field(
        "half", description="from which probability on the second of two classes is predicted: 0.5, or as on validation"
    )
    seeds: int = Field(1, ge=1, description="number of repetitions with consecutive seeds; the predictor averages them")
    seed: int = Field(0, ge=0, description="first seed")
    ensemble: list[str] = Field([], description="further methods whose predictions the predictor averages in")
    network: bool = Field(
        True,
        description="the predictor has a network; without it, it is the methods of --ensemble by themselves, and only "
        "the motifs of the model are used, and which chromosomes it held out",
    )
    scratch: bool = Field(True, description="also train the same network from scratch, to compare")
    baselines: list[str] = Field(["kmer-regression"], description="methods to train beside it, to compare")


class EvaluateSettings(StageSettings):
    """Measure a predictor on labelled sequences or windows that it has not seen."""

    labels: Path = Field(
        description="labelled CSV or TSV, as for finetune; with a split column only its test rows are used"
    )
    model: Path = Field(description="folder made by finetune")
    genome: Path | None = Field(None, description="genome: FASTA (also bgzip) or 2bit, for labels with coordinates")
    corpus: Path | None = Field(None, description="folder made by prepare, for labels with a cell_type column")
    device: Device = machine("auto", "where to run")


class PredictSettings(StageSettings):
    """Predict from sequences (CSV, TSV, FASTA) or windows (BED plus genome)."""

    windows: Path = positional("BED, FASTA, or CSV or TSV with a header, as for finetune, without labels")
    model: Path = Field(description="folder made by finetune")
    genome: Path | None = Field(None, description="genome: FASTA (also bgzip) or 2bit, for coordinates")
    corpus: Path | None = Field(None, description="folder made by prepare, to predict per cell type")
    cell_types: list[str] = Field([], description="cell types to predict for (default: all of the corpus)")
    known: Path | None = Field(
        None, description="labels of the same windows in other cell types, to be put together with predictions"
    )
    format: PredictionFormat = Field("tsv", description="of the predictions; bed and bigwig need coordinates")
    device: Device = machine("auto", "where to run")


def region_file(regions: Sequence[str]) -> Path | None:
    """Return the BED that the setting `regions` names, or None if it lists regions or is empty."""
    return Path(regions[0]) if len(regions) == 1 and Path(regions[0]).is_file() else None


class VariantsSettings(StageSettings):
    """Score SNVs and short indels per cell type: reference and alternate, both modalities updated."""

    vcf: Path = positional("VCF or BCF (gzip allowed)")
    model: Path = Field(description="folder made by finetune, or by pretrain to score without labels")
    genome: Path = Field(description="genome: FASTA (also bgzip) or 2bit")
    corpus: Path | None = Field(
        None, description="folder made by prepare, for a model that was fine-tuned per cell type, or pre-trained"
    )
    cell_types: list[str] = Field([], description="cell types to score (default: all of the corpus)")
    regions: list[str] = Field(
        [], description="where to look for variants: chr1 or chr1:1000-2000 (1-based), or one BED file (default: all)"
    )
    everywhere: bool = Field(False, description="score variants outside the corpus' regions too")
    max_indel: int = Field(50, ge=1, description="longest insertion or deletion to score, in bp")
    max_mismatches: float = Field(
        0.01, ge=0, le=1, description="fraction of alleles whose REF may differ from the genome before that is an error"
    )
    null: int = Field(1000, ge=0, description="random variants like these, for empirical p-values; 0 for none")
    shifts: Annotated[int, AfterValidator(_odd)] = Field(
        1, ge=1, le=101, description="windows per allele, odd, moved around the variant; log-odds are averaged"
    )
    format: VariantFormat = Field("tsv", description="of the table")
    seed: int = Field(0, ge=0, description="of the random variants")
    mutagenesis: int = Field(2, ge=0, description="number of top variants for which in-silico mutagenesis is computed")
    device: Device = machine("auto", "where to run")

    def identity(self) -> dict[str, Any]:
        """Return the settings that determine the result; a BED of regions counts by content, elsewhere."""
        settings = super().identity()
        if region_file(self.regions):
            del settings["regions"]
        return settings


class RiskSettings(StageSettings):
    """Estimate the disease risk of the individuals of a cohort, by nested cross-validation, and what it comes from."""

    vcf: Path = Field(description="VCF or BCF with the genotypes of the cohort, phased (bgzip and an index are faster)")
    phenotypes: Path = Field(description="TSV or CSV with a header: sample, the phenotype, covariates, family")
    model: Path = Field(description="folder made by finetune")
    genome: Path = Field(description="genome: FASTA (also bgzip) or 2bit")
    corpus: Path | None = Field(None, description="folder made by prepare: its regions, and what the model may need")
    regions: Path | None = Field(None, description="BED of the regions (default: those of the corpus)")
    cell_types: list[str] = Field(
        [], description="cell types whose accessible regions are read, and whose effects are averaged (default: all)"
    )
    phenotype: str | None = Field(
        None, description="column of the phenotype (default: phenotype, disease, or the only one left)"
    )
    trait: Literal["auto", "binary", "quantitative"] = Field(
        "auto", description="cases and controls, or a number; auto: what the values say"
    )
    covariates: list[str] = Field([], description="columns of covariates: numbers, or words with few values")
    family: str | None = Field(None, description="column of families, whose members stay in one fold")
    kinship: Path | None = Field(
        None, description="TSV of pairs: sample1, sample2, kinship; relatives (0.0442 or more) stay in one fold"
    )
    components: int = Field(0, ge=0, description="principal components of common variants to add to the covariates")
    folds: int = Field(5, ge=3, description="folds of individuals")
    permutations: int = Field(100_000, ge=1000, description="most permutations for the p value of a region or TF")
    top: int = Field(50, ge=1, description="first regions whose variants are listed")
    max_indel: int = Field(50, ge=1, description="longest insertion or deletion to read, in bp")
    max_mismatches: float = Field(
        0.01, ge=0, le=1, description="fraction of alleles whose REF may differ from the genome before that is an error"
    )
    seed: int = Field(0, ge=0, description="seed of folds and permutations")
    device: Device = machine("auto", "where to run")


class EmbedSettings(StageSettings):
    """Embed regions, examples and cell types as AnnData, with maps; an interrupted run resumes."""

    model: Path = Field(description="folder made by pretrain, or by finetune on labels per cell type")
    corpus: Path = Field(description="folder made by prepare")
    regions: Path | None = Field(None, description="BED: only regions that overlap one of its intervals")
    cell_types: list[str] = Field([], description="cell types to embed (default: all of the corpus)")
    sample: int | None = Field(None, ge=2, description="most regions to embed, drawn at random (default: all)")
    anndata: Path | None = Field(None, description="h5ad of cells x peaks, of which a copy gets embeddings in varm")
    umap: bool = Field(True, description="compute UMAP; principal components are always there")
    precision: Precision = Field("fp32", description="arithmetic: fp32, or bf16 mixed precision")
    seed: int = Field(0, ge=0, description="seed of the sample and of UMAP")
    device: Device = machine("auto", "where to run")


class ExplainSettings(StageSettings):
    """Say which TFs a predictor rests on in each cell type, and which bases of a locus."""

    model: Path = Field(description="folder made by finetune on labels of two classes, per cell type")
    corpus: Path = Field(description="folder made by prepare")
    genome: Path | None = Field(None, description="genome: FASTA (also bgzip) or 2bit, for --locus")
    regions: Path | None = Field(None, description="BED: only regions that overlap one of its intervals")
    cell_types: list[str] = Field([], description="cell types to explain (default: all of the corpus)")
    per_cell_type: int = Field(200, ge=2, description="most regions per cell type, drawn at random")
    most_motifs: int = Field(
        128, ge=1, description="most motifs to occlude: those with the largest gradient x input in any cell type"
    )
    pairs: int = Field(20, ge=0, description="most important motifs of a cell type that are occluded in pairs, too")
    top: int = Field(10, ge=1, description="motifs per cell type in the MEME files and on the page")
    locus: str | None = Field(
        None, description="chrom:start-end (0-based, half-open) whose bases are mutated in the first two cell types"
    )
    seed: int = Field(0, ge=0, description="seed of the sample of regions")
    device: Device = machine("auto", "where to run")


class ReportSettings(StageSettings):
    """Write one self-contained HTML page about a corpus and what was made from it."""

    corpus: Path = Field(description="folder made by prepare")
    pretrained: Path | None = Field(None, description="folder made by pretrain")
    predictors: list[Path] = Field([], description="folders made by finetune")
    variants: Path | None = Field(None, description="folder made by variants")
    risk: Path | None = Field(None, description="folder made by risk")
    title: str = Field("GeneBERT report", description="title of the page")


class InspectSettings(Settings):
    """Print what is in a folder that genebert made."""

    folder: Path = positional("folder made by any stage but benchmark and cross-validate")


class DemoSettings(Settings):
    """Run the whole pipeline on simulated data, or on a folder of real data, and write a report."""

    out: Path = Field(Path("demo"), description="folder to make")
    data: Path | None = Field(None, description="folder of real data (default: simulate)")
    inputs: str = Field(
        "inputs.yaml", description="YAML in the data folder, or shipped with genebert, that names its files"
    )
    seed: int = Field(0, ge=0, description="seed of everything")
    device: Device = machine("auto", "where to run")


class BenchmarkSettings(StageSettings):
    """Compare methods on tasks: each runs on the same rows, with several seeds, beside what others report."""

    suite: Path = positional("YAML that lists tasks, methods and comparisons, see docs/benchmark.md")
    data: Path | None = Field(None, description="folder that the suite's paths start from (default: the suite's own)")
    only: list[str] = Field([], description="names of the tasks and methods to compute (default: all)")
    keep_models: bool = Field(False, description="keep the fitted models too")
    dry_run: bool = Field(False, description="list what there is to compute and stop")


class CrossValidateSettings(StageSettings):
    """Compare methods in cell types and on chromosomes that are both left out, and by what is specific to cell types.

    An interrupted run goes on where it was.
    """

    protocol: Path = positional("YAML that says what is left out, and lists methods, see docs/cross_validation.md")
    data: Path | None = Field(
        None, description="folder that the protocol's paths start from (default: the protocol's own)"
    )
    only: list[str] = Field([], description="names of the methods to compute (default: all)")
    dry_run: bool = Field(False, description="list what there is to compute and stop")

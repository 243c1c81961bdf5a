"""Speed of pre-training, and what its masking hides. Prints JSON.

    python benchmarks/pretraining.py data
    python benchmarks/pretraining.py step
    python benchmarks/pretraining.py levers
    python benchmarks/pretraining.py flops
    python benchmarks/pretraining.py device
    python benchmarks/pretraining.py masking

`data` makes batches on one thread, beside a DNABERT-style pipeline. `step` trains, from the corpus to the optimiser,
beside `transformers.BertForPreTraining`; `levers` changes one thing about either at a time. `flops` compares what a
step computes with what the machine could. `device` runs a preset at several batch sizes; it is meant for a GPU.
`masking` counts what visible tokens tell about masked ones; nothing is trained there.

What is compared is run by turns in one process; speeds and ratios are medians over turns. Without --corpus, one is
simulated: 3,000 elements in 4 Mb, regions of 512 bp, all JASPAR motifs of vertebrates.
"""

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import numpy as np
import torch
from common import Taker, by_turns, corpus_or_simulated, faster, finish
from dnabert_style import (
    Network,
    Options,
    Pipeline,
    fast_tokenizer,
    seconds_per_step,
    slow_tokenizer,
    tokenized,
    without_padding,
)
from lightning.pytorch.callbacks import Callback
from masking import masking_facts
from torch.utils.flop_counter import FlopCounterMode

from genebert.corpus.store import Corpus
from genebert.device import pick_device
from genebert.estimate_pretraining import flops_per_example
from genebert.pretrain import Job
from genebert.sampling import keys
from genebert.schema import decode
from genebert.settings import Device, PretrainSettings
from genebert.tokens import hide_bases
from genebert.training import StepBatches, loader, train

PRECISIONS = ("fp32", "bf16")
PAIRS = 512
"""Sequences that the DNABERT-style pipeline is given, over and over."""
EXAMPLES = 17_000_000
"""Of the paper's corpus."""
PRODUCTS = ((2048, 2048, 2048), (4096, 4096, 4096), (4096, 768, 3072), (4096, 3072, 768), (8192, 8192, 8192))
"""Sizes of matrix products, one of which comes nearest to the peak; the largest on a GPU only."""
Facts = dict[str, Any]


def job_for(corpus: Path, **settings: Any) -> Job:
    """Return what `genebert pretrain` would do with these settings; its output folder is not used."""
    return Job.of(PretrainSettings(out=corpus / "unused", corpus=corpus, **settings))


def synchronize(device: torch.device) -> None:
    """Wait for what the device still computes."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def text_pairs(corpus: Corpus, seed: int = 0) -> tuple[list[tuple[str, str]], list[int]]:
    """Return both halves of regions as text, the second one of another region in half of them; and which are whole."""
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(corpus.regions), PAIRS)
    adjacent = generator.integers(0, 2, PAIRS)
    others = np.where(adjacent == 1, rows, generator.permutation(rows))
    half = corpus.width // 2
    letters = [
        (decode(corpus.sequence[a, :half]), decode(corpus.sequence[b, half:]))
        for a, b in zip(rows, others, strict=True)
    ]
    return letters, adjacent.tolist()


@click.group()
def main() -> None:
    """Measure pre-training."""


def options(*names: str) -> Callable[[Any], Any]:
    """Return a decorator that adds options which several commands have."""
    known = {
        "corpus": click.option(
            "--corpus", type=click.Path(path_type=Path, exists=True), help="folder made by prepare (default: simulated)"
        ),
        "preset": click.option("--preset", default="paper", help="sizes of the network"),
        "precision": click.option("--precision", "precisions", multiple=True, default=PRECISIONS, help="fp32, bf16"),
        "batch": click.option("--batch", default=8, help="examples per step"),
        "steps": click.option("--steps", default=2, help="steps per turn, not counting one to warm up"),
        "runs": click.option("--runs", default=3, help="turns"),
        "threads": click.option("--threads", default=torch.get_num_threads(), help="threads"),
    }

    def decorate(function: Any) -> Any:
        for name in reversed(names):
            function = known[name](function)
        return function

    return decorate


TRAINING = ("corpus", "preset", "precision", "batch", "steps", "runs", "threads")


def each_precision(
    measure: Callable[..., Facts], corpus: Path | None, precisions: Sequence[str], threads: int, **given: Any
) -> None:
    """Measure with each precision, on so many threads, and print it."""
    torch.set_num_threads(threads)
    with corpus_or_simulated(corpus) as folder:
        results = {precision: measure(folder, precision=precision, **given) for precision in precisions}
    finish({"threads": threads, **given, **results})


# ------------------------------------------------------------------------------------------------------------- data


@main.command()
@options("corpus", "preset", "runs")
@click.option("--batch", default=256, help="examples per batch")
@click.option("--rival-batch", default=32, help="the same of the DNABERT-style pipeline")
@click.option("--seconds", "least", default=0.5, help="of each turn, at least")
def data(corpus: Path | None, preset: str, runs: int, batch: int, rival_batch: int, least: float) -> None:
    """Make batches on one thread: processor time of whole batches, and of tokens and masks alone."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with corpus_or_simulated(corpus) as folder, TemporaryDirectory() as scratch:
        job = job_for(folder, preset=preset, batch_size=batch)
        makers = {**our_makers(job), **rival_makers(job, Path(scratch), rival_batch)}
        for make, _ in makers.values():
            make(0)  # what is computed once
        takers = {name: timed_maker(make, size, least) for name, (make, size) in makers.items()}
        seconds = by_turns(runs, takers)
        speeds = {name: round(1 / statistics.median(times), 1) for name, times in seconds.items()}
        whole, alone = (seconds[name] for name in our_makers(job))
        finish(
            {
                "regions": len(job.corpus.regions),
                "examples": len(job.data.examples),
                "motifs": len(job.corpus.motifs),
                "columns": job.data.columns,
                "width": job.corpus.width,
                "k": job.data.k,
                "batch": job.data.batch_size,
                "threads": 1,
                "examples_per_second": speeds,
                "whole_batches_are_faster_by": {n: faster(t, whole) for n, t in seconds.items() if n in RIVAL_DATA},
                "tokens_and_masks_are_faster_by": {n: faster(t, alone) for n, t in seconds.items() if n in RIVAL_DATA},
            }
        )


RIVAL_DATA = ("DNABERT-style", "the same, tokenizer in Rust", "the same, tokenized beforehand")
Maker = tuple[Callable[[int], Any], int]
"""Makes the batch of a number, of so many examples."""


def our_makers(job: Job) -> dict[str, Maker]:
    """Whole batches (tokens, masks, pairs, region matrices), and tokens and masks alone."""
    made, corpus = job.data, job.corpus

    def tokens_and_masks(step: int) -> Any:
        positions = np.arange(step * made.batch_size, (step + 1) * made.batch_size)
        codes = corpus.sequence[positions % len(corpus.regions)]
        return hide_bases(codes, made.k, made.mask_fraction, keys(0, positions), made.longest_run)

    return {
        "genebert": (made.batch, made.batch_size),
        "genebert, tokens and masks": (tokens_and_masks, made.batch_size),
    }


def rival_makers(job: Job, scratch: Path, size: int) -> dict[str, Maker]:
    """Tokens and masks from text; sequences are text already, which is not counted."""
    pairs, adjacent = text_pairs(job.corpus)
    slow, fast = slow_tokenizer(job.data.k, scratch), fast_tokenizer(job.data.k)
    pipelines = (
        Pipeline(pairs, adjacent, job.data.k, slow),
        Pipeline(pairs, adjacent, job.data.k, fast),
        Pipeline(pairs, adjacent, job.data.k, slow, tokenized(pairs, job.data.k, fast)),
    )
    return {name: (partial(numbered, made, size), size) for name, made in zip(RIVAL_DATA, pipelines, strict=True)}


def numbered(pipeline: Pipeline, size: int, step: int) -> Any:
    """Return the rival's batch of a step."""
    return pipeline.batch(step * size, size)


def timed_maker(make: Callable[[int], Any], size: int, least: float) -> Taker:
    """Return what makes batches for a while, and tells the processor seconds per example."""

    def take() -> float:
        began, step = time.process_time(), 0
        while (spent := time.process_time() - began) < least:
            step += 1
            make(step)
        return spent / (step * size)

    return take


# ------------------------------------------------------------------------------------------------------------- step


@dataclass
class Ours:
    """Training as `genebert pretrain` does it.

    Attributes:
        job: what to train on what.
    """

    job: Job

    def __post_init__(self) -> None:
        self.model = self.job.new_model()
        self.learner = self.job.learner(self.model)

    def seconds(self, steps: int) -> float:
        """Train some steps and one before, which is not counted; return the mean time of a step, its data included."""
        settings, ends = self.job.settings, Ends(self.job.device, (0, steps))
        self.learner.schedule = replace(self.learner.schedule, steps=steps + 1)
        train(
            self.learner,
            self.job.data.batch,
            description="benchmark",
            batch_size=self.job.data.batch_size,
            extra=[ends],
            device=settings.device,
            precision=settings.precision,
            workers=self.job.workers,
        )
        first, last = ends.times
        return (last - first) / steps


class Ends(Callback):
    """Notes when some steps ended; only then it waits for the device."""

    def __init__(self, device: torch.device, steps: Sequence[int]) -> None:
        self.device = device
        self.steps = steps
        self.times: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx in self.steps:
            synchronize(self.device)
            self.times.append(time.perf_counter())


WITHOUT_REGIONS = {"srm_weight": 0.0}
"""Settings that leave the tasks of the sequence alone, and the region encoder off."""
RIVALS = ("BertForPreTraining, DNABERT-style data", "BertForPreTraining, ready tensors", "the same, at its best")
OURS = ("genebert, sequence tasks", "genebert, all tasks")
BEST = Options(attention_dropout=0.0, fused=True)
"""Options of the library that make it faster, and change no result beyond the lack of a dropout."""


@main.command()
@options(*TRAINING)
def step(**given: Any) -> None:
    """Train: the whole loop, from the corpus to the optimiser, beside BertForPreTraining of the same size.

    The rival has the data as text, padded to 512 tokens; then the same batches as ready tensors; then these without
    padding, no dropout of attention probabilities, and AdamW in one kernel.
    """
    each_precision(compare_steps, **given)


def compare_steps(corpus: Path, preset: str, precision: str, batch: int, steps: int, runs: int) -> Facts:
    """Return examples per second of all, the ratios, and where our time goes."""
    common = {"preset": preset, "precision": precision, "batch_size": batch, "device": "cpu"}
    jobs = [job_for(corpus, **common, **settings) for settings in (WITHOUT_REGIONS, {})]
    ours = dict(zip(OURS, map(Ours, jobs), strict=True))
    with TemporaryDirectory() as scratch:
        rivals = rival_steps(jobs[0], precision, Path(scratch))
        takers = rivals | {name: one.seconds for name, one in ours.items()}
        seconds = by_turns(runs, {name: partial(taker, steps) for name, taker in takers.items()})
    return {
        "examples_per_second": {name: round(batch / statistics.median(times), 3) for name, times in seconds.items()},
        "faster_by": {name: {rival: faster(seconds[rival], seconds[name]) for rival in RIVALS} for name in OURS},
        "shares_of_our_time": {name: phases(one, steps) for name, one in ours.items()},
    }


def rival_steps(job: Job, precision: str, scratch: Path) -> dict[str, Callable[[int], float]]:
    """Return what trains the rival for some steps and tells how long one took."""
    network = rival_network(job, precision)
    pipeline = rival_pipeline(job, scratch)
    size, tokens = job.data.batch_size, job.corpus.width - 2 * job.data.k + 5
    ready = [pipeline.batch(i * size, size) for i in range(2)]
    shorter = [without_padding(one, tokens) for one in ready]
    takers = (
        lambda steps: seconds_per_step(network, partial(numbered, pipeline, size), Options(), steps),
        lambda steps: seconds_per_step(network, lambda step: ready[step % 2], Options(), steps),
        lambda steps: seconds_per_step(network, lambda step: shorter[step % 2], BEST, steps),
    )
    return dict(zip(RIVALS, takers, strict=True))


def rival_network(job: Job, precision: str) -> Network:
    """Return the rival in the size of our sequence encoder."""
    sizes = job.preset.model
    return Network(
        sizes.k,
        job.device,
        bf16=precision == "bf16",
        hidden_size=sizes.hidden_size,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.hidden_size,
    )


def rival_pipeline(job: Job, scratch: Path) -> Pipeline:
    pairs, adjacent = text_pairs(job.corpus)
    return Pipeline(pairs, adjacent, job.data.k, slow_tokenizer(job.data.k, scratch))


class Stopwatch:
    """Adds up the time of parts by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        began = self._now()
        yield
        self._add(name, began)

    def watch(self, module: torch.nn.Module, name: str) -> None:
        """Time the forward passes of a module."""
        began: list[float] = []
        module.register_forward_pre_hook(lambda *_: began.append(self._now()))
        module.register_forward_hook(lambda *_: self._add(name, began.pop()))

    def _now(self) -> float:
        synchronize(self.device)
        return time.perf_counter()

    def _add(self, name: str, began: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + self._now() - began


def phases(ours: Ours, steps: int) -> dict[str, float]:
    """Return the share of a step that each of its parts takes, of a plain loop over the same parts as training's."""
    job, learner = ours.job, ours.learner
    watch, base = Stopwatch(job.device), ours.model.genebert
    watch.watch(base.sequence_encoder.bert, "BERT, forward")
    watch.watch(base.region_encoder.swin, "Swin, forward")
    optimizer = learner.configure_optimizers()["optimizer"]
    ours.model.to(job.device).train()
    for step in range(steps + 1):
        if step == 1:
            watch.seconds.clear()  # the first one warms up
        with watch.time("data"):
            batch = job.data.batch(step).to(job.device)
        with (
            watch.time("forward"),
            torch.autocast(job.device.type, torch.bfloat16, enabled=job.settings.precision == "bf16"),
        ):
            loss = learner.training_step(batch, step)
        with watch.time("backward"):
            loss.backward()  # type: ignore[no-untyped-call]
        with watch.time("clipping of gradients"):
            torch.nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        with watch.time("AdamW"):
            optimizer.step()
            optimizer.zero_grad()
    parts = watch.seconds
    encoders = [name for name in parts if name.endswith(", forward")]
    parts["heads and losses, forward"] = parts.pop("forward") - sum(parts[name] for name in encoders)
    whole = sum(parts.values())
    return {name: round(value / whole, 4) for name, value in parts.items()}


# ----------------------------------------------------------------------------------------------------------- levers

LEVERS = {
    "as it comes": Options(),
    "no dropout of attention": Options(attention_dropout=0.0),
    "no dropout": Options(attention_dropout=0.0, hidden_dropout=0.0),
    "logits at scored tokens only": Options(scored_only=True),
    "fused AdamW": Options(fused=True),
    "eager attention": Options(attention="eager"),
    "eager attention, no dropout of attention": Options(attention="eager", attention_dropout=0.0),
    "torch.compile": Options(compiled=True),
    "no dropout of attention, scored tokens only, fused AdamW": Options(0.0, fused=True, scored_only=True),
}
"""Of the rival."""
OUR_LEVERS: dict[str, Facts] = {
    "as it comes": {},
    "eager attention": {"attention": "eager"},
    "torch.compile": {"compile": True},
    "activations computed again": {"checkpoint_activations": True},
}


@main.command()
@options(*TRAINING)
def levers(**given: Any) -> None:
    """Change one thing about a step at a time: how many times as fast each makes it."""
    each_precision(pull_levers, **given)


def pull_levers(corpus: Path, preset: str, precision: str, batch: int, steps: int, runs: int) -> Facts:
    common = {"preset": preset, "precision": precision, "batch_size": batch, "device": "cpu"}
    jobs = {name: job_for(corpus, **common, **WITHOUT_REGIONS, **settings) for name, settings in OUR_LEVERS.items()}
    job = jobs["as it comes"]
    with TemporaryDirectory() as scratch:
        ready = rival_pipeline(job, Path(scratch)).batch(0, job.data.batch_size)
    network = rival_network(job, precision)
    rival = {
        name: partial(seconds_per_step, network, lambda _: ready, chosen, steps) for name, chosen in LEVERS.items()
    }
    ours = {name: partial(once, one, steps) for name, one in jobs.items()}
    return {"BertForPreTraining": gains(by_turns(runs, rival)), "genebert": gains(by_turns(runs, ours))}


def once(job: Job, steps: int) -> float:
    """Measure a model that is made for it, so that memory holds one at a time."""
    return Ours(job).seconds(steps)


def gains(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    first = next(iter(seconds.values()))
    return {name: faster(first, times) for name, times in seconds.items()}


# ------------------------------------------------------------------------------------------------------------ flops


@main.command()
@options(*TRAINING)
def flops(**given: Any) -> None:
    """Compare the floating-point operations of a step with what matrix products reach on the same cores."""
    each_precision(achieved, **given)


def achieved(corpus: Path, preset: str, precision: str, batch: int, steps: int, runs: int) -> Facts:
    common = {"preset": preset, "precision": precision, "batch_size": batch, "device": "cpu"}
    jobs = dict(zip(OURS, (job_for(corpus, **common, **chosen) for chosen in (WITHOUT_REGIONS, {})), strict=True))
    ours = {name: Ours(job) for name, job in jobs.items()}
    takers: dict[str, Taker] = {name: partial(one.seconds, steps) for name, one in ours.items()}
    takers["peak"] = lambda: peak(precision, jobs[OURS[0]].device)
    found = by_turns(runs, takers)
    best = max(found["peak"])
    facts: Facts = {"peak_gflop_per_second": round(best / 1e9, 1)}
    for name, one in ours.items():
        count = flops_per_example(one.model, one.job.data.batch(0))
        speed = count * batch / statistics.median(found[name])
        facts[name] = {
            "gflop_per_example": round(count / 1e9, 2),
            "counted_by_torch_over_that": round(counted_flops(one.job) / count, 4),
            "gflop_per_second": round(speed / 1e9, 1),
            "of_peak": round(speed / best, 3),
        }
    return facts


def peak(precision: str, device: torch.device, repeats: int = 5) -> float:
    """Return the FLOP/s of the fastest matrix product."""
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    best = 0.0
    for rows, columns, inner in PRODUCTS[: None if device.type == "cuda" else -1]:
        left = torch.randn(rows, inner, dtype=kind, device=device)
        right = torch.randn(columns, inner, dtype=kind, device=device)
        for _ in range(repeats):
            synchronize(device)
            began = time.perf_counter()
            torch.nn.functional.linear(left, right)
            synchronize(device)
            best = max(best, 2 * rows * columns * inner / (time.perf_counter() - began))
    return best


def counted_flops(job: Job) -> float:
    """Return the FLOPs of an example as torch counts them; it does not know the fused attention of the CPU."""
    eager = replace(job, settings=job.settings.model_copy(update={"attention": "eager"}))
    learner, batch = eager.learner(eager.new_model()), job.data.batch(0)
    with FlopCounterMode(display=False) as counter:
        learner.training_step(batch, 0).backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops()) / len(batch.region)


# ----------------------------------------------------------------------------------------------------------- device


@main.command()
@options("corpus", "preset")
@click.option("--steps", default=100, help="steps, not counting one to warm up; many more than are made ahead")
@click.option("--device", default="cuda", help="cuda or cpu")
@click.option("--precision", default="bf16", help="bf16 or fp32")
@click.option("--batches", default="64,128,256,512", help="batch sizes")
@click.option("--compile/--no-compile", "compiled", default=True, help="measure torch.compile too")
@click.option("--workers", type=int, help="processes that make batches")
def device(
    corpus: Path | None,
    preset: str,
    steps: int,
    device: Device,
    precision: str,
    batches: str,
    compiled: bool,
    workers: int | None,
) -> None:
    """Train a preset at several batch sizes, with and without torch.compile; meant for a GPU."""
    place = pick_device(device)
    best = peak(precision, place)
    rows = []
    with corpus_or_simulated(corpus) as folder:
        for compile_it in (False, True)[: 1 + compiled]:
            for size in map(int, batches.split(",")):
                settings: Facts = {"preset": preset, "precision": precision, "device": device, "workers": workers}
                job = job_for(folder, **settings, batch_size=size, compile=compile_it)
                rows.append({"compile": compile_it, "batch": job.data.batch_size, **on_device(job, steps, best)})
                print(json.dumps(rows[-1]), file=sys.stderr)
    finish({"preset": preset, "precision": precision, "peak_tflop_per_second": round(best / 1e12, 3), "rows": rows})


def on_device(job: Job, steps: int, best: float) -> Facts:
    """Measure one batch size; say so if it does not fit."""
    if job.device.type == "cuda":
        gc.collect()  # of the size before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    try:
        ours = Ours(job)
        seconds = ours.seconds(steps)
    except torch.cuda.OutOfMemoryError:
        return {"out_of_memory": True}
    size = job.data.batch_size
    flop = flops_per_example(ours.model, job.data.batch(0)) * size / seconds
    facts: Facts = {
        "examples_per_second": round(size / seconds, 1),
        "tflop_per_second": round(flop / 1e12, 4),
        "of_peak": round(flop / best, 3),
        f"hours_for_{EXAMPLES:,}_examples": round(EXAMPLES / size * seconds / 3600, 2),
    }
    if job.device.type == "cuda":
        facts["peak_memory_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    facts["loader_alone_examples_per_second"] = round(loading_speed(job, steps), 1)
    if not job.settings.compile:  # parts of a compiled network have no time of their own
        facts["shares_of_a_step_without_loader_processes"] = phases(ours, steps)
    return facts


def loading_speed(job: Job, steps: int) -> float:
    """Return examples per second of the loader when nobody trains."""
    count = max(8, steps) * max(1, job.workers)
    batches = iter(loader(StepBatches(job.data.batch, 0, count + 1), job.device, job.workers))
    next(batches)
    began = time.perf_counter()
    for _ in batches:
        pass
    return count * job.data.batch_size / (time.perf_counter() - began)


# ---------------------------------------------------------------------------------------------------------- masking


@main.command()
@options("corpus")
@click.option("--regions", default=1000, help="regions of the held-out chromosomes, at most")
def masking(corpus: Path | None, regions: int) -> None:
    """Count what visible tokens tell about masked ones, and let a reader fill in the rest; nothing is learned."""
    with corpus_or_simulated(corpus) as folder:
        finish(masking_facts(Corpus.open(folder), regions))


if __name__ == "__main__":
    main()

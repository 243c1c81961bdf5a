"""The verb `benchmark`: cells that are not there yet are computed, then everything that is there is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from genebert.benchmark.cells import Cell, cells_of, open_scanner, read_task
from genebert.benchmark.entries import MethodEntry
from genebert.benchmark.fits import all_kept, misfit
from genebert.benchmark.output import Row, check_folder, facts_of_method, raise_failures, selection, write_results
from genebert.benchmark.pretrained import CHROMOSOMES, pretrained_of, seen_chromosomes
from genebert.benchmark.results import facts_of, published_results, results_of
from genebert.benchmark.suite import Published, Suite, TaskEntry, read_published, read_suite
from genebert.console import say, table
from genebert.errors import ResumableError, UserError
from genebert.inputs.scan import Scanner
from genebert.labelled import Labelled
from genebert.report.benchmark import benchmark_page
from genebert.settings import BenchmarkSettings
from genebert.stage import Manifest, sha256_of, software_versions

PAGE = "benchmark.html"
COLUMNS = (
    "task",
    "method",
    "rows",
    "measure",
    "value",
    "low",
    "high",
    "seeds",
    "lowest_seed",
    "highest_seed",
    "n",
    "source",
    "citation",
    "setting",
    "parameters",
)
"""Of the table of results. Ours have no citation and parameters, those of others no interval and seeds. The setting
is as others state it, and of an ensemble its members."""


@dataclass
class Results:
    """What is known of a suite so far; every list holds rows of JSON values.

    Attributes:
        tasks: what each consists of.
        results: measures of methods, ensembles and others.
        comparisons: paired differences.
        costs: what methods took.
        missing: (task, method) without results, why, and whether that is a failure.
    """

    tasks: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    comparisons: list[Row] = field(default_factory=list)
    costs: list[Row] = field(default_factory=list)
    missing: list[Row] = field(default_factory=list)

    def miss(self, task: TaskEntry, entry: MethodEntry, reason: str, *, failed: bool = True) -> None:
        """Note that there are no results of a method on a task."""
        self.missing.append({"task": task.name, "method": entry.name, "reason": reason, "failed": failed})

    @property
    def failures(self) -> list[Row]:
        """What is missing and should not be."""
        return [row for row in self.missing if row["failed"]]


def benchmark(settings: BenchmarkSettings) -> Path:
    """Compute what is missing of a suite, and measure all that is there.

    Each cell (task, method, seed) has a folder under runs/, which appears when it is complete and is used again as
    long as nothing that it depends on has changed. Writes results.json, results.parquet and benchmark.html.

    Raises:
        UserError: the suite or the folder cannot be used; or, after all else is done and written, something failed.
    """
    suite = read_suite(settings.suite, settings.data)
    published = read_published(suite.published) if suite.published else []
    chosen = selection([suite.tasks, suite.methods], settings.only)
    check_folder(settings.out, "benchmark", "suite")
    models = {task.name: _pretrained(suite, task) for task in suite.tasks}  # a wrong model is said before work
    scanner = open_scanner(suite)
    cells = cells_of(suite, scanner, settings.out)
    to_do = [
        cell
        for cell in cells
        if cell.task.name in chosen and cell.method.name in chosen and not cell.is_done(settings.keep_models)
    ]
    if settings.dry_run:
        _show(cells, to_do)
        return settings.out
    say(f"{len(cells)} cells (task, method, seed), {len(to_do)} of them to be computed")
    work = _Work(suite, models, cells, to_do, scanner, settings.keep_models)
    for task in suite.tasks:
        work.measure(task, published)
    _write(settings, suite, work.results)
    say(f"{settings.out / PAGE}: open it in a browser")
    raise_failures(f"{row['task']}, {row['method']}: {row['reason']}" for row in work.results.failures)
    return settings.out


def _pretrained(suite: Suite, task: TaskEntry) -> dict[str, Manifest | None]:
    """Return method -> the model that it begins with."""
    return {entry.name: pretrained_of(entry, [CHROMOSOMES]) for entry in suite.methods_of(task)}


def _show(cells: Sequence[Cell], to_do: Sequence[Cell]) -> None:
    rows = []
    for key, own in _by_method(cells).items():
        done = [cell for cell in own if cell.is_done()]
        seconds = f"{mean(cell.cost()['seconds_to_fit'] for cell in done):,.0f}" if done else "unknown"
        rows.append((*key, len(own), sum(cell in to_do for cell in own), seconds))
    table("Cells", ("Task", "Method", "Seeds", "To be computed", "Seconds to fit one"), rows)


def _by_method(cells: Sequence[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Return (task, method) -> its cells, one per seed, in the order of the suite."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.task.name, cell.method.name), []).append(cell)
    return found


@dataclass
class _Work:
    """A benchmark at work.

    Attributes:
        suite: the suite.
        models: task -> method -> the pre-trained model that it begins with, if any.
        cells: all of it.
        to_do: those that are to be computed.
        scanner: of the motif collection.
        keep_models: whether fitted models are kept.
        results: so far.
    """

    suite: Suite
    models: Mapping[str, Mapping[str, Manifest | None]]
    cells: Sequence[Cell]
    to_do: Sequence[Cell]
    scanner: Scanner
    keep_models: bool
    results: Results = field(default_factory=Results)

    def measure(self, task: TaskEntry, published: Sequence[Published]) -> None:
        """Compute what is to be computed of a task, and measure what is there."""
        try:
            labelled = read_task(task, self.scanner, self.suite.seed)
            facts, truth = facts_of(task, labelled)
            runs = self._runs(task, labelled)
            say(f"measuring {task.name}")
            found, comparisons = results_of(self.suite, task, labelled.target, truth, runs)
        except ResumableError:
            raise
        except UserError as error:
            for entry in self.suite.methods_of(task):
                self.results.miss(task, entry, str(error))
            return
        self.results.tasks.append(facts | {"seen": self._seen(task, labelled)})
        self.results.results += found + published_results(published, task, facts["measures"])
        self.results.comparisons += comparisons

    def _seen(self, task: TaskEntry, labelled: Labelled) -> dict[str, list[str]]:
        """Return method -> what its model has seen of what is tested on, in words, and say it."""
        every = {
            name: seen_chromosomes(model, labelled.windows["test"]) for name, model in self.models[task.name].items()
        }
        seen = {name: said for name, said in every.items() if said}
        for name, said in seen.items():
            say(f"{task.name}, {name}: {'; '.join(said)}")
        return seen

    def _runs(self, task: TaskEntry, labelled: Labelled) -> dict[str, list[Any]]:
        """Return method -> the predictions of each seed, of the methods all of whose seeds are there."""
        found = {}
        for (task_name, name), cells in _by_method(self.cells).items():
            if task_name != task.name:
                continue
            if self._complete(cells, labelled):
                found[name] = [cell.predictions() for cell in cells]
                self.results.costs.append(_cost(cells, len(labelled.windows["test"])))
        return found

    def _complete(self, cells: Sequence[Cell], labelled: Labelled) -> bool:
        """Compute the cells of a method on a task, as far as they are to be; tell whether all are there."""
        task, entry = cells[0].task, cells[0].method
        what = misfit(entry, labelled.target.kind)
        if what:
            self.results.miss(task, entry, what, failed=False)
            return False
        return all_kept(
            cells,
            self.to_do,
            lambda cell: cell.compute(labelled, keep_model=self.keep_models),
            partial(self.results.miss, task, entry),
        )


def _cost(cells: Sequence[Cell], rows: int) -> Row:
    """Return what a method took on a task, on average over its seeds."""
    every = [cell.cost() for cell in cells]
    fit, predict = (mean(cost[name] for cost in every) for name in ("seconds_to_fit", "seconds_to_predict"))
    return {
        "task": cells[0].task.name,
        "method": cells[0].method.name,
        "seconds_to_fit": fit,
        "seconds_to_predict": predict,
        "sequences_per_second": rows / predict,
        "machine": "; ".join(sorted({cost["machine"] for cost in every})),
    }


def _write(settings: BenchmarkSettings, suite: Suite, results: Results) -> None:
    document = {
        "title": suite.title,
        "suite": {"path": str(settings.suite), "sha256": sha256_of(settings.suite)},
        "software": software_versions(),
        "methods": [_facts_of(suite, entry) for entry in suite.methods],
        "ensembles": {one.name: one.of for one in suite.ensembles},
        **asdict(results),
    }
    write_results(settings.out, document, results.results, COLUMNS, PAGE, benchmark_page)


def _facts_of(suite: Suite, entry: MethodEntry) -> Row:
    """Return what a method is: its options, those that differ from the defaults, and those of single tasks."""
    options = entry.configured.model_dump(mode="json")
    on_tasks = {
        task.name: {name: value for name, value in there.items() if value != options[name]}
        for task in suite.tasks
        for one in suite.methods_of(task)
        if one.name == entry.name and (there := one.configured.model_dump(mode="json")) != options
    }
    return facts_of_method(suite, entry) | {"on_tasks": on_tasks}

"""The command line: verbs, their settings and their functions, each imported only when it is called."""

import csv
import os
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_origin

import click

from genebert import __version__
from genebert.errors import UserError, problem

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from genebert.settings import Settings

USER_MISTAKE = 2
_LISTS = """An option that takes ITEM[,ITEM...] can be repeated. An item that holds a comma is quoted, as in
'"a, b",c', or is one of a YAML list in --config."""


class Verb(NamedTuple):
    """A verb's function as "module:function", its settings class, or None if it has several, and its one-line help."""

    target: str
    settings: str | None
    help: str


VERBS = {
    "demo": Verb("genebert.demo:demo", "DemoSettings", "Run the whole pipeline and write a report."),
    "simulate": Verb("genebert.simulate:simulate", "SimulateSettings", "Make a genome, peaks, variants and the truth."),
    "doctor": Verb("genebert.doctor:doctor", "DoctorSettings", "Check the inputs of a corpus, in plain words."),
    "prepare": Verb(
        "genebert.corpus.build:prepare", "PrepareSettings", "Build a corpus from genome, ATAC-seq, motifs."
    ),
    "add-cell-type": Verb(
        "genebert.add_cell_type:add_cell_type", "AddCellTypeSettings", "Add cell types to a corpus by their ATAC-seq."
    ),
    "export": Verb("genebert.export:export", "ExportSettings", "Write a corpus as AnnData or Parquet."),
    "inspect": Verb("genebert.inspect:inspect", "InspectSettings", "Print what a folder made by genebert holds."),
    "pretrain": Verb("genebert.pretrain:pretrain", "PretrainSettings", "Pre-train on a corpus: MGM, NGSP and SRM."),
    "labels": Verb("genebert.tasks.labels:labels", None, "Make labelled windows of a task, for fine-tuning."),
    "finetune": Verb("genebert.finetune:finetune", "FinetuneSettings", "Fine-tune on labels, with baselines."),
    "evaluate": Verb("genebert.predict:evaluate", "EvaluateSettings", "Measure a predictor on unseen labels."),
    "predict": Verb("genebert.predict:predict", "PredictSettings", "Predict for sequences or genomic windows."),
    "variants": Verb("genebert.variants.run:variants", "VariantsSettings", "Score variants of a VCF per cell type."),
    "risk": Verb("genebert.risk.stage:risk", "RiskSettings", "Estimate the disease risk of a cohort's individuals."),
    "embed": Verb(
        "genebert.embedding.run:embed", "EmbedSettings", "Embed regions and cell types as AnnData, with maps."
    ),
    "explain": Verb("genebert.explanation.run:explain", "ExplainSettings", "Say which TFs a predictor rests on."),
    "benchmark": Verb("genebert.benchmark.run:benchmark", "BenchmarkSettings", "Compare methods on tasks of a suite."),
    "cross-validate": Verb(
        "genebert.cross_validation.run:cross_validate",
        "CrossValidateSettings",
        "Compare methods in new cell types on new chromosomes.",
    ),
    "report": Verb("genebert.report.build:report", "ReportSettings", "Write a self-contained HTML report."),
}


class LazyGroup(click.Group):
    """Lists its commands without importing them."""

    def one_line_helps(self) -> dict[str, str]:
        """Return the verbs with their help, in the order in which they are used."""
        return {name: verb.help for name, verb in VERBS.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return list(self.one_line_helps())

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Build the command of a verb from its settings class, or return None if there is no such verb."""
        if name not in VERBS:
            return None
        target, settings, description = VERBS[name]
        if settings is None:
            return TaskGroup(name, help=f"{description} Each task has its own options: genebert {name} TASK --help.")
        return command_of(name, target, getattr(import_module("genebert.settings"), settings))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one line per command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.one_line_helps().items()))


class TaskGroup(LazyGroup):
    """The tasks that labels are made for, each a command; see `genebert.tasks`."""

    def one_line_helps(self) -> dict[str, str]:
        """Return the tasks with their help."""
        from genebert.tasks import task_help, task_names

        return {name: task_help(name) for name in task_names()}

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Build the command of a task from its class, or return None if there is no such task."""
        from genebert.tasks import task_class, task_names

        if name not in task_names():
            return None
        return command_of(f"labels {name}", VERBS["labels"].target, task_class(name))


def command_of(name: str, target: str, settings: "type[Settings]") -> click.Command:
    """Return the click command that calls a function, and whose parameters are the fields of a settings class.

    Args:
        name: as the user calls it.
        target: the function, as "module:function".
        settings: the class.
    """
    parameters: list[click.Parameter] = [_parameter(key, field) for key, field in settings.model_fields.items()]
    parameters.append(
        click.Option(
            ["--config"],
            type=click.Path(dir_okay=False, path_type=Path),
            help="YAML with any of these options, lists included; the command line wins",
        )
    )
    return click.Command(
        name,
        params=parameters,
        callback=lambda **given: run(name, target, settings, given),
        help=settings.__doc__,
        epilog=_LISTS if any(parameter.multiple for parameter in parameters) else None,
    )


def _parameter(key: str, field: "FieldInfo") -> click.Parameter:
    if _is_positional(field):
        return click.Argument([key], type=str, required=False, metavar=key.upper())  # it may come from --config
    flag = f"--{key.replace('_', '-')}"
    description = field.description or ""
    if field.is_required():
        description += " [required]"
    elif field.default not in (None, []):
        default = ", ".join(field.default) if isinstance(field.default, list) else field.default
        description += f" [default: {default}]"
    kinds = field.annotation, *get_args(field.annotation)  # of `Kind` and of `Kind | None`
    if bool in kinds:
        return click.Option([f"{flag}/--no-{flag[2:]}", key], default=None, help=description)
    choices = [str(choice) for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    is_list = get_origin(field.annotation) is list
    return click.Option(
        [flag, key],
        multiple=is_list,
        default=None,
        help=description,
        metavar="|".join(choices) or ("ITEM[,ITEM...]" if is_list else None),
    )


def _is_positional(field: "FieldInfo | None") -> bool:
    extra = None if field is None else field.json_schema_extra
    return isinstance(extra, dict) and bool(extra.get("positional"))


def run(name: str, target: str, settings: "type[Settings]", given: dict[str, Any]) -> None:
    """Check what the user gave, call the function, and turn a user's mistake into exit code 2."""
    try:
        values = _split_lists(settings, _read_config(given.pop("config")))
        for key, value in given.items():
            if value is None or value == ():
                continue
            values[key] = _items(key, value) if isinstance(value, tuple) else value
        module, function = target.split(":")
        checked = _validate(name, settings, values)
        verb: Callable[[Settings], object] = getattr(import_module(module), function)
        verb(checked)
    except UserError as error:
        _fail(str(error))
    except OSError as error:
        where = error.filename or "the output folder"
        reason = error.strerror or str(error)
        remedy = "Free space, or correct the path or its permissions, then run the same command again"
        _fail(problem(where, reason, f"{remedy}; earlier results are untouched."))


def _split_lists(settings: "type[Settings]", values: dict[str, Any]) -> dict[str, Any]:
    """Take a text that a configuration gives for a list as the command line does: its items are parted by commas."""
    lists = {key for key, field in settings.model_fields.items() if get_origin(field.annotation) is list}
    return {key: _items(key, [one]) if key in lists and isinstance(one, str) else one for key, one in values.items()}


def _items(key: str, words: Iterable[str]) -> list[str]:
    """Split the words given to a list option at commas, as a line of CSV: an item with a comma is quoted."""
    items: list[str] = []
    for word in words:
        try:
            rows = list(csv.reader([word], skipinitialspace=True, strict=True))
        except csv.Error as error:
            option, remedy = f"--{key.replace('_', '-')} {word}", """Quote an item that holds a comma: '"a, b",c'."""
            raise UserError(problem(option, f"it is no list ({error})", remedy)) from None
        items += [item for row in rows for item in row if item]
    return items


def _validate(name: str, settings: "type[Settings]", values: dict[str, Any]) -> "Settings":
    from pydantic import ValidationError

    try:
        return settings.model_validate(values)
    except ValidationError as error:
        lines = [f"genebert {name} cannot start:"]
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"]).replace("_", "-")
            if item["type"] == "missing":
                what = key.upper() if _is_positional(settings.model_fields.get(key)) else f"--{key}"
                lines.append(f"  - {what} is required. See `genebert {name} --help`.")
            elif item["type"] == "extra_forbidden":
                lines.append(f"  - {key} in --config is no option. See `genebert {name} --help`.")
            else:
                lines.append(f"  - --{key} {item['input']}: {item['msg']}.")
        raise UserError("\n".join(lines)) from None


def _read_config(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    import yaml

    try:
        values = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(
            problem(path, f"the configuration cannot be read ({error.strerror})", "Check --config.")
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(problem(path, f"the configuration is no valid YAML ({error})", "Correct it.")) from None
    if not isinstance(values, dict):
        raise UserError(
            problem(path, "the configuration is no mapping of options to values", "Write `option: value` lines.")
        )
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def _fail(message: str) -> None:
    click.echo(f"error: {message}", err=True)
    sys.exit(USER_MISTAKE)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="genebert")
def main() -> None:
    """Pre-train on DNA sequence and TF x region matrices from ATAC-seq, and apply it across cell types.

    \b
    genome, peaks, motifs -> prepare -> corpus -> pretrain -> model -> finetune -> predictor -> predict
    """
    # Threads that wait sleep, and leave the core to those that work: on a busy machine that is many times faster.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


if __name__ == "__main__":
    main()

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import genebert
from genebert import settings
from genebert.cli import VERBS, main
from genebert.tasks import task_names

HEAVY = ("torch", "pandas", "numpy", "transformers", "lightning", "sklearn", "scipy")


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def functions_of(module: str) -> set[str]:
    """Names of the functions that a module defines or takes from others, without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    taken = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    return defined | taken


def test_help_lists_the_verbs_and_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "genebert.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert [verb for verb in VERBS if f"\n  {verb} " not in done.stdout] == []
    loaded = {
        line.split("|")[-1].strip().split(".")[0] for line in done.stderr.splitlines() if line.startswith("import time")
    }
    assert "click" in loaded
    assert loaded.isdisjoint({*HEAVY, "pydantic"})


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    script = (
        "import sys; from click.testing import CliRunner; from genebert.cli import VERBS, main\n"
        "for verb in VERBS: assert CliRunner().invoke(main, [verb, '--help']).exit_code == 0, verb\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_loads_nothing_heavy() -> None:
    script = f"import sys, genebert; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("verb", [name for name, verb in VERBS.items() if verb.settings])
def test_help_of_a_verb_names_its_settings(verb: str) -> None:
    fields = getattr(settings, str(VERBS[verb].settings)).model_fields
    text = call(verb, "--help").output
    for name, field in fields.items():
        positional = isinstance(field.json_schema_extra, dict) and field.json_schema_extra.get("positional")
        assert (name.upper() if positional else f"--{name.replace('_', '-')}") in text
    assert "--config" in text


def test_help_of_labels_names_the_tasks() -> None:
    text = call("labels", "--help").output
    assert [name for name in task_names() if f"\n  {name} " not in text] == []


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_leads_to_its_function(verb: str) -> None:
    module, function = VERBS[verb].target.split(":")
    assert function in functions_of(module)


@pytest.mark.parametrize("name", sorted(set(genebert.__all__) - {"__version__"}))
def test_public_names_exist(name: str) -> None:
    spec = importlib.util.find_spec(genebert._PUBLIC[name])
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def test_public_names_load_on_first_use() -> None:
    from genebert.errors import UserError

    assert genebert.UserError is UserError
    assert "Corpus" in dir(genebert)
    with pytest.raises(AttributeError, match="has no attribute 'corpse'"):
        genebert.corpse  # noqa: B018


def test_version() -> None:
    assert call("--version").output == f"genebert, version {genebert.__version__}\n"


def test_unknown_verbs_and_options() -> None:
    for words in (
        ["pretain"],
        ["prepare", "--peeks", "x"],
        ["labels", "promotor"],
        ["labels", "splice", "--peaks", "x"],
    ):
        result = call(*words)
        assert result.exit_code == 2
        assert "No such" in result.stderr


def refused(*words: str) -> str:
    result = call(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.output
    return result.stderr


def test_all_missing_options_are_named_at_once() -> None:
    message = refused("prepare")
    for option in ("--out", "--genome"):
        assert f"{option} is required" in message
    assert "genebert prepare --help" in message


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (["--region-width", "wide"], ["--region-width wide", "valid integer"]),
        (["--region-width", "63"], ["--region-width 63", "greater than or equal to 64"]),
        (["--max-n-fraction", "1.5"], ["--max-n-fraction 1.5", "less than or equal to 1"]),
        (["--pseudocount", "0"], ["--pseudocount 0", "greater than 0"]),
    ],
)
def test_values_out_of_range(words: list[str], fragments: list[str]) -> None:
    message = refused("prepare", "--genome", "g.fa", "--peaks", "p", "--out", "o", *words)
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_choices_are_shown_and_checked() -> None:
    assert "tiny|small|paper" in call("pretrain", "--help").output
    assert "--preset huge" in refused("pretrain", "--corpus", "c", "--out", "o", "--preset", "huge")


def record(monkeypatch: pytest.MonkeyPatch) -> list[settings.Settings]:
    """Let `prepare` only note its settings."""
    given: list[settings.Settings] = []
    monkeypatch.setattr("genebert.corpus.build.prepare", given.append)
    return given


def test_options_reach_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    given = record(monkeypatch)
    result = call(
        "prepare",
        "--genome",
        "g.fa",
        "--peaks",
        "a.bed,b.bed",
        "--peaks",
        "c.bed",
        "--out",
        "o",
        "--test-chromosomes",
        "chr1,chr2",
        "--skip-unknown-chromosomes",
    )
    assert result.exit_code == 0
    assert given == [
        settings.PrepareSettings(
            genome=Path("g.fa"),
            peaks=[Path("a.bed"), Path("b.bed"), Path("c.bed")],
            out=Path("o"),
            test_chromosomes=["chr1", "chr2"],
            skip_unknown_chromosomes=True,
        )
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (['"CD4-positive, alpha-beta T cell",B'], ["CD4-positive, alpha-beta T cell", "B"]),
        (['B, "NK, ""mature""",T', "Mono"], ["B", 'NK, "mature"', "T", "Mono"]),
        (["B,, NK,"], ["B", "NK"]),
        (["cells of 5'", 'the 10" plate'], ["cells of 5'", 'the 10" plate']),
    ],
)
def test_items_that_hold_a_comma_are_quoted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], names: list[str]
) -> None:
    given = record(monkeypatch)
    config = tmp_path / "prepare.yaml"
    config.write_text(f"valid_cell_types: {json.dumps(names)}\n")
    options = [part for word in words for part in ("--test-cell-types", word)]
    paths = ["--genome", "g.fa", "--peaks", '"a,b.bed",c.bed', "--out", "o", "--config", str(config)]
    assert call("prepare", *paths, *options).exit_code == 0
    expected = {"test_cell_types": names, "valid_cell_types": names, "peaks": [Path("a,b.bed"), Path("c.bed")]}
    assert [{name: getattr(settings, name) for name in expected} for settings in given] == [expected]


@pytest.mark.parametrize("word", ['"CD4, T', '"CD4"T,B', "a\nb"])
def test_lists_that_cannot_be_split(word: str) -> None:
    message = refused("prepare", "--genome", "g.fa", "--peaks", "p", "--out", "o", "--test-cell-types", word)
    assert f"--test-cell-types {word}: it is no list" in message
    assert "Quote an item that holds a comma" in message


def test_help_tells_how_lists_are_given() -> None:
    assert """quoted, as in '"a, b",c', or""" in " ".join(call("prepare", "--help").output.split())
    assert "ITEM" not in call("inspect", "--help").output


def test_the_command_line_wins_over_the_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given = record(monkeypatch)
    config = tmp_path / "prepare.yaml"
    config.write_text(
        "genome: g.fa\npeaks: [a.bed]\nregion-width: 256\nmax_n_fraction: 0.2\nskip_unknown_chromosomes: true\n"
    )
    result = call(
        "prepare",
        "--config",
        str(config),
        "--out",
        "o",
        "--region-width",
        "128",
        "--no-skip-unknown-chromosomes",
    )
    assert result.exit_code == 0
    assert given == [
        settings.PrepareSettings(
            genome=Path("g.fa"), peaks=[Path("a.bed")], out=Path("o"), region_width=128, max_n_fraction=0.2
        )
    ]


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        (
            "genome: g.fa\nregion_widht: 5\nhidden: 1\n",
            ["region-widht in --config is no option", "hidden in --config", "--help"],
        ),
        ("- genome\n", ["no mapping of options to values"]),
        ("", ["no mapping of options to values"]),
        ("genome: [\n", ["no valid YAML"]),
        ("genome: g.fa\nregion_width: wide\n", ["--region-width wide"]),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, text: str, fragments: list[str]) -> None:
    config = tmp_path / "prepare.yaml"
    config.write_text(text)
    message = refused("prepare", "--config", str(config), "--peaks", "p", "--out", "o")
    assert [fragment for fragment in fragments if fragment not in message] == []


def test_absent_configuration(tmp_path: Path) -> None:
    assert "the configuration cannot be read (No such file" in refused(
        "prepare", "--config", str(tmp_path / "absent.yaml")
    )


def test_bugs_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("genebert.corpus.build.prepare", broken)
    result = call("prepare", "--genome", "g.fa", "--peaks", "p", "--out", "o")
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize("preset", ["tiny", "small", "paper"])
def test_presets_are_complete(preset: str) -> None:
    assert settings.load_preset(preset).model.k in (1, 3, 4, 5, 6)


def test_every_shipped_preset_can_be_chosen() -> None:
    presets = {path.stem for path in settings.CONFIGS.glob("*.yaml") if "model" in path.read_text()}
    for preset in presets:
        assert settings.PretrainSettings(corpus=Path("c"), out=Path("o"), preset=preset).preset == preset


def test_settings_cannot_change() -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.InspectSettings(folder=Path("x")).folder = Path("y")


def test_identity_leaves_out_where_and_how() -> None:
    chosen = settings.PretrainSettings(corpus=Path("c"), out=Path("o"), device="cpu", checkpoint_steps=7)
    left_out = set(settings.PretrainSettings.model_fields) - set(chosen.identity())
    assert left_out >= {"corpus", "out", "device", "devices", "checkpoint_steps", "workers", "tensorboard"}
    assert left_out.isdisjoint({"seed", "batch_size", "accumulate", "precision", "masking", "hard_negatives", "k"})


def test_switches_without_a_default_of_their_own_can_be_turned_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[settings.PretrainSettings] = []
    monkeypatch.setattr("genebert.pretrain.pretrain", seen.append)
    for words in ([], ["--balanced"], ["--no-balanced", "--masking", "dnabert"]):
        result = CliRunner().invoke(main, ["pretrain", "--corpus", "c", "--out", "o", *words])
        assert result.exit_code == 0, result.output
    assert [(chosen.balanced, chosen.masking) for chosen in seen] == [(None, None), (True, None), (False, "dnabert")]


def test_options_of_a_task_come_from_the_command_line_and_the_configuration(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[settings.Settings] = []
    monkeypatch.setattr("genebert.tasks.labels.labels", given.append)
    config = tmp_path / "promoters.yaml"
    config.write_text("genome: g.fa\ntss: tss.bed\nupstream: 100\nvalid_chromosomes: [chr9]\n")
    words = ["--config", str(config), "--upstream", "200", "--test-chromosomes", "chr20,chr22", "--out", "o"]
    for negatives in ("substitution", "others.bed"):
        assert call("labels", "promoter", *words, "--negatives", negatives).exit_code == 0
    from genebert.tasks.promoter import Promoter

    chosen = {"genome": "g.fa", "tss": "tss.bed", "upstream": 200, "valid_chromosomes": ["chr9"], "out": "o"}
    chosen["test_chromosomes"] = ["chr20", "chr22"]
    assert given == [Promoter(negatives=which, **chosen) for which in ("substitution", Path("others.bed"))]
    assert [type(task.negatives) for task in given] == [str, type(Path())]


def test_mistakes_in_the_options_of_a_task_are_named_together() -> None:
    message = refused("labels", "splice", "--width", "41", "--ratio", "0", "--out", "o")
    for fragment in ("genebert labels splice cannot start", "--width 41", "--ratio 0", "--genome is required"):
        assert fragment in message
    assert "genebert labels splice --help" in message


def test_lists_are_shown_as_they_are_given() -> None:
    shown = " ".join(CliRunner().invoke(main, ["finetune", "--help"]).output.split())
    assert "[default: kmer-regression]" in shown and "[default: [" not in shown


def test_numbers_of_a_configuration_may_be_names_and_lists_written_as_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[settings.PrepareSettings] = []
    monkeypatch.setattr("genebert.corpus.build.prepare", given.append)
    text = "test_chromosomes: [8, X]\nvalid-chromosomes: '20, chr22'\npeaks: p\ngenome: g.fa\nout: o\n"
    (tmp_path / "c.yaml").write_text(text)
    assert CliRunner().invoke(main, ["prepare", "--config", str(tmp_path / "c.yaml")]).exit_code == 0
    assert given[0].test_chromosomes == ["8", "X"]
    assert given[0].valid_chromosomes == ["20", "chr22"] and given[0].peaks == [Path("p")]

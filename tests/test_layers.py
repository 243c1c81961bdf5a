import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import genebert

SOURCE = Path(genebert.__file__).parent
ORDER = [
    "errors",
    "modules",
    "schema",
    "settings",
    "console",
    "stage",
    "metrics",
    "resampling",
    "target",
    "calibration",
    "inputs",
    "shared_words",
    "haplotypes",
    "simulation",
    "simulate",
    "corpus",
    "cell_type_distance",
    "export",
    "doctor",
    "device",
    "distributed",
    "sampling",
    "tokens",
    "tensors",
    "region_matrix",
    "pretraining_data",
    "window_data",
    "model",
    "tokenizer",
    "objectives",
    "launch",
    "checkpoints",
    "training",
    "tasks",
    "pretrained",
    "add_cell_type",
    "context_models",
    "probes",
    "pretraining_evaluation",
    "estimate_pretraining",
    "pretrain",
    "stacking",
    "methods",
    "labelled",
    "known_labels",
    "predictor",
    "trained",
    "finetune",
    "prediction_files",
    "predict",
    "variants",
    "haplotype_effects",
    "risk",
    "report",
    "embedding",
    "explanation",
    "benchmark",
    "cross_validation",
    "inspect",
    "demo",
    "cli",
]
"""A module imports only from layers above its own; within a package, from any module."""
LAZY = {"cli", "__init__"}
"""These import what they need when it is called for."""
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.stem not in LAZY)


def name_of(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[str]:
    """Yield the full names that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        yield from names_imported(node)


def names_imported(node: ast.AST) -> Iterator[str]:
    """Yield the full names that a statement imports, if it is an import."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"{node.module} is imported relatively"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(imported: str) -> str | None:
    """Return the layer of an imported name, or None if it is not genebert's."""
    package, _, rest = imported.partition(".")
    return rest.split(".")[0] if package == "genebert" else None


def modules_reached(layer: str) -> set[str]:
    """Return the names imported by a layer, and by what it imports of genebert, and so on."""
    reached: set[str] = set()
    waiting = [layer]
    done = set()
    while waiting:
        current = waiting.pop()
        done.add(current)
        for path in MODULES:
            if layer_of(name_of(path)) == current:
                reached.update(imports_of(path))
        waiting += {found for name in reached if (found := layer_of(name)) in ORDER} - done - set(waiting)
    return reached


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_from_layers_above_it(path: Path) -> None:
    own = layer_of(name_of(path))
    assert own in ORDER, f"{name_of(path)} has no place in the order"
    allowed = {*ORDER[: ORDER.index(own) + 1], "__version__"}
    wrong = {
        imported for imported in imports_of(path) if (layer := layer_of(imported)) is not None and layer not in allowed
    }
    assert wrong == set()


@pytest.mark.parametrize("layer", ["simulation", "simulate"])
def test_the_simulation_knows_no_model(layer: str) -> None:
    reached = {layer_of(name) for name in modules_reached(layer)}
    batches = {"tensors", "region_matrix", "pretraining_data", "window_data"}
    assert reached.isdisjoint({"tokens", "model", "corpus", "training", "tasks", *batches})


@pytest.mark.parametrize(
    "layer", ["report", "inspect", "corpus", "export", "doctor", "inputs", "stage", "metrics", "simulate"]
)
def test_what_needs_no_network_loads_no_torch(layer: str) -> None:
    reached = modules_reached(layer)
    assert {name.split(".")[0] for name in reached}.isdisjoint({"torch", "transformers", "lightning"})
    assert "model" not in {layer_of(name) for name in reached}


def test_settings_and_errors_need_nothing_heavy() -> None:
    heavy = {"numpy", "pandas", "torch", "scipy", "sklearn"}
    assert {
        name.split(".")[0] for layer in ("errors", "settings", "console") for name in modules_reached(layer)
    }.isdisjoint(heavy)


def test_who_predicts_does_not_wait_for_the_library_that_trains() -> None:
    training = {"checkpoints", "training", "estimate_pretraining", "pretrain", "methods.learning", "demo"}
    slow = tuple(f"{name}." for name in ("lightning", *(f"genebert.{name}" for name in training)))
    waiting = set()
    for path in MODULES:
        at_once = [name for statement in ast.parse(path.read_text()).body for name in names_imported(statement)]
        if any(f"{name}.".startswith(slow) for name in at_once):
            waiting.add(name_of(path).removeprefix("genebert."))
    assert waiting == training

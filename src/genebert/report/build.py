"""The stage `report`: a corpus, and what was made from it, become one self-contained HTML page."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from genebert import __version__
from genebert.console import say
from genebert.corpus.store import Corpus
from genebert.errors import Problems
from genebert.report.canvas import own_ids
from genebert.report.content import Figure, Section, Table, Tile
from genebert.report.sections.corpus import corpus_section
from genebert.report.sections.general import held_out, provenance_section, reading_section, tiles
from genebert.report.sections.predictor import predictor_section
from genebert.report.sections.pretraining import pretraining_section
from genebert.report.sections.risk import risk_section
from genebert.report.sections.variants import variants_section
from genebert.settings import ReportSettings
from genebert.stage import Manifest, describe_input, open_stage, read_manifest

PAGE = "report.html"
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Results:
    """What the page is about: finished stages that come from each other.

    Attributes:
        corpus: the corpus.
        pretrained: a model pre-trained on it, or None.
        predictors: name on the page -> predictor.
        variants: scored variants, or None.
        risk: of a cohort, or None.
    """

    corpus: Corpus
    pretrained: Manifest | None
    predictors: dict[str, Manifest]
    variants: Manifest | None
    risk: Manifest | None

    @classmethod
    def open(cls, settings: ReportSettings) -> "Results":
        """Open the folders.

        Raises:
            UserError: one is missing, damaged or of another stage, or they do not belong together.
        """
        results = cls(
            Corpus.open(settings.corpus),
            read_manifest(settings.pretrained, "pretrain") if settings.pretrained else None,
            dict(
                zip(
                    names_of(settings.predictors),
                    [read_manifest(p, "finetune") for p in settings.predictors],
                    strict=True,
                )
            ),
            read_manifest(settings.variants, "variants") if settings.variants else None,
            read_manifest(settings.risk, "risk") if settings.risk else None,
        )
        results.check_kinship()
        return results

    @property
    def made(self) -> list[Manifest]:
        """What was made from the corpus, in the order of the page."""
        found = (self.pretrained, *self.predictors.values(), self.variants, self.risk)
        return [manifest for manifest in found if manifest]

    def check_kinship(self) -> None:
        """Check that the results come from each other.

        Raises:
            UserError: one was made from another corpus, model or predictor than those given.
        """
        found = Problems("These results do not belong on one page:")
        for manifest in self.made:
            _check_parent(found, manifest, "corpus", [self.corpus.manifest], self.corpus.ancestors)
        if self.pretrained:
            for manifest in self.predictors.values():
                _check_parent(found, manifest, "model", [self.pretrained])
        if self.predictors:
            for scored in filter(None, (self.variants, self.risk)):
                _check_parent(found, scored, "model", self.predictors.values())
        found.raise_any()

    def sections(self) -> list[Section]:
        """Return the parts of the page; a part without results is left out."""
        parts = [corpus_section(self.corpus)]
        if self.pretrained:
            parts.append(pretraining_section(self.pretrained))
        parts += [predictor_section(manifest, name) for name, manifest in self.predictors.items()]
        if self.variants:
            parts.append(variants_section(self.variants))
        if self.risk:
            parts.append(risk_section(self.risk.folder, self.risk.metrics))
        return [*parts, reading_section(), provenance_section([self.corpus.manifest, *self.made])]


def report(settings: ReportSettings) -> Path:
    """Write one self-contained page, report.html, about a corpus and what was made from it.

    Raises:
        UserError: a folder is missing or damaged, or the folders do not belong together.
    """
    results = Results.open(settings)
    inputs = {"corpus": settings.corpus, "pretrained": settings.pretrained, "variants": settings.variants}
    inputs["risk"] = settings.risk
    inputs |= {f"predictor {name}": manifest.folder for name, manifest in results.predictors.items()}
    with open_stage("report", settings, inputs) as run:
        if run.finished:
            return run.out
        parts = results.sections()
        headline = tiles(results.corpus, results.pretrained, list(results.predictors.values()))
        page = render(settings.title, held_out(results.corpus, results.pretrained), headline, parts)
        (run.folder / PAGE).write_text(page, encoding="utf-8")
        out = run.finish(_contents(parts))
    say(f"{out / PAGE}: open it in a browser")
    return out


def names_of(folders: Sequence[Path]) -> list[str]:
    """Return the names of folders, or their paths where two have the same name."""
    count = Counter(folder.name for folder in folders)
    return [folder.name if count[folder.name] == 1 else str(folder) for folder in folders]


def render(title: str, lead: str, headline: Sequence[Tile], parts: Sequence[Section]) -> str:
    """Return the page; whatever is not markup made here is escaped."""
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["own_ids"] = own_ids
    environment.filters["breakable"] = breakable
    style = Markup((_HERE / "style.css").read_text(encoding="utf-8"))
    template = environment.get_template("page.html.j2")
    return template.render(title=title, lead=lead, tiles=headline, sections=parts, style=style, version=__version__)


def breakable(name: str) -> Markup:
    """Return a name, escaped, that may go on in the next line after a slash or an underscore."""
    return Markup(re.sub("([/_])", r"\1<wbr>", str(escape(name))))


def _check_parent(
    found: Problems, manifest: Manifest, name: str, given: Iterable[Manifest], ancestors: Iterable[str] = ()
) -> None:
    """Note it if a result was made from neither one of those given nor one of their ancestors (SHA-256)."""
    used = manifest.inputs.get(name)
    folders = [parent.folder for parent in given]
    if used is None or used["sha256"] in {*ancestors, *(describe_input(name, one)["sha256"] for one in folders)}:
        return
    listed = ", ".join(map(str, folders))
    found.add(
        manifest.folder,
        f"it was made with the {name} {used['path']}, which is not {listed} as it is now",
        f"Give the {name} that it was made with, or run `genebert {manifest.stage}` again with {listed}.",
    )


def _contents(parts: Sequence[Section]) -> dict[str, object]:
    blocks = [block for part in parts for block in part.blocks]
    return {
        "sections": [part.title for part in parts],
        "figures": sum(isinstance(block, Figure) for block in blocks),
        "tables": sum(isinstance(block, Table) for block in blocks),
    }

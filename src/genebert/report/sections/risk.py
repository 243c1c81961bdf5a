"""The section about disease risk, or a trait, in a cohort."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genebert.metrics import Estimate
from genebert.report import cohort_figures, figures
from genebert.report.canvas import minus, symmetric
from genebert.report.compare import Scores
from genebert.report.content import Block, Figure, Folded, Prose, Section, Standing, Table, Verdict, Verdicts
from genebert.report.tables import counted

MODEL = "GeneBERT"
STACKED = "GeneBERT + polygenic score"
TOP_REGIONS = 12
TOP_DRAWN = 6
TOP_TFS = 15
TOP_INDIVIDUALS = 20
DIFFERENT = 0.001
"""From this p down, a difference in missing calls is told, as the stage does."""
BY_PERMUTATION = "p is by permutation, and so never below 1 / (1 + permutations)."
_WORDS = dict.fromkeys(
    ("sample", "method", "against", "measure", "region", "chrom", "top_tf", "tf", "direction", "variant", "id"), str
)
_CHANCE = {"AUROC": 0.5, "Pearson": 0.0, "R2": 0.0}


def risk_section(folder: Path, metrics: Mapping[str, Any]) -> Section:
    """Describe a cohort: how well each method predicts, the regions and TFs behind it, and where variants converge.

    Args:
        folder: with the tables of the stage `risk`.
        metrics: as its manifest has them.
    """
    binary = metrics["trait"] == "binary"
    predictions, measured = _table(folder, "predictions"), _table(folder, "metrics")
    comparisons = _table(folder, "comparisons")
    regions, tfs, variants = (_table(folder, name) for name in ("regions", "tfs", "convergence"))
    blocks: list[Block] = [
        _about(metrics, binary),
        Verdicts(_verdicts(comparisons)),
        _measures(measured, metrics),
        Folded("Differences between all methods", _comparisons(comparisons)),
        _ranking(predictions, measured) if binary else _agreement(predictions, measured),
        _regions_figure(regions),
        _regions_table(regions, _table(folder, "attention"), binary),
        *_convergence(regions, variants, binary),
        *_tfs(tfs, _table(folder, "convergence_tfs"), binary),
        Folded("Individuals predicted highest", _individuals_table(predictions, _table(folder, "individuals"), binary)),
    ]
    return Section(f"Risk: {metrics['phenotype']}", blocks)


def _table(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.tsv"
    return pd.read_csv(path, sep="\t", dtype=_WORDS, keep_default_na=False, na_values=["."])


def _about(metrics: Mapping[str, Any], binary: bool) -> Prose:
    people = counted(metrics["individuals"], "individual")
    if binary:
        people += f", {metrics['cases']:,} of them cases"
    covariates = ", ".join(metrics["covariates"]) or "none"
    return Prose(
        f"{people}; {counted(metrics['variants'], 'variant')} in {counted(metrics['regions'], 'region')}, on"
        f" {counted(metrics['haplotypes'], 'distinct haplotype')} other than the reference, each of which was scored"
        f" once. Covariates: {covariates}. Every individual's prediction comes from models that saw neither it nor its"
        f" relatives, as far as these were given ({metrics['folds']} folds; penalties are chosen within the training"
        f" folds). {_missing_calls(metrics['missing_calls'])} {metrics['caveat']}"
    )


def _missing_calls(missing: Mapping[str, float]) -> str:
    """Say how many calls are missing, and whether that alone tells the groups apart."""
    said = f"{missing['share']:.2%} of the calls are missing."
    if missing["p_of_difference"] < DIFFERENT:
        groups = f"{missing['share_cases']:.2%} and {missing['share_controls']:.2%}"
        said += f" Those with the higher and the lower phenotype differ in that ({groups}), which can pass for risk."
    return said


def _verdicts(comparisons: pd.DataFrame) -> list[Verdict]:
    """Say of the model against each other method whether the interval of their difference excludes 0."""
    own = comparisons[comparisons["method"] == MODEL]
    first = own[own["measure"] == own["measure"].iloc[0]] if len(own) else own
    found = []
    for row in first.itertuples():
        standing: Standing = "above" if row.low > 0 else "below" if row.high < 0 else "level"
        said = {"above": "is above", "below": "is below", "level": "cannot be told from"}[standing]
        found.append(Verdict(standing, f"{row.measure}: {MODEL} {said} {row.against} ({_difference(row)})."))
    return found


def _measures(measured: pd.DataFrame, metrics: Mapping[str, Any]) -> Figure:
    methods = list(dict.fromkeys(measured["method"]))
    colours = figures.colours_of(methods)
    panels = []
    for measure, rows in measured.groupby("measure", sort=False):
        found = {row.method: Estimate(row.value, row.low, row.high) for row in rows.itertuples()}
        panels.append(figures.dots("", str(measure), found, _CHANCE.get(str(measure)), colours))
    caption = (
        "Out-of-fold predictions; bars, 95% bootstrap interval over individuals (whole families, where they are given),"
        " widened since the models of different folds share individuals;"
        f" n = {metrics['individuals']:,}. Polygenic score: the dosages of the same variants. Burden: alternate alleles"
        " per region. Brier score: mean squared error of the probability, where less is better."
    )
    return Figure("Methods compared.", panels, caption=caption, columns=2)


def _comparisons(comparisons: pd.DataFrame) -> Table:
    rows = [[row.method, row.against, row.measure, _difference(row)] for row in comparisons.itertuples()]
    return Table(
        "Differences between methods.",
        ["Method", "Less", "Measure", "Difference [95% interval]"],
        rows,
        text=3,
        note="Both methods on the same resamples of individuals.",
    )


def _scores(predictions: pd.DataFrame, measured: pd.DataFrame) -> Scores:
    return {name: predictions[name].to_numpy(np.float64) for name in dict.fromkeys(measured["method"])}


def _ranking(predictions: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    label, scores = predictions["phenotype"].to_numpy(np.int64), _scores(predictions, measured)
    colours = figures.colours_of(list(scores))
    drawn = {name: scores[name] for name in (MODEL, STACKED) if name in scores}
    panels = [
        figures.roc_curves(label, scores, colours),
        figures.precision_recall_curves(label, scores, colours),
        figures.reliability_curves(label, drawn, colours),
    ]
    said = [
        "Receiver operating characteristic, and its area.",
        "Precision against recall, and average precision; dashed, the share of cases.",
        "Calibration in ten bins of equally many individuals, with 95% Wilson intervals; dashed, perfect.",
    ]
    caption = (
        "Out-of-fold probabilities of all folds, pooled: areas differ from the measures above, which are taken within"
        " folds and averaged."
    )
    return Figure("Ranking and calibration.", panels, said, caption, columns=3)


def _agreement(predictions: pd.DataFrame, measured: pd.DataFrame) -> Figure:
    true = predictions["phenotype"].to_numpy(np.float64)
    panels = [figures.scatter(name, true, score) for name, score in _scores(predictions, measured).items()]
    return Figure("Predicted against true values.", panels, caption="Out-of-fold predictions.", columns=3)


def _regions_figure(regions: pd.DataFrame) -> Figure:
    top, tested = regions.head(TOP_REGIONS), regions["p"].dropna().to_numpy(np.float64)
    panels = [
        cohort_figures.weights(
            top["region"].tolist(), top["weight"].to_numpy(np.float64), [_number(p, ".2g") for p in top["p"]]
        )
    ]
    said = ["Weights of the regions that rank first, in the model fitted on all individuals."]
    if len(tested):
        panels.append(cohort_figures.expected_against_observed(tested, "regions"))
        said.append("p values of all tested regions against uniform ones; grey, 95% band.")
    return Figure("Regions.", panels, said if len(said) > 1 else (), "" if len(said) > 1 else said[0], columns=2)


def _difference(row: Any) -> str:
    return "{} [{}, {}]".format(*(_number(value, "+.3f") for value in (row.difference, row.low, row.high)))


def _number(value: float, form: str) -> str:
    """Return a number in a format, or a dash for one that is not known; 0, and what is printed so, has no sign."""
    if not np.isfinite(value):
        return "–"
    shown = f"{value:{form}}"
    return minus(shown) if float(shown) else shown.lstrip("+-")


def _regions_table(regions: pd.DataFrame, attention: pd.DataFrame, binary: bool) -> Table:
    above, below = _groups(binary)
    attended = attention.set_index("region")["attention"]
    rows = [
        [
            str(row.rank),
            row.region,
            _tf(row.top_tf, row.top_tf_change),
            _number(row.weight, "+.3g"),
            _number(row.p, ".2g"),
            _number(row.q, ".2g"),
            _number(attended.get(row.region, np.nan), ",.2f"),
            f"{row.variants:,}",
            f"{row.carriers_cases:,}",
            f"{row.carriers_controls:,}",
        ]
        for row in regions.head(TOP_REGIONS).itertuples()
    ]
    header = ["Rank", "Region", "TF", "Weight", "p", "q", "Attention", "Variants"]
    header += [f"Carriers, {above}", f"Carriers, {below}"]
    note = (
        f"The first of {len(regions):,}, of which {regions['p'].notna().sum():,} were tested; all are in regions.tsv."
        f" Weight: what a unit of the effect (or of its size) adds to the {_unit(binary)}; a region of weight 0"
        f" is not in the model. p: score test of the region's (signed) effects. {BY_PERMUTATION} q: expected share of"
        " false ones among regions up to this one (Benjamini and Hochberg). Attention: what the attention model gives"
        " the region, where 1 is the mean. TF: the one whose best hit the carriers' variants change most, with the"
        " change of its −log₁₀ p."
    )
    return Table("Regions that rank first.", header, rows, text=3, note=note)


def _tf(name: Any, change: float) -> str:
    return f"{name} ({minus(f'{change:+.1f}')})" if isinstance(name, str) else "–"


def _groups(binary: bool) -> tuple[str, str]:
    """Return what those with the higher and those with the lower phenotype are called."""
    return ("cases", "controls") if binary else ("individuals with high values", "the others")


def _unit(binary: bool) -> str:
    """Return what weights and contributions are added to."""
    return "log-odds" if binary else "prediction"


def _convergence(regions: pd.DataFrame, variants: pd.DataFrame, binary: bool) -> list[Block]:
    """Draw, region by region, which variants different individuals carry."""
    drawn: list[tuple[Any, pd.DataFrame]] = []
    groups = _groups(binary)
    listed = set(variants["region"])
    for row in regions[regions["region"].isin(listed)].itertuples():
        if len(drawn) == TOP_DRAWN:
            break
        rows = variants[variants["region"] == row.region].drop_duplicates("variant")
        if len(rows) > 1:
            rows = rows.assign(position=rows["variant"].str.rsplit(":", n=2).str[1].astype(np.int64))
            drawn.append((row, rows))
    if not drawn:
        return []
    limits = symmetric(np.concatenate([rows["change"].to_numpy(np.float64) for _, rows in drawn]))
    panels = [
        cohort_figures.carriers(row.region, rows, (row.chrom, row.start, row.end), groups, limits)
        for row, rows in drawn
    ]
    caption = (
        f"Each stem is a variant at its place; its height, the number of carriers: {groups[0]} upwards, {groups[1]}"
        " downwards. Vermilion: the alternate allele raises the log-odds; blue: lowers it; one scale for all regions."
        " Different variants of one colour on one side would converge; whether any do is not tested here."
    )
    return [
        Figure("Variants that individuals carry in the regions that rank first.", panels, caption=caption, columns=2),
        Folded("Variants of the regions that rank first", _variants_table(variants, groups)),
    ]


def _variants_table(variants: pd.DataFrame, groups: Sequence[str]) -> Table:
    rows = [
        [
            row.region,
            row.variant,
            _missing(row.id),
            f"{row.tf} {row.direction}" if isinstance(row.tf, str) else "–",
            _number(row.change, "+.3f"),
            f"{row.carriers_cases:,}",
            f"{row.carriers_controls:,}",
        ]
        for row in variants.itertuples()
    ]
    header = ["Region", "Variant", "ID", "TF", "Change", f"Carriers, {groups[0]}", f"Carriers, {groups[1]}"]
    return Table("Variants by region.", header, rows, text=4, note="Change: of the log-odds, in nats.")


def _missing(value: Any) -> str:
    return value if isinstance(value, str) else "–"


def _tfs(tfs: pd.DataFrame, hits: pd.DataFrame, binary: bool) -> list[Block]:
    """List TFs, and, on demand, the variants of different individuals that hit the first of them."""
    if tfs.empty:
        return []
    above, below = _groups(binary)
    rows = [
        [
            row.tf,
            row.direction,
            _number(row.p, ".2g"),
            _number(row.q, ".2g"),
            f"{row.variants:,}",
            f"{row.regions:,}",
            f"{row.carriers_cases:,}",
            f"{row.carriers_controls:,}",
        ]
        for row in tfs.sort_values("p", kind="stable").head(TOP_TFS).itertuples()
    ]
    header = ["TF", "Hits", "p", "q", "Variants", "Regions", f"Carriers, {above}", f"Carriers, {below}"]
    note = (
        f"The first of {len(tfs):,} pairs of TF and direction; all are in tfs.tsv. {BY_PERMUTATION} TFs with similar"
        " motifs stand or fall together."
    )
    table = Table("TFs whose hits variants gain or lose.", header, rows, text=2, note=note)
    return [table, Folded("Variants that hit the TFs that rank first", _hits_table(hits, (above, below)))]


def _hits_table(hits: pd.DataFrame, groups: Sequence[str]) -> Table:
    rows = [
        [
            row.tf,
            row.direction,
            row.region,
            row.variant,
            _missing(row.id),
            _number(row.tf_change, "+.1f"),
            f"{row.carriers_cases:,}",
            f"{row.carriers_controls:,}",
        ]
        for row in hits.itertuples()
    ]
    header = ["TF", "Hit", "Region", "Variant", "ID", "Change", f"Carriers, {groups[0]}", f"Carriers, {groups[1]}"]
    return Table("Variants by TF.", header, rows, text=5, note="Change: of −log₁₀ p of the TF's best hit nearby.")


def _individuals_table(predictions: pd.DataFrame, contributions: pd.DataFrame, binary: bool) -> Table:
    """List the individuals of the highest prediction, and the regions that it comes from."""
    sources = contributions.sort_values("rank", kind="stable").groupby("sample")
    regions = {
        sample: ", ".join(f"{row.region} ({_number(row.contribution, '+.2f')})" for row in rows.itertuples())
        for sample, rows in sources
    }
    highest = predictions.sort_values(MODEL, ascending=False, kind="stable").head(TOP_INDIVIDUALS)
    rows = [
        [sample, regions.get(sample, "–"), _observed(phenotype, binary), _number(predicted, ".3g")]
        for sample, phenotype, predicted in highest[["sample", "phenotype", MODEL]].itertuples(index=False)
    ]
    note = (
        f"The first of {len(predictions):,}; all are in predictions.tsv and individuals.tsv. Predicted by {MODEL}, out"
        " of fold; the level of predictions differs a little between folds. Regions: those that contribute most, with"
        f" what they add to the {_unit(binary)}."
    )
    header = ["Individual", "Regions", "Observed", "Predicted"]
    return Table("Individuals predicted highest.", header, rows, text=2, note=note)


def _observed(phenotype: float, binary: bool) -> str:
    if binary:
        return "case" if phenotype else "control"
    return _number(phenotype, ".3g")

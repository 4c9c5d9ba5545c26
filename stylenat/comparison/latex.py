"""The comparison as LaTeX tables to print: booktabs rules, siunitx columns, captions that say what was done."""

import math
from collections.abc import Sequence

from stylenat.comparison.foreign import latex_text
from stylenat.comparison.groups import Spread
from stylenat.comparison.paired import CHOSEN, METHOD, SIGNIFICANCE, what_n_can_show
from stylenat.comparison.results import Comparison
from stylenat.comparison.table import Costs, difference, p_value

PREAMBLE = (
    "% Preamble: \\usepackage{booktabs} \\usepackage{siunitx} "
    "\\sisetup{separate-uncertainty = true, detect-weight = true, mode = text}\n"
)


def latex(comparison: Comparison, costs: Costs) -> str:
    """Two ``table`` environments: values by metric, and the paired differences where there are any.

    Args:
        costs: measured columns, such as images a second, by variant; empty where none was measured.
    """
    parts = [PREAMBLE, _values(comparison, costs)]
    if rows := _difference_rows(comparison):
        parts.append(_differences(comparison, rows))
    return "\n".join(parts)


def _values(comparison: Comparison, costs: Costs) -> str:
    columns: list[tuple[str, str, list[str]]] = []
    groups = comparison.groups
    labelled = all("variant" in run.labels for group in groups for run in group.runs)
    for name in () if labelled else comparison.columns:  # An ablation's variants have names of their own.
        columns.append(("l", latex_text(name), [latex_text(g.settings.get(name, "-")) for g in groups]))
    for metric in comparison.metrics:
        arrow = r"$\uparrow$" if comparison.higher_is_better(metric) else r"$\downarrow$"
        # A metric of several protocols is named after what differs in them, which goes below its own name.
        name, opening, rest = latex_text(metric).partition(" (")
        title = rf"\shortstack{{{name} {arrow}\\ ({rest}}}" if opening else f"{name} {arrow}"
        columns.append(_value_column(comparison, metric, title))
    columns.append(("r", "parameters", [f"\\num{{{group.runs[0].parameters}}}" for group in groups]))
    columns.append(("r", "GMACs", [f"\\num{{{group.runs[0].macs / 1e9:.3g}}}" for group in groups]))
    for name, column in costs.items():
        columns.append(_numbers(latex_text(name), [column.get(group.name) for group in groups], [""] * len(groups)))
    rows = [[latex_text(group.name), *(cells[i] for *_, cells in columns)] for i, group in enumerate(groups)]
    form = "l" + "".join(kind for kind, *_ in columns)
    titles = ["variant", *(title for _, title, _ in columns)]
    return _table(comparison, form, titles, rows, caption(comparison), "values")


def _value_column(comparison: Comparison, metric: str, title: str) -> tuple[str, str, list[str]]:
    standing = comparison.standing(metric)
    found = [standing.get(group.name) for group in comparison.groups]
    marks = ["{$^{*}$}" if one and one.paired and one.paired.significant else "" for one in found]
    kind, title, cells = _numbers(title, [group.final(metric) for group in comparison.groups], marks)
    return (
        kind,
        title,
        [rf"\bfseries {cell}" if one and one.best else cell for one, cell in zip(found, cells, strict=True)],
    )


def _numbers(title: str, spreads: Sequence[Spread | None], marks: Sequence[str]) -> tuple[str, str, list[str]]:
    """A siunitx column: as many decimals as the smallest deviation has to two digits; four digits without any."""
    known = [spread for spread in spreads if spread is not None]
    deviations = [spread.deviation for spread in known if spread.deviation]
    smallest = min(deviations, default=None)
    greatest = max((abs(spread.mean) for spread in known), default=0.0)
    if smallest is not None:
        decimals = max(0, 1 - math.floor(math.log10(smallest)))
    else:
        decimals = max(0, 3 - math.floor(math.log10(greatest))) if greatest else 2
    decimals = min(decimals, 8)
    whole = max(1, len(f"{greatest:.0f}")) if greatest >= 1 else 1
    sign = "-" if any(spread.mean < 0 for spread in known) else ""
    form = f"{sign}{whole}.{decimals}"
    if deviations:
        digits = len(str(round(max(deviations) * 10**decimals)))
        form += f"({max(digits, 1)})"
    after = ", table-align-text-after = false, table-space-text-post = {$^{*}$}" if any(marks) else ""
    cells = []
    for spread, mark in zip(spreads, marks, strict=True):
        if spread is None:
            cells.append("{--}")
            continue
        text = f"{spread.mean:.{decimals}f}"
        if spread.deviation is not None:
            text += f" +- {spread.deviation:.{decimals}f}"
        cells.append(text + mark)
    return f"S[table-format = {form}{after}]", f"{{{title}}}", cells


def _difference_rows(comparison: Comparison) -> list[list[str]]:
    rows = []
    for metric in comparison.metrics:
        for name, one in comparison.standing(metric).items():
            if one.paired is not None:
                cells = [latex_text(metric), latex_text(name), _math(difference(one.paired))]
                rows.append([*cells, _math(p_value(one.paired.p_holm)), str(one.paired.n)])
    return rows


def _differences(comparison: Comparison, rows: Sequence[Sequence[str]]) -> str:
    whom = "the variant with the best mean" if comparison.baseline is None else comparison.baseline
    tests = [s.paired for metric in comparison.metrics for s in comparison.standing(metric).values() if s.paired]
    by_metric = max(sum(s.paired is not None for s in comparison.standing(m).values()) for m in comparison.metrics)
    shown = what_n_can_show(min(test.n for test in tests), by_metric)
    text = (
        f"{comparison.name}: differences from {whom} of each metric, paired by seed: mean and 95 % interval by "
        f"Student's t; p of the {METHOD}. {shown[0].upper()}{shown[1:]}."
    )
    return _table(
        comparison, "llrrr", ["metric", "variant", r"difference [95\,\%]", "$p$", "seeds"], rows, text, "tests"
    )


def caption(comparison: Comparison) -> str:
    """Sentences: what the numbers are, over which seeds, after how many images, by which protocol and test."""
    groups = comparison.groups
    seeds = sorted({seed for group in groups for run in group.ranked for seed in [run.seed]})
    images = sorted({r.images for m in comparison.metrics for g in groups for r in g.finals(m) if r.images is not None})
    after = " or ".join(f"{count:,}" for count in images) or "an unknown number of"
    sentences = [
        f"{comparison.name}: mean ± standard deviation over {len(seeds)} seed{'' if len(seeds) == 1 else 's'} "
        f"({', '.join(map(str, seeds))}) after {after} real images."
    ]
    sentences += [_protocol(comparison, metric) for metric in comparison.metrics]
    tested = any(s.paired for metric in comparison.metrics for s in comparison.standing(metric).values())
    whom = "the best mean" if comparison.baseline is None else comparison.baseline
    sentences.append("Bold: best mean.")
    if tested:
        sentences.append(f"*: differs from {whom}, p < {SIGNIFICANCE} ({METHOD}); no mark is no sign of equality.")
        if comparison.baseline is None:
            sentences.append(f"{CHOSEN[0].upper()}{CHOSEN[1:]}.")
    unfinished = [group.name for group in groups if len(group.ranked) < len(group.runs)]
    if unfinished:
        sentences.append(f"Runs that are not finished are left out ({', '.join(unfinished)}).")
    return " ".join(sentences)


def _protocol(comparison: Comparison, metric: str) -> str:
    measure = next((one for one in comparison.measures if one.label == metric), None)
    fields = measure.fields if measure is not None else None
    if fields is None:
        return f"{metric}: the protocol is not recorded."
    parts = [f"{fields['generated.count']:,} generated images" if fields.get("generated.count") else ""]
    parts.append(f"{fields['real.count']:,} real images" if fields.get("real.count") else "")
    if (psi := fields.get("generated.truncation_psi")) is not None:
        parts.append("no truncation" if psi == 1 else f"truncation psi {psi:g}")
    extractor = fields.get("metric.extractor.name")
    parts.append(f"features of {extractor}" if extractor else "")
    better = "higher" if comparison.higher_is_better(metric) else "lower"
    return f"{metric} ({better} is better): {', '.join(filter(None, parts)) or 'by its own protocol'}."


def _table(
    comparison: Comparison, form: str, titles: Sequence[str], rows: Sequence[Sequence[str]], caption: str, label: str
) -> str:
    text = latex_text(caption).replace(r" \%", r"\,\%")
    lines = [r"\begin{table}", r"  \centering\small", rf"  \caption{{{text}}}"]
    lines += [rf"  \label{{tab:{_label(comparison.name)}-{label}}}", rf"  \begin{{tabular}}{{{form}}}", r"    \toprule"]
    lines += [f"    {' & '.join(titles)} \\\\", r"    \midrule"]
    lines += [f"    {' & '.join(cells)} \\\\" for cells in rows]
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


def _math(text: str) -> str:
    """Numbers with their signs as minus signs; ``-`` alone is a dash."""
    return "--" if text == "-" else "$" + text.replace(" [", r"\;[") + "$"


def _label(name: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)

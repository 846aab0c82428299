# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""A report as one Markdown page."""

import re
from collections.abc import Iterable, Mapping, Sequence

from eval.metric_names import CONTROLS, MOLECULE_TASKS, heading
from eval.plots.cases import Case
from eval.published_results import Entry
from eval.report_plots import Plot
from eval.report_tables import METHODS, Row, Section, run_name, section_rows, table_columns
from eval.result_files import Run

POLICIES = {
    "strict": "every row counts; an answer that is empty, holds blanks or cannot be read is "
    "invalid and scores 0 in exact match; stereo counts; numbers that cannot be read are never "
    "imputed",
    "published": "the definitions of the Mol-Instructions and InstructMol scripts (SELFIES "
    "decoded, stereo dropped, InChI compared, invalid answers left out of the averages); only to "
    "compare with their tables",
}
# Longest answer or question that is written out below a drawing.
LONGEST_TEXT = 600


def write_page(
    title: str,
    runs: Sequence[Run],
    sections: Sequence[Section],
    entries: Sequence[Entry],
    plots: Sequence[Sequence[Plot]],
) -> str:
    """Put a report together.

    Args:
        title: its first heading.
        runs: what was read.
        sections: what is compared with each other.
        entries: published numbers; each section takes those of its task.
        plots: those of each section, already drawn.

    Returns:
        Markdown; plots are linked by file name.
    """
    parts = [f"# {title}", _reading_guide(runs, sections)]
    shown: dict[str, list[Entry]] = {}
    for section, drawn in zip(sections, plots, strict=True):
        rows = section_rows(section, entries)
        parts += [f"## {_escape(section.title)}", *_notes(section), *_tables(section, rows)]
        parts += map(_plot, drawn)
        names = {row.name.removesuffix(" †") for row in rows if row.kind == "published"}
        for entry in entries:
            if entry.task == section.task and entry.model in names:
                known = shown.setdefault(entry.paper.name, [])
                known += [entry] if entry not in known else []
    if shown:
        parts += ["## Where the published numbers come from", _sources(shown)]
    parts += ["## How these were made", *(_run(run) for run in runs)]
    return "\n\n".join(parts) + "\n"


def _reading_guide(runs: Sequence[Run], sections: Sequence[Section]) -> str:
    levels = {
        (r.settings["bootstrap"]["level"], r.settings["bootstrap"]["resamples"]) for r in runs
    }
    intervals = " or ".join(
        f"{level:.0%} intervals over {resamples:,} bootstrap resamples of the rows"
        for level, resamples in sorted(levels)
    )
    lines = [
        f"Brackets are {intervals}. “–” stands for a score that could not be computed or was not "
        "reported. ↑ the more the better, ↓ the less. Rows with ↳ are controls of the model above "
        "them. The number before a model's name leads to its paragraph at the end.",
        "Rows in *italics* are published numbers, not measured here; their last column says what "
        "is not comparable. † marks a number that was not verified at its source.",
    ]
    policies = dict.fromkeys(section.policy for section in sections)
    lines += [f"Policy `{policy}`: {POLICIES[policy]}." for policy in policies]
    if len(policies) > 1:
        lines.append(
            "**These results were counted by different policies.** Each policy has tables of its "
            "own; do not compare numbers across them."
        )
    return "\n\n".join(lines)


def _notes(section: Section) -> list[str]:
    notes = [f"Fingerprint of the data: `{fingerprint(section.dataset_sha256)}`."]
    if section.notation == "selfies" and section.task in MOLECULE_TASKS:
        notes.append(
            "The answers are SELFIES, which decode to a molecule almost whatever they say: "
            "validity proves nothing here."
        )
    if section.tokenizer:
        notes.append(f"Tokenizer of BLEU, ROUGE and METEOR: `{section.tokenizer}`.")
    sizes = {(score.property, score.n) for run in section.runs for score in section.scores(run)}
    if len(sizes) > len({property for property, _ in sizes}):
        notes.append(
            "**n differs between rows**: they were not scored on the same rows, so small "
            "differences mean nothing."
        )
    return notes


def _tables(section: Section, rows: Sequence[Row]) -> list[str]:
    main, further = table_columns(section, rows)
    tables = [_table(rows, main, last=True)]
    if further:
        ours = [row for row in rows if row.kind != "published"]
        tables += ["Further scores of the same answers:", _table(ours, further, last=False)]
    return tables


def _table(rows: Sequence[Row], metrics: Sequence[str], last: bool) -> str:
    """A Markdown table; `last` asks for the column that says what is not comparable."""
    asked = any(row.property for row in rows)
    last = last and any(row.differs for row in rows)
    titles = ["model", "method"] + ["property"] * asked + ["n", *map(heading, metrics)]
    align = ["---", "---"] + ["---"] * asked + ["---:"] * (1 + len(metrics))
    lines = [titles + ["not comparable in"] * last, align + ["---"] * last]
    for row in rows:
        cells = [_name(row), row.method] + [row.property] * asked + [row.n]
        cells += [row.cells.get(metric, "–") for metric in metrics]
        cells += ["; ".join(f"{what}: {how}" for what, how in row.differs.items())] * last
        lines.append([cells[0], *map(_escape, cells[1:])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _name(row: Row) -> str:
    name = _escape(row.name)
    if row.kind == "published":
        mark = " †" if name.endswith(" †") else ""
        return f"*[{name.removesuffix(' †')}]({row.url})*{mark}"
    if row.kind == "control":
        return f"&nbsp;&nbsp;↳ {name}"
    return f"**{name}**" if row.kind == "mean" else name


def _escape(text: str) -> str:
    """Text that stays in its cell and is not taken for Markdown or HTML."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_|~])", r"\\\1", text).replace("\n", "<br>")


def _plot(plot: Plot) -> str:
    parts = [f"### {_escape(plot.title)}", f"![{_escape(plot.title)}]({plot.file})"]
    if plot.cases:
        texts = _case_texts(plot.cases)
        # Captions are judged by reading them; SMILES and numbers stand in the drawing already.
        if plot.folded:
            texts = (
                "<details><summary>Question, answer and truth in full</summary>\n\n"
                f"{texts}\n\n</details>"
            )
        parts.append(texts)
    return "\n\n".join(parts)


def _case_texts(cases: Sequence[Case]) -> str:
    """Question, answer and truth of each case in full."""
    parts = []
    for case in cases:
        row = case.row
        cut = " (cut off)" if not row["finished"] else ""
        parts.append(
            f"**{case.name}**: {_escape(case.verdict)}; row {_code(row['id'])}\n\n"
            f"- question: {_code(row['prompt'])}\n"
            f"- answer{cut}: {_code(row['text'])}\n"
            f"- truth: {_code(row['reference'])}"
        )
    return "\n\n".join(parts)


def _code(text: str) -> str:
    """Text as inline code, which no character of it can end."""
    text = " ".join(text.split())
    if not text:
        return "(empty)"
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + " …"
    fence = "`"
    while fence in text:
        fence += "`"
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def _sources(shown: Mapping[str, Iterable[Entry]]) -> str:
    lines = []
    for entries in shown.values():
        entries = list(entries)
        paper = entries[0].paper
        lines.append(
            f"- **{paper.name}**: {paper.citation}, [arXiv {paper.arxiv}]({paper.url}), "
            f"{paper.code}"
        )
        facts = dict.fromkeys(
            (
                f"{entry.model}, {entry.table}",
                entry.seen,
                "verified" if entry.verified else "**not verified** †",
                entry.note or "",
            )
            for entry in entries
        )
        for table, seen, verified, note in facts:
            note = f" {note}" if note else ""
            lines.append(
                f"  - {_escape(table)}: {verified}; seen in {_escape(seen)}.{_escape(note)}"
            )
    return "\n".join(lines)


def _run(run: Run) -> str:
    settings, data = run.settings, run.data
    revision = settings.get("base_revision")
    decoding = ", ".join(
        f"{name} " + (_join(value) if isinstance(value, dict) else str(value))
        for name, value in settings["decoding"].items()
    )
    facts = {
        "model": f"`{run.model}`, {METHODS.get(run.method, run.method)}, adapter "
        f"`{fingerprint(settings['adapter_sha256'])}`",
        "base": f"`{settings['base_model']}`"
        + (f" at revision `{revision}`" if revision else "")
        + f", weights `{fingerprint(settings['base_fingerprint'])}`",
        "data": f"`{data['name']}`, {data['split']} split, {data['rows_scored']:,} of "
        f"{data['rows_in_split']:,} rows, fingerprint `{fingerprint(data['dataset_sha256'])}`",
        "policy": f"`{run.policy}`",
        "decoding": _escape(decoding),
        "seeds": _join(settings["seeds"]),
        "controls": ", ".join(
            CONTROLS[control]
            for control in CONTROLS
            if any(score.control == control for score in run.scores)
        )
        or "none",
        "versions": _join(settings["versions"]),
        "device": f"{settings['device']}, {settings.get('processes', 1)} process(es), "
        f"{settings['wall_time_s']:,.1f} s",
        "finished": settings["finished_at"],
        "command": _code(settings["command"]),
        "file": f"`{run.path}`",
    }
    lines = "\n".join(f"- {name}: {fact}" for name, fact in facts.items())
    return f"### {_escape(run_name(run))}\n\n{lines}"


def _join(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def fingerprint(digest: str | None) -> str:
    """The first twelve digits: enough to tell two apart."""
    return "–" if digest is None else digest[:12]

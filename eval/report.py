# Copyright 2026 The MoRA authors.
# SPDX-License-Identifier: Apache-2.0
"""Put benchmark results on one page, beside the published numbers of the field.

    python -m eval.report RESULTS.json [MORE ...] --output_dir DIR [--title TITLE]

Arguments are `results.json` files that eval.benchmark wrote, or folders that hold them. DIR gets
`report.md` and the plots it shows; the tables are printed too.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from eval.published_results import read_published
from eval.report_page import write_page
from eval.report_plots import Plot, draw_section
from eval.report_tables import Section, find_sections
from eval.report_terminal import print_section
from eval.result_files import read_runs

PAGE = "report.md"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m eval.report",
        description="Put benchmark results on one page, beside the published numbers.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS.json",
        help="files that eval.benchmark wrote, or folders that hold them",
    )
    parser.add_argument("--output_dir", required=True, type=Path, help="where the page goes")
    parser.add_argument("--title", default="Benchmark report", help="heading of the page")
    return parser.parse_args(arguments)


def draw(section: Section, number: int, folder: Path) -> list[Plot]:
    """Draw a section's plots, and name its files where a row of theirs cannot be scored."""
    try:
        return draw_section(section, number, folder)
    except ValueError as error:
        files = ", ".join(str(run.path) for run in section.runs)
        raise ValueError(f"{section.title}, from {files}: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report; returns its exit code, 2 when the results cannot be reported."""
    args = parse_arguments(arguments)
    try:
        runs = read_runs(args.results)
        entries = read_published()
        sections = find_sections(runs)
        args.output_dir.mkdir(parents=True, exist_ok=True)
        plots = [
            draw(section, number, args.output_dir)
            for number, section in enumerate(sections, start=1)
        ]
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    page = args.output_dir / PAGE
    text = write_page(args.title, runs, sections, entries, plots)
    page.write_text(text, encoding="utf-8")
    console = Console()
    for section in sections:
        print_section(section, entries, console)
    count = sum(len(drawn) for drawn in plots)
    print(f"Wrote {page} with {count} plots, from {len(runs)} result file(s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())

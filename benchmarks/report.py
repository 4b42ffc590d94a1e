"""Lay the figures out: rows first, then the same rows for the terminal and for docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from benchmarks.bounds import TITLES, Bounds
from benchmarks.cases import MEASURES, Scaling
from benchmarks.figures import Figure, ratio, significant
from benchmarks.pictures import CURVES, SYSTEMS, draw
from benchmarks.targets import judge
from benchmarks.trial import Outcome

NONE = "-"

HOW_TO_READ = """\
Written by `python -m benchmarks`; run it again rather than edit it. The systems take turns within one run. A figure is
the median of the repetitions, with the least and the most in brackets. The ratio is orch's median over CRIU's: below 1,
orch is faster or smaller.

- *Frozen* is what each system says of itself, from the first task that stops to the last that goes on; *longest gap* is
  what the job's own clock saw, beating once a millisecond.
- *Restore: the work* leaves out the start of the command itself, which for orch is mostly Python and the import of
  libraries; that stands in a row of its own.
- Neither system waits for the disk: CRIU never does, orch is told `--no-sync`. Without it a job that ends is held until
  its image is on the disk, and the command of one that goes on takes as much longer. "What bounds it" has the time.
- orch's images have checksums of all pages. They are made when the job runs again, or, if it ends, while it is held.
- Every job checked its own memory, children or threads, after its checkpoint and after its restore; a figure of a
  damaged job does not count.
- Before each measured step what was dirty is written back, and as much memory as the job's is touched and freed again:
  a virtual machine meets memory that it had given to its host at many times the cost of a fault.
- *Restore --lazy* lets the job run before its memory is there; the work is what it takes until it runs.
- *Delta behind 16 MiB of writes*: the job was checkpointed with `--track`, wrote 16 MiB again and was checkpointed with
  `--parent`. It checked its memory after that, and after a restore from the delta.
- *Huge pages* are AnonHugePages of the first process, which asks for them by MADV_HUGEPAGE.
- A peak of memory below the benchmark's own cannot be seen; it stands as the benchmark's own.
- The scales of the pictures are logarithmic; a thin line is the spread, as the brackets are in the tables."""


@dataclass(frozen=True, slots=True)
class Table:
    """A title, a heading row and rows."""

    title: str
    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Run:
    """All that one run of the benchmark found."""

    versions: list[str]
    machine: dict[str, str]
    outcomes: list[Outcome]
    scalings: list[tuple[Scaling, list[Outcome]]] = field(default_factory=list)
    """What grows, with its cases."""
    bounds: Bounds | None = None
    start_up: dict[str, Figure] = field(default_factory=dict)
    """Time of commands that only start and say something, by the command."""


def tables(run: Run) -> list[Table]:
    """Lay a run out as tables."""
    found = [case_table(outcome) for outcome in run.outcomes]
    found += [scaling_table(scaling, outcomes) for scaling, outcomes in run.scalings]
    if run.start_up:
        times = tuple((command, figure.text("us")) for command, figure in run.start_up.items())
        found.append(Table("Start-up", ("command", "time"), times))
    if run.bounds is not None:
        rates = tuple((TITLES[key], f"{significant(value)} ms") for key, value in asdict(run.bounds).items())
        found.append(Table("What bounds it: 1 GiB on this machine, in this run", ("what", "time"), rates))
    verdicts = tuple((v.promise, v.text, "kept" if v.kept else "NOT KEPT") for v in judge(run.outcomes, run.start_up))
    if verdicts:
        found.append(Table("Promises", ("promise", "measured", ""), verdicts))
    return found


def case_table(outcome: Outcome) -> Table:
    """Lay one case out, a measure a row; measures that nobody took are left out."""
    rows = []
    for measure in MEASURES:
        ours, theirs = (Figure.of_any(outcome.values(name, measure.key)) for name in ("orch", "CRIU"))
        if ours is None and theirs is None:
            continue
        quotient = ratio(ours, theirs)
        rows.append(
            (
                measure.title,
                NONE if ours is None else ours.text(measure.unit),
                NONE if theirs is None else theirs.text(measure.unit),
                NONE if quotient is None else f"{significant(quotient)}",
            )
        )
    counts = {name: len(samples) for name, samples in outcome.samples.items()}
    notes = [f"Repetitions: {', '.join(f'{name} {count}' for name, count in counts.items())}."] if counts else []
    notes += outcome.notes
    notes += [f"{name} failed: {reason}" for name, reason in outcome.failures.items()]
    title = f"{outcome.case.name}: {outcome.case.title}"
    return Table(title, ("measure", "orch", "CRIU", "ratio"), tuple(rows), tuple(notes))


def scaling_table(scaling: Scaling, outcomes: Sequence[Outcome]) -> Table:
    """Lay out what grows, a size a row."""
    columns = [(key, title, name) for key, title, _ in CURVES for name in SYSTEMS]
    rows, notes = [], []
    for outcome in outcomes:
        figures = [Figure.of_any(outcome.values(name, key)) for key, _, name in columns]
        rows.append((f"{scaling.size(outcome.case):,}", *(NONE if one is None else one.text("us") for one in figures)))
        notes += [f"{outcome.case.name}: {note}" for note in outcome.notes]
        notes += [f"{outcome.case.name}: {name} failed: {reason}" for name, reason in outcome.failures.items()]
    heading = (scaling.across, *(f"{title}, {name}" for _, title, name in columns))
    return Table(f"Growing: {scaling.title}", heading, tuple(rows), tuple(notes))


def pictures(run: Run) -> dict[str, str]:
    """Draw a run: SVG files, by the name of each."""
    return draw(run.outcomes, run.scalings)


def markdown(run: Run, place: str = "") -> str:
    """Print a run as a page; ``place`` is where the page finds its pictures, if it has any."""
    parts = ["# Benchmarks", HOW_TO_READ, "## Machine"]
    parts.append(markdown_table(("", ""), [*run.machine.items(), ("measured", ", ".join(run.versions))]))
    if place:
        parts.append("## Pictures")
        parts += [f"![{name.replace('-', ' ')}]({place}/{name}.svg)" for name in pictures(run)]
    for table in tables(run):
        parts.append(f"## {table.title}")
        if table.rows:
            parts.append(markdown_table(table.heading, table.rows))
        parts += table.notes
    return "\n\n".join(parts) + "\n"


def markdown_table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Print one table; the first column is text, the others are aligned to the right."""
    rule = ["---", *("---:" for _ in heading[1:])]
    lines = (" | ".join(cell.replace("|", "\\|") for cell in row) for row in (heading, rule, *rows))
    return "\n".join(f"| {line} |" for line in lines)


def print_terminal(run: Run) -> None:
    """Print a run on the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = Console()
    console.print(", ".join(run.versions), "on", ", ".join(run.machine.values()), highlight=False)
    for table in tables(run):
        shown = RichTable(title=escape(table.title), title_justify="left")
        for number, heading in enumerate(table.heading):
            shown.add_column(heading, justify="right" if number else "left", no_wrap=number > 0)
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print()
        if table.rows:
            console.print(shown)
        else:
            console.print(escape(table.title))
        for note in table.notes:
            console.print(escape(note), highlight=False)

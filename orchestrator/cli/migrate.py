"""orch migrate: move a running job to another machine."""

from __future__ import annotations

import sys

from orchestrator.cli.arguments import TCP, Parser, seconds
from orchestrator.errors import UsageError


def _parser() -> Parser:
    parser = Parser(
        "migrate",
        "Move a job while it runs: its memory is sent first, then what has changed since, again and again until\n"
        "little is left. Only then it is stopped here, built there, killed here, and let go there. If anything fails\n"
        "before, it goes on here.",
        epilog="COMMAND leads to the destination, as in: orch migrate --cgroup sim -- ssh HOST orch receive",
    )
    parser.add_argument("--cgroup", required=True, metavar="NAME", help="a job, or a cgroup by its path or name")
    parser.add_argument(
        "--rounds", type=int, default=8, help="how often, at most, memory is sent while the job runs (8)"
    )
    parser.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS",
        help="how long the job may wait for the destination when it stands still (10)",
    )  # fmt: skip
    parser.add_argument(
        "--external", action="append", default=[], metavar="KEY",
        help="leave an outside resource, as pipe[123], behind; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--tcp", choices=sorted({*TCP} - {"keep"}), default="refuse",
        help="connections with the outside: refuse them; or close them, so that the job finds them reset there; or "
        "close all, so that it finds those within the job ended, too",
    )  # fmt: skip
    parser.add_argument("--stats", metavar="FILE", help="write what it took to a file, as JSON; - is the output")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what runs 'orch receive' at the destination")
    return parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    options = _parser().parse_args(arguments)
    if options.rounds < 1:
        raise UsageError("migrate: --rounds must be at least 1")

    from orchestrator.checkpointing import CheckpointOptions
    from orchestrator.cli.stats import write_stats
    from orchestrator.cli.termination import unwind_on_termination
    from orchestrator.cli.text import size
    from orchestrator.migration.source import migrate
    from orchestrator.target import find_target

    target = find_target(options.cgroup)
    asked = CheckpointOptions(timeout=options.timeout, externals=frozenset(options.external) | TCP[options.tcp])
    unwind_on_termination()

    def progress(number: int, changed: int) -> None:
        if sys.stderr.isatty():
            print(f"round {number}: {size(changed)}", file=sys.stderr)

    moved = migrate(target, options.command, asked, rounds=options.rounds, progress=progress)
    if options.stats is not None:
        write_stats(options.stats, moved)
    if options.stats != "-":
        paused = f"it stood still for {moved.pause_us / 1000:.1f} ms"
        print(f"{target.name}: runs there as {moved.name}; {size(moved.sent_bytes)} in {moved.rounds} rounds; {paused}")
    return 0

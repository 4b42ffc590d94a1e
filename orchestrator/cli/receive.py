"""orch receive: take in a job that orch migrate sends."""

from __future__ import annotations

import os
import sys

from orchestrator.cli.arguments import Parser, comma_list
from orchestrator.errors import UsageError


def _parser() -> Parser:
    parser = Parser(
        "receive",
        "Take in a job that 'orch migrate' sends through the input; return when it runs here, in the background.",
    )
    parser.add_argument("--name", help="the job's name; the one that it had when not given")
    parser.add_argument(
        "--new", type=comma_list, default=[], metavar="LIST", help="namespaces to make anew as well: net,uts,ipc,..."
    )
    parser.add_argument(
        "--output", metavar="FILE", help="append what the job writes to the streams it was started with to a file"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    options = _parser().parse_args(arguments)
    if sys.stdin.isatty() or sys.stdout.isatty():
        raise UsageError(
            "receive: it talks to 'orch migrate' through its input and output",
            hint="as in 'orch migrate --cgroup NAME -- ssh HOST orch receive'",
        )

    from orchestrator.cli.streams import given_streams
    from orchestrator.cli.termination import unwind_on_termination
    from orchestrator.daemon import Reporter, detach
    from orchestrator.migration.destination import Welcome, receive
    from orchestrator.migration.wire import Wire
    from orchestrator.restoring import RestoreOptions
    from orchestrator.spawn import parse_namespaces

    streams = given_streams(detached=True, output=options.output)
    asked = RestoreOptions(new=parse_namespaces(options.new), inherited=streams, lazy=True)
    welcome = Welcome(options.name, asked, tuple(streams.values()))

    def work(reporter: Reporter) -> int:
        unwind_on_termination()
        return receive(Wire(0, 1, "the source"), welcome, reporter)

    detach(work)
    os.close(1)  # what says more is not for the source
    return 0

"""orch kill: end a job."""

from __future__ import annotations

import signal

from orchestrator.cli.arguments import Parser, seconds, signal_number


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser("kill", "Kill every process of a job, and wait until nothing is left of it.")
    parser.add_argument("jobs", nargs="+", metavar="JOB", help="the job's name, as 'orch ps' shows it")
    parser.add_argument(
        "-s",
        "--signal",
        type=signal_number,
        default=signal.SIGKILL,
        help="send this signal to the job's root instead, and do not wait",
    )
    parser.add_argument("--timeout", type=seconds, default=10.0, metavar="SECONDS", help="how long to wait (10)")
    options = parser.parse_args(arguments)

    from orchestrator.kill import kill_job

    for name in options.jobs:
        kill_job(name, options.signal, options.timeout)
    return 0

"""orch run: start a program as a job and stand by it."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from orchestrator.cli.arguments import Parser, comma_list
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.relay import Relay


def _parser() -> Parser:
    parser = Parser(
        "run",
        "Run a program as a job: in a cgroup of its own, with orch as its parent, which passes signals on\n"
        "and ends as the program ends. The job lasts until its last process has ended.",
    )
    parser.add_argument("--name", help="the job's name; job1, job2, ... when not given")
    parser.add_argument("-d", "--detach", action="store_true", help="return once the job runs, and print its name")
    parser.add_argument(
        "-t",
        "--terminal",
        action="store_true",
        help="give the job a terminal of its own that is connected to this one, so that a shell has job control",
    )
    parser.add_argument(
        "--new",
        type=comma_list,
        default=[],
        metavar="LIST",
        help="namespaces to make for the job: pid,net,mnt,uts,ipc,time,cgroup",
    )
    parser.add_argument("--user", help="who the job runs as: NAME, UID, NAME:GROUP or UID:GID")
    parser.add_argument("--cwd", metavar="DIR", help="the directory that the job starts in")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a variable of the job's environment; may be repeated",
    )
    parser.add_argument("--output", metavar="FILE", help="append the job's output and errors to a file")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    parser.add_argument(
        "command", nargs=argparse.REMAINDER, metavar="-- PROGRAM ...", help="the program and its arguments"
    )
    return parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    options = _parser().parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        raise UsageError("run: which program?", hint="orch run -- PROGRAM ARGUMENTS")

    from orchestrator.foreground import run_job
    from orchestrator.spawn import Program, parse_namespaces, parse_user

    relay = _connected(options) if options.terminal else None
    stdin, stdout = (0, 1) if relay is None else (relay.slave, relay.slave)
    if options.detach:
        stdin = stdout = os.open(os.devnull, os.O_RDWR)
    if options.output is not None:
        stdout = _open_output(options.output)
    program = Program(
        argv=tuple(command),
        env=_environment(options.env),
        cwd=options.cwd,
        user=None if options.user is None else parse_user(options.user),
        new=parse_namespaces(options.new),
        stdin=stdin,
        stdout=stdout,
        stderr=stdout if options.detach or options.output is not None or relay is not None else 2,
        terminal=relay is not None,
    )

    from orchestrator.cli.background import supervise

    return supervise(lambda reporter: run_job(program, options.name, reporter, relay), options.detach, options.report)


def _connected(options: argparse.Namespace) -> Relay:
    """Make a terminal for the job."""
    from orchestrator.relay import Relay, own_terminal

    if options.detach:
        raise UsageError("run: a job in the background has no terminal", hint="leave out --detach or --terminal")
    own = own_terminal()
    if own is None:
        raise UsageError("run: orch itself is not in the foreground of a terminal", hint="leave out --terminal")
    return Relay(own)


def _open_output(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY, 0o644)
    except OSError as error:
        raise UsageError(f"the output file {path} cannot be opened: {error.strerror}") from error


def _environment(settings: list[str]) -> dict[str, str] | None:
    if not settings:
        return None
    environment = dict(os.environ)
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise UsageError(f"run: --env {setting!r} is not NAME=VALUE")
        environment[name] = value
    return environment

"""orch restore: bring a job back from an image and stand by it."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
from typing import TYPE_CHECKING, Any

from orchestrator.cli.arguments import Parser, add_key, comma_list, given_keys, seconds
from orchestrator.cli.streams import given_streams
from orchestrator.errors import UsageError

if TYPE_CHECKING:
    from orchestrator.daemon import Reporter
    from orchestrator.relay import Relay
    from orchestrator.restoring import RestoreOptions
    from orchestrator.supervisor import Root


def _parser() -> Parser:
    parser = Parser(
        "restore",
        "Bring a job back: the same tree with the same PIDs. orch stays as its parent, passes signals on and ends\n"
        "as the job's root ends. Namespaces that the job had for itself are rebuilt, those that it shared are\n"
        "joined again; the PID namespace is new, so that the PIDs are free.",
    )
    parser.add_argument("image", help="the image; - reads it from the input")
    add_key(parser)
    parser.add_argument("--name", help="the job's name; the one that it had when not given")
    parser.add_argument("-d", "--detach", action="store_true", help="return once the job runs, and print its name")
    parser.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.add_argument(
        "--new", type=comma_list, default=[], metavar="LIST", help="namespaces to make anew as well: net,uts,ipc,..."
    )
    parser.add_argument(
        "--pid-namespace", choices=["new", "host"], default="new", help="where the PIDs are those of the image (new)"
    )
    parser.add_argument(
        "--pidfile", metavar="FILE", help="write the process id of the job's root, as the host sees it, to a file"
    )
    parser.add_argument(
        "--inherit",
        action="append",
        default=[],
        metavar="KEY=FD",
        help="give the job a descriptor of orch in place of an outside resource, as pipe[123]=3; may be repeated",
    )
    parser.add_argument(
        "--tcp",
        choices=["keep", "close", "close-all"],
        default="keep",
        help="connections with the outside that the image keeps: go on with them; or close them, so that the job finds "
        "them reset; or close all, so that it finds those within the job ended, too",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="append what the job writes to the streams it was started with to a file"
    )
    parser.add_argument(
        "--lazy",
        action="store_true",
        help="let the job run before its memory is there: pages come from the image when they are used, and the rest "
        "when there is time. The image may be replaced or removed meanwhile",
    )
    parser.add_argument("--pager", type=comma_list, default=[], help=argparse.SUPPRESS)
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=120.0,
        metavar="SECONDS",
        help="give up when the restore has not got on at all for so long, because a file system does not answer (120)",
    )
    parser.add_argument("--verify", action="store_true", help="compare the page data with its checksums first")
    parser.add_argument("--stats", metavar="FILE", help="write what it took to a file, as JSON; - is the output")
    parser.add_argument("--report", type=int, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    options = _parser().parse_args(arguments)

    from orchestrator.image.reader import ImageFile
    from orchestrator.restoring import RestoreOptions, decode, dry_run
    from orchestrator.spawn import parse_namespaces

    streams = given_streams(detached=options.detach, output=options.output)
    asked = RestoreOptions(
        new=parse_namespaces(options.new),
        host_pids=options.pid_namespace == "host",
        inherited={**streams, **_inherited(options.inherit)},
        verify=options.verify,
        patience=options.timeout,
        cut=None if options.tcp == "keep" else options.tcp,
        lazy=options.lazy,
        pager=frozenset(options.pager),
    )
    if options.dry_run:
        with ImageFile.open(options.image, keys=given_keys(options.key, "ORCH_KEY")) as image:
            for line in dry_run(image, decode(image), asked):
                print(line)
        return 0

    from orchestrator.cli.background import supervise

    return supervise(lambda reporter: _restore(options, asked, reporter), options.detach, options.report)


def _restore(options: Any, asked: RestoreOptions, reporter: Reporter) -> int:
    from orchestrator.cli.stats import write_stats
    from orchestrator.cli.terminal import lent, take_place
    from orchestrator.cli.termination import unwind_on_termination
    from orchestrator.foreground import restore_job
    from orchestrator.image.reader import ImageFile
    from orchestrator.restoring import decode, rebuild

    unwind_on_termination()
    image_path = options.image if options.image == "-" else os.path.abspath(options.image)
    relay: Relay | None = None
    with contextlib.ExitStack() as leaving:
        image = leaving.enter_context(ImageFile.open(options.image, keys=given_keys(options.key, "ORCH_KEY")))
        snapshot = decode(image)
        resized = False
        if not options.detach:
            asked, relay = take_place(snapshot, asked, {*_inherited(options.inherit)})
            resized = leaving.enter_context(lent(snapshot, asked))

        def bring_back(cgroup: str) -> Root:
            root, microseconds = rebuild(image, snapshot, asked, cgroup)
            image.close()
            if options.stats is not None:
                write_stats(options.stats, {"restore_us": microseconds, "processes": len(snapshot.processes)})
            return root

        def running(root: Root) -> None:
            _write_pidfile(options.pidfile, root.target)
            if resized:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(root.target, signal.SIGWINCH)

        return restore_job(
            bring_back,
            name=options.name if options.name is not None else snapshot.job,
            image=image_path,
            streams=_published(asked, relay),
            reporter=reporter,
            on_running=running,
            relay=relay,
        )


def _published(asked: RestoreOptions, relay: Relay | None) -> tuple[int, ...]:
    """Say what the job's standard streams are, for its next checkpoint."""
    streams = tuple(asked.inherited.get(f"stdio[{number}]", number) for number in range(3))
    return streams if relay is None else tuple(relay.slave if os.isatty(fd) else fd for fd in streams)


def _write_pidfile(path: str | None, pid: int) -> None:
    if path is None:
        return
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{pid}\n")
    except OSError as error:
        raise UsageError(f"the process id cannot be written to {path}: {error.strerror}") from error


def _inherited(settings: list[str]) -> dict[str, int]:
    given = {}
    for setting in settings:
        key, _, number = setting.rpartition("=")
        if not key or not number.isdecimal():
            raise UsageError(f"restore: --inherit {setting!r} is not KEY=FD", hint="as --inherit 'pipe[123]=3' 3<FILE")
        try:
            os.fstat(int(number))
        except OSError as error:
            raise UsageError(f"restore: descriptor {number} of --inherit {setting!r} is not open") from error
        given[key] = int(number)
    return given

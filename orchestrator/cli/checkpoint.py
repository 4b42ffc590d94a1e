"""orch checkpoint: write a job to an image."""

from __future__ import annotations

import argparse
import sys

from orchestrator.cli.arguments import TCP, Parser, given_keys, seconds
from orchestrator.errors import UsageError


def _parser() -> Parser:
    parser = Parser(
        "checkpoint",
        "Write a job to one image file. The job goes on afterwards, unless --kill or --stop say otherwise;\n"
        "if the checkpoint fails it goes on in any case, and no image is left.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--cgroup", metavar="NAME", help="a job, or a cgroup by its path or name")
    which.add_argument("--pid", type=int, help="a process with all its descendants")
    parser.add_argument("-o", "--output", metavar="FILE", help="the image; NAME.ckpt when not given, - is the output")
    ending = parser.add_mutually_exclusive_group()
    ending.add_argument("--kill", dest="ending", action="store_const", const="kill", help="end the job")
    ending.add_argument("--stop", dest="ending", action="store_const", const="stop", help="leave the job stopped")
    parser.add_argument(
        "--timeout", type=seconds, default=10.0, metavar="SECONDS", help="how long freezing may take (10)"
    )
    parser.add_argument(
        "--external",
        action="append",
        default=[],
        metavar="KEY",
        help="leave an outside resource, as pipe[123], or a kind of state, as inotify or aio, out of the image; "
        "may be repeated",
    )
    parser.add_argument(
        "--tcp",
        choices=sorted(TCP),
        default="refuse",
        help="connections with the outside: refuse them; keep them, their packets held back until the restore "
        "(with --kill); or close them, so that the restored job finds them reset; or close all, so that it finds "
        "those within the job ended, too",
    )
    parser.add_argument(
        "--ghost-limit", type=int, default=1 << 40, metavar="BYTES", help="refuse unlinked files above this size"
    )
    parser.add_argument(
        "--compress",
        nargs="?",
        const="zstd",
        metavar="HOW",
        help="compress the image: zstd[:LEVEL], from 1 (fast) to 19 (small), or lz4[:LEVEL], from 1 to 12; zstd:3 when "
        "only --compress is given, and a number is a level of zstd",
    )
    parser.add_argument(
        "--encrypt",
        action="append",
        metavar="KEY",
        help="encrypt the image to a public key (age1..., ssh-...), or to those in a key file; may be repeated, and "
        "any one of them opens it; ORCH_ENCRYPT when not given",
    )
    parser.add_argument(
        "--checksums",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="store checksums of the page data too (they are)",
    )
    parser.add_argument(
        "--track",
        action="store_true",
        help="note the job's writes from here on, so that a delta to this image is made fast",
    )
    parser.add_argument(
        "--parent",
        metavar="IMAGE",
        help="write a delta: only what has changed since IMAGE, or 'last' for the newest image of the job; it is "
        "written beside IMAGE and needs it; implies --track",
    )
    parser.add_argument(
        "--precopy",
        type=int,
        default=0,
        metavar="N",
        help="write what it can while the job runs, in at most N rounds, so that one that is to stop or to end stands "
        "still for what is left only; the image is whole in the end",
    )
    parser.add_argument("--no-sync", action="store_true", help="do not wait until the image is on the disk")
    parser.add_argument(
        "--no-replicas",
        dest="replicate",
        action="store_false",
        help="write a job that goes on while it stands still, rather than let copy-on-write replicas hold its memory",
    )
    parser.add_argument("--stats", metavar="FILE", help="write what it took to a file, as JSON; - is the output")
    parser.set_defaults(ending="run")
    return parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    options = _parser().parse_args(arguments)
    packing = None
    if options.compress is not None:
        from orchestrator.image.packing import parse_packing

        packing = parse_packing(options.compress)
    if options.output == "-":
        if sys.stdout.isatty():
            raise UsageError(
                "checkpoint: an image is not for a terminal", hint="as in '-o - | ssh HOST orch restore -'"
            )
        if options.stats == "-":
            raise UsageError("checkpoint: the image and --stats cannot both be the output")

    from orchestrator.checkpointing import CheckpointOptions, checkpoint
    from orchestrator.cli.progress import progress_bar
    from orchestrator.cli.stats import write_stats
    from orchestrator.cli.termination import unwind_on_termination
    from orchestrator.cli.text import size
    from orchestrator.target import find_target

    target = find_target(options.pid if options.cgroup is None else options.cgroup)
    asked = CheckpointOptions(
        ending=options.ending,
        timeout=options.timeout,
        externals=frozenset(options.external) | TCP[options.tcp],
        ghost_limit=options.ghost_limit,
        durable=not options.no_sync,
        checksums=options.checksums,
        packing=packing,
        encrypt=given_keys(options.encrypt, "ORCH_ENCRYPT"),
        replicate=options.replicate,
        parent=options.parent,
        track=options.track,
    )
    unwind_on_termination()
    with progress_bar(f"writing {options.output or 'the image'}") as progress:
        if options.precopy:
            from orchestrator.precopy import checkpoint_in_rounds

            took = checkpoint_in_rounds(target, options.output, asked, options.precopy, progress)
        else:
            took = checkpoint(target, options.output, asked, progress)
    output = took.output
    if options.stats is not None:
        write_stats(options.stats, took)
    if took.short_of_tasks:
        print("orch: no room for replicas (pids.max): it was written while the job stood still", file=sys.stderr)
    if took.short_of_memory:
        print("orch: no memory to spare for replicas: it was written while the job stood still", file=sys.stderr)
    if options.parent is not None and not took.delta_to:
        print(f"orch: there is no earlier image of {target.name}: this one is whole", file=sys.stderr)
    if (options.track or options.parent is not None) and options.ending != "kill" and not took.tracked:
        print("orch: the job's writes are not noted: the next delta will be found by comparison", file=sys.stderr)
    if options.stats != "-":
        what = f"{took.processes} processes" if took.processes != 1 else "1 process"
        still = f"the job stood still for {took.frozen_us / 1000:.1f} ms"
        how = " by comparison" if took.compared else ""
        rounds = f", {took.rounds} round{'s' if took.rounds > 1 else ''} while the job ran" if took.rounds else ""
        delta = f", a delta to {took.delta_to}{how}" if took.delta_to else ""
        print(
            f"{output}: {what}, {size(took.image_bytes)}{delta}{rounds}; {still}",
            file=sys.stderr if output == "-" else None,
        )
    return 0

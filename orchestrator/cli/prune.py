"""orch prune: make deltas whole."""

from __future__ import annotations

import os

from orchestrator.cli.arguments import Parser


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser(
        "prune",
        "Make deltas whole, so that they need no other image: what they have in others is copied into them. It takes\n"
        "their place when it is on the disk, and deltas to them stay right.",
    )
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="an image; or a directory: the deltas in it that no other needs"
    )
    parser.add_argument(
        "--remove-parents",
        action="store_true",
        help="remove the images that it descends from, unless others need them",
    )
    parser.add_argument("--no-sync", action="store_true", help="do not wait until the image is on the disk")
    options = parser.parse_args(arguments)

    from orchestrator.cli.termination import unwind_on_termination
    from orchestrator.cli.text import size
    from orchestrator.merge import prune, tips_in

    unwind_on_termination()
    for given in options.images:
        for path in tips_in(given) if os.path.isdir(given) else [given]:
            merged = prune(path, remove_parents=options.remove_parents, durable=not options.no_sync)
            what = "whole now" if merged.was_delta else "it was whole"
            print(f"{path}: {what}, {size(merged.image_bytes)}")
            for removed in merged.removed:
                print(f"{removed}: removed")
            for kept, users in merged.kept.items():
                print(f"{kept}: kept, {', '.join(users)} {'needs' if len(users) == 1 else 'need'} it")
    return 0

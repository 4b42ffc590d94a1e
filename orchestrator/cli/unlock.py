"""orch unlock: give up the connections that an image keeps."""

from __future__ import annotations

from orchestrator.cli.arguments import Parser, add_key, given_keys


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser(
        "unlock",
        "Let the packets of connections pass that 'orch checkpoint --tcp keep' holds back, for an image that will not\n"
        "be restored. To be called in the network namespace that the job was in. The other ends find their\n"
        "connections reset.",
    )
    parser.add_argument("image", help="the image")
    add_key(parser)
    options = parser.parse_args(arguments)

    from orchestrator.image.reader import ImageFile
    from orchestrator.kinds.sockets.tcp_hold import let_through
    from orchestrator.kinds.sockets.tcp_release import filters_of
    from orchestrator.restoring import decode

    with ImageFile.open(options.image, keys=given_keys(options.key, "ORCH_KEY")) as image:
        names = filters_of(decode(image).files)
    found = let_through(names)
    print(f"{options.image}: " + ("its connections are given up" if found else "nothing is held back for it here"))
    return 0

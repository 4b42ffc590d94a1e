"""orch keygen: make a key that images can be encrypted to."""

from __future__ import annotations

import os

from orchestrator.cli.arguments import Parser
from orchestrator.errors import BadKey


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser(
        "keygen",
        "Make a key for 'orch checkpoint --encrypt' and 'orch restore --key', and print its public half: whoever has\n"
        "that can encrypt an image, and only whoever has the file can open it. It is a key of age, as of age-keygen.",
    )
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="a new file for the private key")
    options = parser.parse_args(arguments)

    from orchestrator.image.keys import new_key

    text, public = new_key()
    try:
        fd = os.open(options.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "w", encoding="ascii") as file:
            os.fchmod(fd, 0o600)  # whatever the umask is
            file.write(text)
            file.flush()
            os.fsync(fd)
    except OSError as error:
        raise BadKey(f"the key cannot be written to {options.output}: {error.strerror}") from error
    print(public)
    return 0

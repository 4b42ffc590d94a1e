"""The ``orch`` command: find the verb, run it, turn errors into a message and an exit code."""

from __future__ import annotations

import sys
from importlib import import_module

VERBS = {
    "run": "run a program as a job",
    "ps": "list jobs with their processes, memory and images",
    "checkpoint": "write a job to an image; it goes on, or is killed or stopped",
    "restore": "bring a job back from an image",
    "migrate": "move a running job to another machine, while it runs",
    "receive": "take in a job that 'orch migrate' sends",
    "show": "look into an image",
    "prune": "make deltas whole, and remove the images that they needed",
    "kill": "end a job",
    "unlock": "give up the connections that an image keeps",
    "keygen": "make a key that images can be encrypted to",
    "doctor": "tell what this kernel and these privileges allow",
}
"""Each is a module of this package with ``main(arguments) -> exit code``; only the one asked for is imported."""

_HELP = f"""\
usage: orch [--debug] VERB ...

Checkpoint whole jobs to a file, and restore them with their processes, memory and open files.

{chr(10).join(f"  {verb:<12}{line}" for verb, line in VERBS.items())}

'orch VERB --help' tells more. --debug shows where in orch an error came from.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Console script of the package."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = arguments[:1] == ["--debug"]
    if debug:
        arguments = arguments[1:]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_HELP, end="", file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"orch {version('orchestrator')}")
        return 0
    try:
        return _run_verb(arguments[0], arguments[1:])
    except KeyboardInterrupt:
        if debug:
            raise
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain once more at exit.
        sys.stdout = None
        return 141
    except Exception as error:
        if debug:
            raise
        # The unwinding passes through libraries that make errors of their own of it.
        return _told_to_end() or _explain(error)


def _run_verb(verb: str, arguments: list[str]) -> int:
    if verb not in VERBS:
        from orchestrator.errors import UsageError

        raise UsageError(f"there is no verb {verb!r}", hint=f"choose from {', '.join(VERBS)}")
    code: int = import_module(f"orchestrator.cli.{verb}").main(arguments)
    sys.stdout.flush()
    return code


def _told_to_end() -> int:
    """Return the exit code of who was told to end by a signal, 0 if we were not."""
    termination = sys.modules.get("orchestrator.cli.termination")
    return 128 + termination.told[-1] if termination is not None and termination.told else 0


def _explain(error: Exception) -> int:
    from orchestrator.errors import OrchError

    inner: BaseException = error
    # trio wraps what its nurseries raise; one error in it is that error.
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    if isinstance(inner, KeyboardInterrupt):
        return 130
    if isinstance(inner, OrchError):
        from orchestrator.cli.text import printable

        lines = [printable(line) for line in inner.message.splitlines()]
        print(f"orch: {chr(10).join(lines)}", file=sys.stderr)
        if inner.hint:
            print(f"hint: {inner.hint}", file=sys.stderr)
        return inner.exit_code
    print(f"orch: internal error: {type(inner).__name__}: {inner}", file=sys.stderr)
    for note in getattr(inner, "__notes__", ()):
        print(f"  in {note}", file=sys.stderr)
    print("hint: this is a defect of orch; 'orch --debug ...' shows where it is", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

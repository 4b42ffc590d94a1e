"""orch doctor: what this kernel and these privileges allow."""

from __future__ import annotations

import os

from orchestrator.cli.arguments import Parser


def main(arguments: list[str]) -> int:
    """Run the verb; the exit code is not 0 if something is missing that every checkpoint needs."""
    parser = Parser("doctor", "Try everything that orch needs of this kernel, and tell what is lost without it.")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(arguments)

    from orchestrator.doctor import memory, processes, surroundings
    from orchestrator.doctor.probe import examine
    from orchestrator.errors import KernelLacks, NotPermitted

    findings = [examine(probe) for probe in (*surroundings.PROBES, *processes.PROBES, *memory.PROBES)]
    if options.json:
        import json

        print(json.dumps([finding._asdict() for finding in findings], indent=2))
    else:
        width = max(len(finding.name) for finding in findings)
        for finding in findings:
            line = f"{'ok' if finding.works else 'no':<4}{finding.name:<{width}}"
            print(line.rstrip() if finding.works else f"{line}  {finding.why}: {finding.lost}")
    missing = [finding.name for finding in findings if finding.essential and not finding.works]
    if not missing:
        return 0
    if not options.json:
        print(f"\norch cannot work here: it needs {', '.join(missing)}")
    return NotPermitted.exit_code if os.geteuid() != 0 else KernelLacks.exit_code

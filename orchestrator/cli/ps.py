"""orch ps: the jobs, and what runs in them."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.cli.arguments import Parser
from orchestrator.cli.text import printable, size


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser("ps", "List the jobs with their process trees, state, memory and images.")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="only these")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(arguments)

    from orchestrator.census import describe_job
    from orchestrator.job import find_job, list_jobs

    jobs = [find_job(name) for name in options.jobs] if options.jobs else list_jobs()
    described = [describe_job(job) for job in jobs]
    if options.json:
        import json

        print(json.dumps(described, indent=2))
        return 0
    if not described:
        print("no jobs")
    for job in described:
        _print_job(job)
    return 0


def _print_job(job: dict[str, Any]) -> None:
    processes = job["processes"]
    threads = sum(process["threads"] for process in processes)
    facts = [job["state"], f"{len(processes)} processes" if len(processes) != 1 else "1 process"]
    if threads > len(processes):
        facts.append(f"{threads} threads")
    facts.append(size(sum(process["memory"] for process in processes)))
    if job["missing_at_first"]:
        there = max(0, job["missing_at_first"] - job["missing"])
        facts.append(f"filling: {100 * there // job['missing_at_first']}%")
    if not job["supervised"]:
        facts.append("without a supervisor")
    if job["restored_from"]:
        facts.append(f"restored from {job['restored_from']}")
    print(f"{job['name']}  {', '.join(facts)}")
    for process in processes:
        branch = "  " * process["depth"] + printable(process["command"])
        if process["own_pid"] != process["pid"]:
            branch += f"  (as itself {process['own_pid']})"
        print(f"  {process['pid']:>7} {process['state']} {size(process['memory']):>10}  {branch}")
    for image in job["images"]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(image["created"]))
        print(f"  image {image['path']}  {when}{'' if image['exists'] else '  (gone)'}")

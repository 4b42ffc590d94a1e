"""orch show: look into an image. Needs no root, only the right to read the file."""

from __future__ import annotations

import time
from typing import Any

from orchestrator.cli.arguments import Parser, add_key, comma_list, given_keys
from orchestrator.cli.text import printable, size
from orchestrator.errors import UsageError

_PARTS = ("tree", "memory", "files", "objects", "namespaces")


def main(arguments: list[str]) -> int:
    """Run the verb."""
    parser = Parser(
        "show", "Show what is in an image: processes, memory map, open files and sockets, namespaces, sizes."
    )
    parser.add_argument("image", help="the image; - reads it from the input")
    add_key(parser)
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--only", type=comma_list, default=list(_PARTS), metavar="LIST", help=f"print some parts: {','.join(_PARTS)}"
    )
    parser.add_argument("--verify", action="store_true", help="compare the page data with its checksums")
    options = parser.parse_args(arguments)
    for part in options.only:
        if part not in _PARTS:
            raise UsageError(f"show: there is no part {part!r}", hint=f"choose from {', '.join(_PARTS)}")

    from orchestrator.opened import Image

    with Image(options.image, given_keys(options.key, "ORCH_KEY")) as image:
        described = image.describe()
        verified = image.verify() if options.verify else None
    if options.json:
        import json

        print(json.dumps(described, indent=2))
        return 0
    _print_header(described)
    if verified is not None:
        _say(f"verified    {size(verified)} of pages" if verified else "verified    records only: no page checksums")
    for part in _PARTS:
        if part in options.only:
            print()
            _PRINTERS[part](described)
    return 0


def _say(line: str) -> None:
    """Print one line. An image may come from anywhere, and so may the names in it."""
    print(printable(line))


def _print_header(image: dict[str, Any]) -> None:
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(image["created"]))
    sizes = image["sizes"]
    _say(f"image       {image['path']}  {image['id']}")
    if image["parent"] is not None:
        _say(f"parent      {image['parent']}")
    for link in image["chain"]:
        _say(f"needs       {link['name']}  {link['id']}: {size(link['referred'])} of its pages")
    _say(f"job         {image['job']}, root {image['root']}")
    where = f"on {image['hostname']}, Linux {image['kernel']} {image['architecture']}"
    _say(f"made        {when} {where}, orch {image['orch']}")
    parts = f"{size(sizes['pages'])} of pages, {size(sizes['metadata'])} of records"
    _say(f"size        {size(sizes['file'])}: {parts}")


def _print_tree(image: dict[str, Any]) -> None:
    memories = {memory["id"]: memory for memory in image["memories"]}
    _say(f"{len(image['processes'])} processes, {sum(len(p['threads']) for p in image['processes'])} threads")
    for process in image["processes"]:
        branch = "  " * process["depth"] + printable(process["name"])
        facts = []
        if process["state"] == "zombie":
            facts.append(f"zombie, status {process['exit_status']}")
        else:
            if process["state"] != "running":
                facts.append(process["state"])
            facts.append(f"uid {process['user']}")
            if len(process["threads"]) > 1:
                facts.append(f"{len(process['threads'])} threads")
            facts.append(f"{size(memories[process['memory']]['stored'])} stored")
            facts.append(f"in {process['working_directory']}")
        if process["session"] == process["pid"]:
            facts.append("session leader")
        elif process["group"] == process["pid"]:
            facts.append("group leader")
        _say(f"  {process['pid']:>7} {branch:<24} {', '.join(facts)}")


def _print_memory(image: dict[str, Any]) -> None:
    for memory in image["memories"]:
        users = [str(process["pid"]) for process in image["processes"] if process.get("memory") == memory["id"]]
        sizes = f"{size(memory['size'])} mapped, {size(memory['stored'])} stored"
        _say(f"memory of {', '.join(users)}: {memory['executable']}, {sizes}")
        for vma in memory["mappings"]:
            backing = vma["of"] or ("" if vma["backing"] == "anonymous" else f"[{vma['backing']}]")
            stored = size(vma["stored"]) if vma["stored"] else ""
            length = size(vma["end"] - vma["start"])
            flags = f" {','.join(vma['flags'])}" if vma["flags"] else ""
            where = f"{vma['start']:012x}-{vma['end']:012x}"
            _say(f"  {where} {vma['protection']} {length:>10} {stored:>10}  {backing}{flags}".rstrip())


def _print_files(image: dict[str, Any]) -> None:
    files = {file["id"]: file for file in image["files"]}
    for table in image["file_tables"]:
        users = [str(process["pid"]) for process in image["processes"] if process.get("files") == table["id"]]
        _say(f"files of {', '.join(users)}")
        for descriptor in table["descriptors"]:
            file = files.get(descriptor["file"], {"kind": "?", "record": {}, "flags": 0, "position": 0})
            line = f"  {descriptor['fd']:>4} #{descriptor['file']:<4} {file['kind']:<12} {_facts(file['record'])}"
            at = f" at {file['position']}" if file["position"] else ""
            access = ("r", "w", "rw", "")[file["flags"] & 3]
            _say(f"{line.rstrip()}  {access}{at}{' close-on-exec' if descriptor['close_on_exec'] else ''}".rstrip())


def _print_objects(image: dict[str, Any]) -> None:
    _say(f"{len(image['objects'])} shared objects")
    for found in image["objects"]:
        _say(f"  {found['id']:>4} {found['kind']:<14} {_facts(found['record'])}".rstrip())


def _print_namespaces(image: dict[str, Any]) -> None:
    _say("namespaces")
    for namespace in image["namespaces"]:
        whose = "of its own" if namespace["private"] else "shared with the host"
        _say(f"  {namespace['kind']:<7} {whose}  {_facts(namespace['record'])}".rstrip())


def _facts(record: dict[str, Any]) -> str:
    """Write a record's fields in one line; a path stands first and alone."""
    words = [str(record["path"])] if isinstance(record.get("path"), str) else []
    for key, value in record.items():
        if key != "path" and value not in (None, "", [], {}, 0, False):
            text = _text(value)
            words.append(f"{key}={text if len(text) <= 60 else text[:57] + '...'}")
    return " ".join(words)


def _text(value: Any) -> str:
    match value:
        case [str(host), int(port), int(_), int(_)]:  # an IP address, with IPv6's flow and scope
            return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        case list():
            return ",".join(_text(inner) for inner in value)
        case dict():
            return "{" + " ".join(f"{key}={_text(inner)}" for key, inner in value.items()) + "}"
        case _:
            return str(value)


_PRINTERS = {
    "tree": _print_tree,
    "memory": _print_memory,
    "files": _print_files,
    "objects": _print_objects,
    "namespaces": _print_namespaces,
}

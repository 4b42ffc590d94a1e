"""The documents tell the truth: tests and modules that they name exist, no refusal and no exit code is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import errors
from orchestrator.linux.arch import x86_64

ROOT = Path(__file__).parents[2]
MATRIX = (ROOT / "docs" / "support-matrix.md").read_text()
TESTS = ROOT / "tests"
SOURCES = [ROOT / "orchestrator" / package for package in ("capture", "kinds", "namespaces")]
REFERENCE = re.compile(r"`([\w/]+\.py)::([\w:]+)(?:\[([^\]`]+)\])?`")
GONE = {"coordinator.py", "linux/arch/aarch64.py"}
"""Modules of the first design that were never made."""
VERDICTS = {"yes", "partly", "refused"}
TABLES_OF_REASONS = {"_ANONYMOUS", "_LINKS", "_INTERNAL", "REFUSED_FLAGS"}
ROW = re.compile(r"^\|(.+)\|$", re.MULTILINE)


def section(title: str) -> str:
    return MATRIX.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(title: str) -> list[list[str]]:
    """Return the cells of a section's tables, without their heads."""
    found = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(section(title))]
    heads = {number - 1 for number, row in enumerate(found) if set("".join(row)) <= set("-:")}
    return [row for number, row in enumerate(found) if number not in heads and number - 1 not in heads]


def functions(path: Path) -> set[str]:
    """Return the names of a file's tests; those in a class as Class::test."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{inner.name}" for inner in node.body if isinstance(inner, ast.FunctionDef)}
    return names


def strings(path: Path) -> set[str]:
    """Return every string that a file spells out, which the ids of its parameters are made of."""
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


@pytest.mark.parametrize("reference", sorted({found.group() for found in REFERENCE.finditer(MATRIX)}))
def test_a_test_that_is_named_exists(reference: str) -> None:
    found = REFERENCE.fullmatch(reference)
    assert found is not None
    name, function, parameter = found.groups()
    path = TESTS / name
    assert path.is_file()
    assert function in functions(path)
    if parameter is not None:
        program, *arguments = parameter.split("-")
        words = strings(path)
        assert program in words
        assert {*arguments} <= words | {part for word in words for part in word.split("-")}
        assert (TESTS / "kernel" / "programs" / f"{program}.c").is_file()


def test_every_row_has_a_verdict_and_what_survives_a_proof() -> None:
    table = rows("What survives")
    assert len(table) > 80
    for what, verdict, _, proof in table:
        assert verdict in VERDICTS, what
        if verdict in ("yes", "partly"):
            assert REFERENCE.search(proof) or proof == "no test of its own", what


def reason(node: ast.expr) -> Iterator[str]:
    """Return the texts that an expression may be, with "…" for what is filled in."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=parts):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.BinOp(left=left, op=ast.Add()):
            yield from reason(left)
        case ast.IfExp(body=body, orelse=orelse):
            yield from reason(body)
            yield from reason(orelse)


def refusals() -> Iterator[tuple[str, str]]:
    """Find every reason for which a checkpoint is refused: (file, text)."""
    for path in sorted(path for source in SOURCES for path in source.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            for text in _refusals_of(node):
                if not text.endswith(": …"):  # then it is in front of another reason
                    yield path.name, text


def _refusals_of(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Call(func=ast.Attribute(attr="unsupported" | "outside"), args=[_, _, given, *_]):
            yield from reason(given)
        case ast.Call(func=ast.Name(id="Refused"), args=[ast.Attribute(attr="mountpoint") | ast.Constant("/"), given]):
            yield from reason(given)
        case ast.Call(func=ast.Name(id="Refused" | "TooMuch"), args=[given, *_]):
            yield from reason(given)
        case ast.Call(func=ast.Attribute(attr="append", value=ast.Name(id="refused")), args=[ast.Tuple(elts=[_, why])]):
            yield from reason(why)
        case ast.AugAssign(target=ast.Name(id="refused"), value=ast.ListComp(elt=ast.Tuple(elts=[_, why]))):
            yield from reason(why)
        case ast.Assign(targets=[ast.Name(id="reason")], value=value):
            yield from reason(value)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Dict(values=values)) if name in TABLES_OF_REASONS:
            for given in values:
                yield from reason(given)
        case ast.Call(func=ast.Attribute(attr="get"), args=[_, ast.Constant(value=str(text))]) if "cannot be" in text:
            yield text


def test_every_refusal_is_listed() -> None:
    listed = " ".join(section("What is refused by name").split())
    missing = sorted({f"{file}: {text}" for file, text in refusals() if f"`{text}`" not in listed})
    assert not missing, "refusals that docs/support-matrix.md does not list:\n" + "\n".join(missing)


def test_nothing_is_listed_that_is_not_refused() -> None:
    known = {text for _, text in refusals()}
    listed = re.findall(r"^- `([^`]+)`", section("What is refused by name"), re.MULTILINE)
    assert len(listed) > 60
    assert sorted(set(listed) - known) == []


def test_exit_codes_are_those_of_the_code() -> None:
    wanted = [
        [f"`{kind.__name__}`", str(kind.exit_code), (kind.__doc__ or "").strip()]
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.OrchError) and "exit_code" in vars(kind)
    ]
    table = [[name, code, meaning] for name, code, meaning in rows("Exit codes") if name.startswith("`")]
    assert table == sorted(wanted, key=lambda row: int(row[1]))


ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text()
LAYERS = ARCHITECTURE.split("\n## Layers\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([\w/]+(?:/|\.py))[:`]", ARCHITECTURE))))
def test_a_module_that_the_architecture_names_exists(name: str) -> None:
    if name in GONE:
        assert not (ROOT / "orchestrator" / name).exists()
    else:
        assert (ROOT / "orchestrator" / name).exists()


@pytest.mark.parametrize("path", sorted((ROOT / "orchestrator").iterdir()), ids=lambda path: str(path.name))
def test_the_architecture_has_a_layer_for_every_module(path: Path) -> None:
    if not path.name.startswith("_") and path.name != "version.py":
        assert f"`{path.name}{'/' * path.is_dir()}`" in LAYERS


def test_the_architecture_counts_the_machine_code_right() -> None:
    loop, init = len(x86_64.TAPE_LOOP), len(x86_64.INIT_REAP)
    whole = loop + init + len(x86_64.SEED_PAUSE) + x86_64.STONE_SIZE + len(x86_64.TAPE_HERE)
    words = " ".join(ARCHITECTURE.split())
    assert f"{whole} bytes in all" in words
    assert f"a loop of {loop} bytes" in words
    assert f"*stepping stone*: {x86_64.STONE_SIZE} bytes" in words
    assert f"`orch-init`, {init} bytes" in words


def test_the_tests_of_criu_that_do_not_pass_are_explained() -> None:
    page = (ROOT / "docs" / "conformance.md").read_text()
    parts = [page.split(f"\n## {title}\n")[1].split("\n## ")[0] for title in ("Failed", "Refused", "Broken")]
    names = {name for part in parts for name in re.findall(r"^\| `([^`]+)` \|", part, re.MULTILINE)}
    explained = set(re.findall(r"`([\w/-]+)`", " ".join(row[0] for row in rows("CRIU's tests that do not pass"))))
    assert names == explained

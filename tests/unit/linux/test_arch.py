"""The machine code against its assembly, and the structs that the kernel reads."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import struct
from pathlib import Path

import pytest

from orchestrator.linux import syscalls, vdso
from orchestrator.linux.arch import x86_64 as arch
from orchestrator.restore import seed

capstone = pytest.importorskip("capstone")

_SOURCE = Path(arch.__file__).read_text()
_COMMENT = re.compile(r'^    "(?P<bytes>[0-9a-f ]+)"  # +(?:(?P<label>\w+):)? *(?P<text>\S.*)$')


def disassembled(code: bytes) -> list[tuple[int, str, str]]:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [(i.address, i.mnemonic, i.op_str) for i in engine.disasm(code, 0)]


def commented(name: str) -> tuple[list[tuple[int, str, str]], dict[str, int]]:
    """Return (address, mnemonic, operands) of the comments beside a piece of code, and its labels."""
    body = _SOURCE.split(f"\n{name} = ", 1)[1].split("\n)", 1)[0]
    lines, labels, at = [], {}, 0
    for line in body.splitlines()[1:]:
        found = _COMMENT.match(line)
        assert found is not None, line
        if found["label"]:
            labels[found["label"]] = at
        # two spaces or more part the assembly from what is said about it
        mnemonic, _, rest = found["text"].partition(" ")
        operands = re.split(r"(?<!,) {2,}", rest.strip())[0] if not rest.startswith("   ") else ""
        lines.append((at, mnemonic, operands))
        at += len(bytes.fromhex(found["bytes"]))
    return lines, labels


_SAME = {"jnz": "jne", "jz": "je"}
_NAMES = {"__wall": 0x40000000, "sig_setmask": 2}


def _number(text: str) -> str:
    if text in _NAMES:
        return str(_NAMES[text])
    try:
        value = int(text, 0)
    except ValueError:
        return text
    return str(value & 0xFFFFFFFF)


def normal(operands: str, labels: dict[str, int]) -> str:
    """Write operands in one way: no sizes, numbers in decimal, labels as addresses."""
    text = re.sub(r"\b(?:qword|byte) (?:ptr )?", "", operands.lower())
    text = re.sub(r"[ \t]", "", text)
    parts = re.split(r"([\[\],+])", text)
    return "".join(str(labels[p]) if p in labels else _number(p) for p in parts)


@pytest.mark.parametrize(
    ("name", "size"), [("TAPE_LOOP", 64), ("TAPE_HERE", 71), ("SEED_PAUSE", 9), ("INIT_REAP", 65), ("_STONE_HEAD", 32)]
)
def test_code_is_what_the_comments_say(name: str, size: int) -> None:
    code: bytes = getattr(arch, name)
    assert len(code) == size
    said, labels = commented(name)
    found = disassembled(code)
    assert sum(1 for _ in found) == len(said)
    for (at, mnemonic, operands), (said_at, said_mnemonic, said_operands) in zip(found, said, strict=True):
        assert (at, mnemonic) == (said_at, _SAME.get(said_mnemonic, said_mnemonic))
        assert normal(operands, {}) == normal(said_operands, labels)


def test_every_jump_of_the_loop_goes_to_an_instruction() -> None:
    for code in (arch.TAPE_LOOP, arch.TAPE_HERE, arch.SEED_PAUSE, arch.INIT_REAP):
        found = disassembled(code)
        starts = {at for at, _, _ in found}
        targets = {int(operands, 0) for _, mnemonic, operands in found if mnemonic.startswith("j")}
        assert targets <= starts
        assert targets


def test_the_loop_keeps_what_the_closing_entries_need() -> None:
    """The loop writes to no memory but an entry's result and the place it names, and never to the stack."""
    touched = [(m, o) for _, m, o in disassembled(arch.TAPE_LOOP) if m in ("push", "pop", "call", "ret") or "sp" in o]
    assert touched == []
    stores = [o for _, m, o in disassembled(arch.TAPE_LOOP) if m == "mov" and o.startswith("qword ptr [")]
    assert stores == ["qword ptr [rbx + 0x48], rax", "qword ptr [rcx], rax"]


def test_stepping_stone_puts_everything_back() -> None:
    registers = [0x1111_0000_0000_0000 + i for i in range(27)]
    mask = 0xFEDC_BA98_7654_3210
    stone = arch.stepping_stone(registers, mask)
    assert len(stone) == arch.STONE_SIZE == 144
    found = disassembled(stone[:128])
    assert [m for _, m, _ in found[:7]] == ["syscall", "mov", "mov", "lea", "mov", "mov", "syscall"]
    lea = found[3]
    assert lea[2].startswith("rsi, [rip + ")
    after_lea = found[4][0]
    assert after_lea + int(lea[2].split("+ ")[1].rstrip("]"), 0) == 136
    assert struct.unpack_from("<Q", stone, 136)[0] == mask
    loads = dict(o.split(", ") for _, m, o in found if m == "movabs")
    # what a system call with six arguments and the second call change; rbx, rbp, rsp, r12-r15 are not touched
    assert loads == {
        name: hex(registers[arch.REGISTER_NAMES.index(name)])
        for name in ("rax", "rdi", "rsi", "rdx", "r10", "r8", "r9", "rcx", "r11")
    }
    jump = next(i for i in found if i[1] == "jmp")
    assert jump == (122, "jmp", "qword ptr [rip]")
    assert struct.unpack_from("<Q", stone, 128)[0] == registers[arch.RIP]


def test_stepping_stone_keeps_the_flags() -> None:
    """No instruction of it changes the flags: only moves, lea, jmp, and syscall, which keeps them."""
    found = disassembled(arch.stepping_stone([0] * 27, 0)[:128])
    assert {m for _, m, _ in found} == {"syscall", "mov", "lea", "movabs", "jmp"}


def test_stepping_stone_fits_behind_this_kernels_vdso() -> None:
    offset = vdso.slack_offset(arch.STONE_SIZE)
    if offset < 0:
        pytest.skip("this kernel's vDSO has no room behind it")
    image = vdso.own_image()
    assert not any(image[offset : offset + arch.STONE_SIZE])
    assert offset + arch.STONE_SIZE <= len(image)


def test_registers_round_trip() -> None:
    assert len(arch.REGISTER_NAMES) == 27
    values = list(range(100, 127))
    assert arch.unpack_registers(arch.pack_registers(values)) == values
    for name in ("R12", "RBX", "R10", "R9", "R8", "RAX", "RDX", "RSI", "RDI", "ORIG_RAX", "RIP", "CS", "RSP"):
        assert arch.REGISTER_NAMES[getattr(arch, name)] == name.lower()


class _Sigcontext(ctypes.Structure):
    """struct sigcontext_64 of asm/sigcontext.h, written down again from the header."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in (
            "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "di", "si", "bp", "bx", "dx", "ax", "cx", "sp",
            "ip", "flags",
        )),
        *((name, ctypes.c_uint16) for name in ("cs", "gs", "fs", "ss")),
        *((name, ctypes.c_uint64) for name in ("err", "trapno", "oldmask", "cr2", "fpstate")),
        ("reserved1", ctypes.c_uint64 * 8),
    )  # fmt: skip


class _Ucontext(ctypes.Structure):
    _fields_ = (
        ("uc_flags", ctypes.c_uint64),
        ("uc_link", ctypes.c_uint64),
        ("ss_sp", ctypes.c_uint64),
        ("ss_flags", ctypes.c_int32),
        ("ss_size", ctypes.c_uint64),
        ("uc_mcontext", _Sigcontext),
        ("uc_sigmask", ctypes.c_uint64),
    )


def test_sigframe_layout() -> None:
    registers = [0x2222_0000_0000_0000 + i for i in range(27)]
    registers[17], registers[20] = 0x33, 0x2B
    xstate = bytearray(os.urandom(832))
    struct.pack_into("<Q", xstate, 464, 7)
    at = 0x7000_0000_1000
    frame = arch.build_sigframe(at, registers, bytes(xstate), 0xAA55)
    assert len(frame) == arch.sigframe_size(bytes(xstate))
    assert ctypes.sizeof(_Sigcontext) == 256
    assert ctypes.sizeof(_Ucontext) == arch.UCONTEXT_SIZE == 304
    context = _Ucontext.from_buffer_copy(frame)
    assert context.uc_flags == 1 | 2 | 4
    assert context.uc_link == 0
    assert context.ss_flags & ~0x8000_0003, "flags that sigaltstack(2) takes would change the alternate stack"
    assert context.uc_sigmask == 0xAA55
    names = {"di": "rdi", "si": "rsi", "bp": "rbp", "bx": "rbx", "dx": "rdx", "ax": "rax", "cx": "rcx", "sp": "rsp",
             "ip": "rip", "flags": "eflags"}  # fmt: skip
    for field in _Sigcontext._fields_[:18]:
        name = field[0]
        wanted = registers[arch.REGISTER_NAMES.index(names.get(name, name))]
        assert getattr(context.uc_mcontext, name) == wanted, name
    assert (context.uc_mcontext.cs, context.uc_mcontext.ss) == (0x33, 0x2B)
    fpstate = context.uc_mcontext.fpstate
    assert fpstate % 64 == 0
    area = frame[fpstate - at :]
    magic, extended, features, size = struct.unpack_from("<IIQI", area, 464)
    assert (magic, extended, features, size) == (0x46505853, len(xstate) + 4, 7, len(xstate))
    assert struct.unpack_from("<I", area, len(xstate))[0] == 0x46505845
    assert area[:464] == bytes(xstate[:464])
    assert area[512 : len(xstate)] == bytes(xstate[512:])


def test_enter_tape_starts_the_loop() -> None:
    registers = [1] * 27
    arch.enter_tape(registers, 0x10, 0x20, 0x30, 0x40)
    by_name = dict(zip(arch.REGISTER_NAMES, registers, strict=True))
    assert (by_name["rip"], by_name["rbx"], by_name["r12"], by_name["rsp"]) == (0x10, 0x20, 0x30, 0x40)
    assert by_name["orig_rax"] == (1 << 64) - 1, "the kernel must not restart a call on the way"


def test_enter_init_sets_what_the_reaper_reads() -> None:
    registers = [1] * 27
    arch.enter_init(registers, 0x10, 0x20, 5, 3)
    by_name = dict(zip(arch.REGISTER_NAMES, registers, strict=True))
    assert (by_name["rip"], by_name["rsp"], by_name["r13"], by_name["r14"]) == (0x10, 0x20, 5, 3)


@pytest.mark.parametrize(("error", "seen"), [(512, 512), (4, 4), (4095, 4095)])
def test_interrupted_call_and_its_rewinding(error: int, seen: int) -> None:
    registers = [0] * 27
    registers[arch.ORIG_RAX], registers[arch.RAX], registers[arch.RIP] = 35, (1 << 64) - error, 0x1002
    assert arch.interrupted_call(registers) == (35, seen)
    arch.rewind_call(registers)
    assert (registers[arch.RAX], registers[arch.RIP]) == (35, 0x1000)
    assert arch.interrupted_call(registers) is None


def test_a_result_is_no_interrupted_call() -> None:
    registers = [0] * 27
    registers[arch.ORIG_RAX], registers[arch.RAX] = 9, 0x7FFF_0000_0000
    assert arch.interrupted_call(registers) is None
    registers[arch.ORIG_RAX], registers[arch.RAX] = (1 << 64) - 1, (1 << 64) - 512
    assert arch.interrupted_call(registers) is None


def test_the_seed_is_a_program_of_one_page() -> None:
    image = seed.elf()
    assert len(image) == 4096
    entry = struct.unpack_from("<Q", image, 24)[0]
    assert entry == seed.PAUSE
    assert image[seed.PAUSE - seed.BASE :].startswith(arch.SEED_PAUSE)
    assert image[seed.INIT - seed.BASE :].startswith(arch.INIT_REAP)
    assert image[seed.SYSCALL - seed.BASE :].startswith(arch.SYSCALL_INSTRUCTION)
    pause_end = seed.PAUSE - seed.BASE + len(arch.SEED_PAUSE)
    assert pause_end <= seed.INIT - seed.BASE
    number = struct.unpack_from("<I", arch.SEED_PAUSE, 1)[0]
    assert number == syscalls.SYSCALLS["pause"].x86_64


def test_call_numbers_in_the_code_are_those_of_the_table() -> None:
    loaded = [
        int(o.split(", ")[1], 0) for _, m, o in disassembled(arch.INIT_REAP) if m == "mov" and o.startswith("eax")
    ]
    assert loaded == [syscalls.SYSCALLS[name].x86_64 for name in ("wait4", "write", "exit_group")]
    stone = disassembled(arch._STONE_HEAD)
    assert stone[1][2] == f"eax, {syscalls.SYSCALLS['rt_sigprocmask'].x86_64:#x}"
    assert stone[2][2] == f"edi, {signal.SIG_SETMASK}"
    assert syscalls.SYSCALLS["munmap"].x86_64 == arch.MUNMAP
    assert syscalls.SYSCALLS["exit"].x86_64 == arch.EXIT


@pytest.mark.parametrize(
    ("column", "header", "prefix"),
    [
        ("x86_64", "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "__NR_"),
        ("aarch64", "/usr/include/asm-generic/unistd.h", "__NR(?:3264)?_"),
    ],
)
def test_numbers_are_those_of_the_headers(column: str, header: str, prefix: str) -> None:
    path = Path(header)
    if not path.exists():
        pytest.skip(f"no {header}")
    defined = {
        name: int(number)
        for name, number in re.findall(rf"^#define {prefix}(\w+)\s+(\d+)$", path.read_text(), re.MULTILINE)
    }
    # asm-generic names by their 32-bit ancestors what a 64-bit kernel has under the plain name
    renamed = {"newfstatat": "fstatat", "pread64": "pread64", "pwrite64": "pwrite64"} if column == "aarch64" else {}
    ours = syscalls.numbers(column)
    known = {name: defined[renamed.get(name, name)] for name in ours if renamed.get(name, name) in defined}
    assert {name: ours[name] for name in known} == known
    newest = max(defined.values())
    assert [name for name in ours if name not in known and ours[name] <= newest] == []
    missing = [name for name in syscalls.SYSCALLS if name not in ours]
    assert [name for name in missing if name in defined] == [], "a call stands as '-' that the architecture has"


def test_no_number_stands_twice() -> None:
    for column in ("x86_64", "aarch64"):
        ours = syscalls.numbers(column)
        assert len(set(ours.values())) == len(ours)


def test_a_missing_column_raises() -> None:
    with pytest.raises(LookupError, match="riscv64"):
        syscalls.numbers("riscv64")
    assert "pause" not in syscalls.numbers("aarch64")


def test_arguments_are_of_known_kinds() -> None:
    kinds = {kind for row in syscalls.SYSCALLS.values() for kind in row.arguments}
    assert kinds <= {
        "addr", "arg", "clone", "dirfd", "fcntl", "fd", "fdflags", "hex", "int", "madvice", "mapflags", "oct", "off",
        "oflags", "pid", "prctl", "prot", "ptr", "signal", "size", "str", "tid", "whence",
    }  # fmt: skip
    assert all(len(row.arguments) <= 6 for row in syscalls.SYSCALLS.values())

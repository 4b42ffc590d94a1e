"""x86-64: registers, signal frames and the pieces of machine code. It imports on any machine.

See arch/x86/include/uapi/asm/{ptrace,sigcontext,ucontext}.h.
"""

from __future__ import annotations

import struct

MACHINE = "x86_64"
ELF_MACHINE = 62

# --- registers: struct user_regs_struct, the NT_PRSTATUS regset ------------------------------------

REGISTER_NAMES = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip
_REGS = struct.Struct("<27Q")
assert _REGS.size == 216
REGISTERS_SIZE = _REGS.size

R12 = 3
RBX = 5
R10, R9, R8 = 7, 8, 9
RAX = 10
RDX, RSI, RDI = 12, 13, 14
ORIG_RAX = 15
RIP = 16
CS = 17
RSP = 19
DS = 23

USER_CS_64 = 0x33

_MASK64 = (1 << 64) - 1

# Results that the kernel leaves in rax when a signal (or a tracer) interrupts a call that it will
# restart by itself. They never reach user space. See include/linux/errno.h.
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516
EINTR = 4


def unpack_registers(raw: bytes) -> list[int]:
    """Decode a NT_PRSTATUS regset into 27 numbers in the order of REGISTER_NAMES."""
    return list(_REGS.unpack(raw[: _REGS.size]))


def pack_registers(registers: list[int]) -> bytes:
    """Encode 27 numbers into a NT_PRSTATUS regset."""
    return _REGS.pack(*registers)


def program_counter(registers: list[int]) -> int:
    """Return the address of the next instruction."""
    return registers[RIP]


def set_program_counter(registers: list[int], address: int) -> None:
    """Let the task go on at ``address``."""
    registers[RIP] = address


def stack_pointer(registers: list[int]) -> int:
    """Return the stack pointer."""
    return registers[RSP]


def is_nowhere(registers: list[int]) -> bool:
    """Whether a thread has no place in user space, as one that never leaves the kernel."""
    return registers[RIP] == 0


def segments(registers: list[int]) -> tuple[int, ...]:
    """Return the selectors in ds, es, fs, gs."""
    return tuple(registers[DS:])


def is_64_bit(registers: list[int]) -> bool:
    """Say whether the task runs 64-bit code (a compat task has another code segment)."""
    return registers[CS] == USER_CS_64


def interrupted_call(registers: list[int]) -> tuple[int, int] | None:
    """Return (system call, positive errno) if the task was stopped inside a call that failed, else None."""
    if registers[ORIG_RAX] >= 1 << 63:  # -1: not in a system call
        return None
    result = registers[RAX]
    if result < _MASK64 - 4095:
        return None
    return registers[ORIG_RAX], (_MASK64 + 1) - result


def rewind_call(registers: list[int]) -> None:
    """Let the interrupted system call be made again with its own arguments."""
    registers[RAX] = registers[ORIG_RAX]
    registers[RIP] -= 2  # the length of the syscall instruction
    registers[ORIG_RAX] = _MASK64


def forget_call(registers: list[int]) -> None:
    """Keep the kernel from restarting anything when these registers are set."""
    registers[ORIG_RAX] = _MASK64


def call_arguments(registers: list[int]) -> tuple[int, int, int, int, int, int]:
    """Return the six argument registers of the current system call."""
    return (registers[RDI], registers[RSI], registers[RDX], registers[R10], registers[R8], registers[R9])


def set_call(registers: list[int], at: int, number: int, arguments: tuple[int, ...]) -> None:
    """Let the task make one system call with the instruction at ``at``."""
    registers[RIP] = at
    registers[RAX] = number
    registers[ORIG_RAX] = _MASK64
    slots = (RDI, RSI, RDX, R10, R8, R9)
    for slot, value in zip(slots, arguments + (0,) * (6 - len(arguments)), strict=True):
        registers[slot] = value & _MASK64


def call_result(registers: list[int]) -> int:
    """Return the result of the system call just made; negative is an errno."""
    value = registers[RAX]
    return value - (1 << 64) if value >= 1 << 63 else value


# --- the stepping stone: one system call that heals itself ------------------------------------------------

_STONE_HEAD = bytes.fromhex(
    "0f 05"  #  syscall              the call; a living tracer stops us behind it
    "b8 0e 00 00 00"  #  mov eax, 14          rt_sigprocmask
    "bf 02 00 00 00"  #  mov edi, SIG_SETMASK
    "48 8d 35 75 00 00 00"  #  lea rsi, [rip+117]   the task's own mask, at the end
    "ba 00 00 00 00"  #  mov edx, 0
    "41 ba 08 00 00 00"  #  mov r10d, 8
    "0f 05"  #  syscall
)
_STONE_REGISTERS = (  # movabs REGISTER, imm64: what the two calls clobbered
    (b"\x48\xb8", RAX), (b"\x48\xbf", RDI), (b"\x48\xbe", RSI), (b"\x48\xba", RDX), (b"\x49\xba", R10),
    (b"\x49\xb8", R8), (b"\x49\xb9", R9), (b"\x48\xb9", 11), (b"\x49\xbb", 6),
)  # fmt: skip
_STONE_JUMP = bytes.fromhex("ff 25 00 00 00 00")  # jmp [rip]: to where the task was
STONE_SIZE = 144


def stepping_stone(registers: list[int], sigmask: int) -> bytes:
    """Build code for one system call that, with no tracer left, puts mask and registers back and goes on.

    It needs no stack and keeps the flags, as the syscall instruction does.
    """
    code = _STONE_HEAD
    for opcode, register in _STONE_REGISTERS:
        code += opcode + registers[register].to_bytes(8, "little")
    code += _STONE_JUMP + registers[RIP].to_bytes(8, "little") + sigmask.to_bytes(8, "little")
    assert len(code) == STONE_SIZE
    return code


# --- the tape loop -----------------------------------------------------------------------------------

SYSCALL_INSTRUCTION = b"\x0f\x05"
MUNMAP = 11
EXIT = 60
CLOCK_NANOSLEEP = 230

TAPE_LOOP = bytes.fromhex(
    "48 8b 03"  # next:    mov  rax, [rbx]        the call's number
    "48 8b 7b 08"  #          mov  rdi, [rbx+8]      and its arguments
    "48 8b 73 10"  #          mov  rsi, [rbx+16]
    "48 8b 53 18"  #          mov  rdx, [rbx+24]
    "4c 8b 53 20"  #          mov  r10, [rbx+32]
    "4c 8b 43 28"  #          mov  r8,  [rbx+40]
    "4c 8b 4b 30"  #          mov  r9,  [rbx+48]
    "0f 05"  #          syscall
    "48 89 43 48"  #          mov  [rbx+72], rax     the result
    "48 85 c0"  #          test rax, rax
    "79 0b"  #          jns  store
    "f6 43 40 01"  #          test byte [rbx+64], 1  may it fail?
    "75 0e"  #          jnz  advance
    "4c 89 e3"  #          mov  rbx, r12          no: play the closing entries
    "eb cf"  #          jmp  next
    "48 8b 4b 38"  # store:   mov  rcx, [rbx+56]
    "e3 03"  #          jrcxz advance
    "48 89 01"  #          mov  [rcx], rax        an argument of a later entry
    "48 83 c3 50"  # advance: add  rbx, 80
    "eb c0"  #          jmp  next
)


# The same loop as a C function in orch's own process: f(first entry, end). It goes on behind a call that fails.
TAPE_HERE = bytes.fromhex(
    "53"  #          push rbx
    "41 54"  #          push r12
    "48 89 fb"  #          mov  rbx, rdi
    "49 89 f4"  #          mov  r12, rsi
    "4c 39 e3"  # next:    cmp  rbx, r12
    "73 35"  #          jae  done
    "48 8b 03"  #          mov  rax, [rbx]        the call's number
    "48 8b 7b 08"  #          mov  rdi, [rbx+8]      and its arguments
    "48 8b 73 10"  #          mov  rsi, [rbx+16]
    "48 8b 53 18"  #          mov  rdx, [rbx+24]
    "4c 8b 53 20"  #          mov  r10, [rbx+32]
    "4c 8b 43 28"  #          mov  r8,  [rbx+40]
    "4c 8b 4b 30"  #          mov  r9,  [rbx+48]
    "0f 05"  #          syscall
    "48 89 43 48"  #          mov  [rbx+72], rax     the result
    "48 85 c0"  #          test rax, rax
    "78 09"  #          js   advance
    "48 8b 4b 38"  #          mov  rcx, [rbx+56]
    "e3 03"  #          jrcxz advance
    "48 89 01"  #          mov  [rcx], rax        an argument of a later entry
    "48 83 c3 50"  # advance: add  rbx, 80
    "eb c6"  #          jmp  next
    "41 5c"  # done:    pop  r12
    "5b"  #          pop  rbx
    "c3"  #          ret
)


def enter_tape(registers: list[int], loop: int, first: int, closing: int, frame: int) -> None:
    """Let the task play a tape: entries from ``first``, the closing ones at ``closing``, its sigframe at ``frame``."""
    registers[RIP] = loop
    registers[RBX] = first
    registers[R12] = closing
    registers[RSP] = frame
    registers[CS] = USER_CS_64
    registers[ORIG_RAX] = _MASK64


# --- the seed: the first process of a restore ----------------------------------------------------------

SEED_PAUSE = bytes.fromhex(
    "b8 22 00 00 00"  # pause: mov eax, 34
    "0f 05"  #        syscall
    "eb f7"  #        jmp pause
)

# Process 1 of restored namespaces. It reaps; when the job's root (r13d) ends it sends the wait status
# down descriptor r14d, and when nobody is left it ends, too.
INIT_REAP = bytes.fromhex(
    "48 83 ec 10"  #        sub  rsp, 16
    "bf ff ff ff ff"  # reap:  mov  edi, -1
    "48 89 e6"  #        mov  rsi, rsp
    "ba 00 00 00 40"  #        mov  edx, __WALL
    "45 31 d2"  #        xor  r10d, r10d
    "b8 3d 00 00 00"  #        mov  eax, 61           wait4
    "0f 05"  #        syscall
    "85 c0"  #        test eax, eax
    "78 19"  #        js   end               nobody left (ECHILD)
    "44 39 e8"  #        cmp  eax, r13d
    "75 e0"  #        jne  reap
    "44 89 f7"  #        mov  edi, r14d
    "48 89 e6"  #        mov  rsi, rsp
    "ba 04 00 00 00"  #        mov  edx, 4
    "b8 01 00 00 00"  #        mov  eax, 1            write
    "0f 05"  #        syscall
    "eb cc"  #        jmp  reap
    "31 ff"  # end:   xor  edi, edi
    "b8 e7 00 00 00"  #        mov  eax, 231          exit_group
    "0f 05"  #        syscall
)


def enter_init(registers: list[int], code: int, stack: int, root: int, status_fd: int) -> None:
    """Let the task become the reaper of its namespace (see INIT_REAP)."""
    registers[RIP] = code
    registers[RSP] = stack
    registers[3 - 1] = root  # r13
    registers[1] = status_fd  # r14
    registers[ORIG_RAX] = _MASK64


# --- extended state and the signal frame ---------------------------------------------------------------

FP_XSTATE_MAGIC1 = 0x46505853
FP_XSTATE_MAGIC2 = 0x46505845
_SW_RESERVED = 464
_UC_FP_XSTATE, _UC_SIGCONTEXT_SS, _UC_STRICT_RESTORE_SS = 1, 2, 4
_UCONTEXT_FIXED = struct.Struct("<QQQiiQ")  # uc_flags, uc_link, uc_stack (sp, flags, pad, size)
_SIGCONTEXT = struct.Struct("<18Q4H5Q64x")
assert _SIGCONTEXT.size == 256
SIGINFO_SIZE = 128
UCONTEXT_SIZE = _UCONTEXT_FIXED.size + _SIGCONTEXT.size + 8
_KEEP_ALTSTACK = 0x7F  # flags that sigaltstack refuses, so that rt_sigreturn leaves the real one alone


def sigframe_size(xstate: bytes) -> int:
    """Return how many bytes :func:`build_sigframe` needs, extended state included."""
    return (UCONTEXT_SIZE + SIGINFO_SIZE + 63 & ~63) + len(xstate) + 4


def build_sigframe(address: int, registers: list[int], xstate: bytes, sigmask: int) -> bytes:
    """Build what rt_sigreturn needs to resume a task, for ``address`` (64-byte aligned, the value of rsp).

    See rt_sigreturn(2) and arch/x86/kernel/signal_64.c.
    """
    r = registers
    fpstate = address + (UCONTEXT_SIZE + SIGINFO_SIZE + 63 & ~63)
    head = _UCONTEXT_FIXED.pack(_UC_FP_XSTATE | _UC_SIGCONTEXT_SS | _UC_STRICT_RESTORE_SS, 0, 0, _KEEP_ALTSTACK, 0, 0)
    context = _SIGCONTEXT.pack(
        r[9], r[8], r[7], r[6], r[3], r[2], r[1], r[0],  # r8..r15
        r[14], r[13], r[4], r[5], r[12], r[10], r[11], r[19], r[16], r[18],  # rdi..eflags
        r[17] & 0xFFFF, 0, 0, r[20] & 0xFFFF,
        0, 0, 0, 0, fpstate,
    )  # fmt: skip
    area = bytearray(xstate)
    xcr0 = struct.unpack_from("<Q", area, _SW_RESERVED)[0]
    struct.pack_into("<IIQI", area, _SW_RESERVED, FP_XSTATE_MAGIC1, len(area) + 4, xcr0, len(area))
    frame = head + context + struct.pack("<Q", sigmask)
    return frame.ljust(fpstate - address, b"\0") + bytes(area) + struct.pack("<I", FP_XSTATE_MAGIC2)

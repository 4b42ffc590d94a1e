"""Key files: whom an image is encrypted to, and what opens it. They are those of age and of OpenSSH.

See https://age-encryption.org/v1. The library loads when a key is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from orchestrator.errors import BadKey

Recipient: TypeAlias = Any  # of a library without types
Identity: TypeAlias = Any

_SECRET: Final = "AGE-SECRET-KEY-"
_PUBLIC: Final = ("age1", "ssh-")
_SSH_SECRET: Final = ("-----BEGIN OPENSSH PRIVATE KEY-----", "-----BEGIN RSA PRIVATE KEY-----")
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_MOST_BYTES: Final = 1 << 20
_HINT: Final = "'orch keygen -o FILE' makes a key; age-keygen does, too"


def read_recipients(names: Sequence[str]) -> list[Recipient]:
    """Return whom an image is to be encrypted to: public keys themselves, files of them, or of private ones.

    Raises BadKey.
    """
    found: list[Recipient] = []
    for name in names:
        if name.startswith(_PUBLIC):
            found.append(_recipient(name, name))
            continue
        text, private = _read(name)
        if text.startswith(_SSH_SECRET):
            raise BadKey(f"{name} is a private key of OpenSSH", hint=f"name the public one, as {name}.pub")
        lines = _lines(text)
        if any(line.startswith(_SECRET) for line in lines) and not private:
            raise _open_to_others(name)
        found += [_owner(line, name) if line.startswith(_SECRET) else _recipient(line, name) for line in lines]
        if not lines:
            raise BadKey(f"{name} holds no key", hint=_HINT)
    return found


def read_identities(names: Sequence[str]) -> list[Identity]:
    """Return the private keys of files, which nobody but their owner may read. Raises BadKey."""
    found: list[Identity] = []
    for name in names:
        text, private = _read(name)
        if not private:
            raise _open_to_others(name)
        if text.startswith(_SSH_SECRET):
            found.append(_ssh_identity(text, name))
            continue
        lines = _lines(text)
        if not any(line.startswith(_SECRET) for line in lines):
            what = "public keys, which open nothing" if any(line.startswith(_PUBLIC) for line in lines) else "no key"
            raise BadKey(f"{name} holds {what}", hint=_HINT)
        found += [_identity(line, name) for line in lines]
    return found


def new_key() -> tuple[str, str]:
    """Make a key: the contents of its file, and the public half."""
    from pyrage import x25519

    secret = x25519.Identity.generate()
    public = str(secret.to_public())
    return f"# public key: {public}\n{secret}\n", public


def _read(name: str) -> tuple[str, bool]:
    """Return what a key file says, and whether only its owner can read it."""
    try:
        with open(name, "rb") as file:
            private = not os.fstat(file.fileno()).st_mode & _OTHERS
            return file.read(_MOST_BYTES).decode("ascii").lstrip(), private
    except UnicodeDecodeError as error:
        raise BadKey(f"{name} is no key file: it is not text", hint=_HINT) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise BadKey(f"key file {name} cannot be read: {reason}", hint=_HINT) from error


def _lines(text: str) -> list[str]:
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def _open_to_others(name: str) -> BadKey:
    return BadKey(f"the private key in {name} may be read by others", hint=f"chmod 600 {name}, or make a new one")


def _recipient(line: str, name: str) -> Recipient:
    from pyrage import RecipientError, ssh, x25519

    kind: Any = ssh if line.startswith("ssh-") else x25519
    try:
        found: Recipient = kind.Recipient.from_str(line)
    except RecipientError as error:
        raise _damaged(name, error) from error
    return found


def _identity(line: str, name: str) -> Identity:
    from pyrage import IdentityError, x25519

    try:
        return x25519.Identity.from_str(line)
    except IdentityError as error:
        raise _damaged(name, error) from error


def _owner(line: str, name: str) -> Recipient:
    return _identity(line, name).to_public()


def _ssh_identity(text: str, name: str) -> Identity:
    from pyrage import IdentityError, ssh

    try:
        return ssh.Identity.from_buffer(text.encode())
    except IdentityError as error:
        raise BadKey(f"the private key in {name} cannot be used: {error}", hint="it must have no passphrase") from error


def _damaged(name: str, error: Exception) -> BadKey:
    return BadKey(f"{name} is no key, or a damaged one: {error}", hint=_HINT)

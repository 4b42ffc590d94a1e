"""A new file that takes a name all at once or never."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress

_NO_O_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL)
_NO_DIRECTORY_FSYNC = (errno.EINVAL, errno.EOPNOTSUPP)


class Replacement:
    """An unfinished file beside its target, mode 0600; publish() renames it over the target.

    The old file's bytes are never touched, since a restored job may still have them mapped. Where the
    file system has O_TMPFILE the file has no name before it is published, so that not even SIGKILL
    leaves half of it behind. Otherwise it is .NAME.PID.tmp. Raises plain OSError.
    """

    fd: int
    """Open for reading and writing until publish() or discard(); -1 afterwards."""

    def __init__(self, path: str, *, anonymous: bool = True) -> None:
        directory, self._name = os.path.split(path)
        self.fd = self._directory_fd = -1
        self._temporary: bytes | None = None
        if self._name in ("", os.curdir, os.pardir):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        try:
            self._directory_fd = os.open(directory or os.curdir, os.O_RDONLY | os.O_DIRECTORY)
            self._refuse_target(path)
            self.fd = self._create(anonymous)
            os.fchmod(self.fd, 0o600)  # whatever the umask is
        except BaseException:
            self.discard()
            raise

    def _refuse_target(self, path: str) -> None:
        """Refuse to replace anything but a regular file.

        As root a rename over /dev/null or /dev/stdout succeeds. A symbolic link is not followed,
        because somebody else may have put it there, and not replaced, because it may be meant.
        """
        try:
            mode = os.stat(self._name, dir_fd=self._directory_fd, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return
        if stat.S_ISREG(mode):
            return
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.ELOOP if stat.S_ISLNK(mode) else errno.EEXIST
        raise OSError(number, os.strerror(number), path)

    def _create(self, anonymous: bool) -> int:
        if anonymous:
            try:
                return os.open(os.curdir, os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=self._directory_fd)
            except OSError as error:
                if error.errno not in _NO_O_TMPFILE:
                    raise
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        for name in self._temporary_names():
            with suppress(FileExistsError):
                fd = os.open(name, flags, 0o600, dir_fd=self._directory_fd)
                self._temporary = name
                return fd
        raise AssertionError("unreachable")

    def _temporary_names(self) -> Iterator[bytes]:
        """Yield .NAME.PID.tmp, and others in case that one is left from an earlier process or is in use."""
        number = 0
        while True:
            end = f".{os.getpid()}{f'.{number}' if number else ''}.tmp".encode()
            yield b"." + os.fsencode(self._name)[: 254 - len(end)] + end
            number += 1

    def publish(self, *, durable: bool) -> int:
        """Give the file its name, close it, and return its length. With `durable`, it is then on the disk."""
        length = os.fstat(self.fd).st_size
        if durable:
            os.fsync(self.fd)
        if self._temporary is None:
            self._link()
        assert self._temporary is not None
        os.rename(self._temporary, self._name, src_dir_fd=self._directory_fd, dst_dir_fd=self._directory_fd)
        self._temporary = None
        try:
            if durable:
                os.fsync(self._directory_fd)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY_FSYNC:
                raise
        finally:
            self.discard()
        return length

    def _link(self) -> None:
        # linkat(2) cannot replace a file, so there has to be a name to rename.
        for name in self._temporary_names():
            with suppress(FileExistsError):
                # With a dst_dir_fd, os.link calls linkat with AT_SYMLINK_FOLLOW, as open(2) wants it for O_TMPFILE.
                os.link(f"/proc/self/fd/{self.fd}", name, dst_dir_fd=self._directory_fd, follow_symlinks=True)
                self._temporary = name
                return

    def discard(self) -> None:
        """Close what is open and remove what was not published. May be called again."""
        if self._temporary is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._temporary, dir_fd=self._directory_fd)
            self._temporary = None
        for fd in (self.fd, self._directory_fd):
            if fd >= 0:
                os.close(fd)
        self.fd = self._directory_fd = -1

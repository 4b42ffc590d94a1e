"""Serve the page faults of a restored job from its image, and fill in what nobody has asked for yet.

One loop. Faults come first, and all that the job waits for: whoever forks, unmaps or moves memory that is watched
waits until that was read here. In between a part of the rest is put into place, until nothing is missing; then the
descriptor is closed, and the process is like any other.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable

import msgspec

from orchestrator.linux import userfaultfd
from orchestrator.linux.pagemap import PAGE_SIZE
from orchestrator.linux.userfaultfd import UFFD_EVENT_FORK, UFFD_EVENT_PAGEFAULT
from orchestrator.paging.desk import Desk
from orchestrator.paging.helm import Helm
from orchestrator.paging.journal import Journal, Message
from orchestrator.paging.order import NotYet, in_order
from orchestrator.paging.source import PageSource
from orchestrator.paging.world import World, apply, unborn

_ANY_PAGE = 0x10000
_AROUND_FAULT = 64 << 10
_AT_ONCE = 512 << 10
_PATIENCE = 64
_PAUSE = 0.0002
_STILL_THERE = 0.2
_WITHOUT_MEMORY = 10.0
"""Seconds that putting a page into place may fail for want of memory."""


class CannotFill(Exception):
    """A page cannot be brought from the image."""


class Duties(msgspec.Struct):
    """What a pager is made of, and its successor, too."""

    world: World
    source: PageSource
    desk: Desk
    helm: Helm
    journal: Journal
    go: int
    """At its end when the job runs, or when it never will."""
    left: dict[int, list[Message]] = msgspec.field(default_factory=dict)
    """Events that were read, by source, and have not taken effect yet."""


class Pager:
    """The loop. ``relieve`` is called when the journal is nearly full or the keeper has died, ``keeper`` is a pidfd."""

    def __init__(self, duties: Duties, relieve: Callable[[], int], keeper: int) -> None:
        self._duties = duties
        self._world = duties.world
        self._source = duties.source
        self._relieve = relieve
        self._keeper = keeper
        self._watched = {*duties.world, *unborn(duties.left)}
        self._faults: dict[tuple[int, int], None] = {}
        self._places: dict[int, int] = {}
        self._poll = select.epoll()
        self._tries = 0
        self._short_since = 0.0
        self._looked = time.monotonic()
        for fd in (*self._watched, keeper, duties.go, duties.desk.fileno()):
            self._poll.register(fd, select.EPOLLIN)

    def run(self) -> None:
        """Serve until nothing is missing any more, or nobody is there. Raises CannotFill, OutOfOrder."""
        while self._world:
            self._look()
            self._settle()
            self._serve()
            if self._duties.helm.is_filling:
                self._fill()
            self._release()

    def _look(self) -> None:
        """Take in what there is to be read; wait for it if nothing is to be done."""
        busy = self._faults or self._duties.left or self._duties.helm.is_filling
        if busy and self._tries > _PATIENCE:
            time.sleep(_PAUSE)
        for fd, _ in self._poll.poll(0 if busy else _STILL_THERE):
            if fd in self._watched:
                self._read(fd)
            elif fd == self._keeper:
                self._renew()
            elif fd == self._duties.go:
                self._start()
            else:
                self._attend(fd)
        now = time.monotonic()
        if now - self._looked > _STILL_THERE:
            self._looked = now
            self._duties.desk.tell(self._missing(), self._duties.helm.total)
            for fd in [fd for fd in self._world if userfaultfd.look_at(fd, _ANY_PAGE) == errno.ESRCH]:
                self._gone(fd)
            if self._keeper < 0:
                self._renew()

    def _missing(self) -> int:
        return sum(pages.length for pages in self._world.values())

    def _read(self, fd: int) -> None:
        if self._duties.journal.is_nearly_full:
            self._renew()
        try:
            messages = self._duties.journal.read(fd)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            time.sleep(_PAUSE)  # somebody forks and forks; others have ended by then
            return
        for message in messages:
            if message.event == UFFD_EVENT_PAGEFAULT:
                self._faults[fd, message.second & -PAGE_SIZE] = None
                continue
            self._duties.left.setdefault(fd, []).append(message)
            if message.event == UFFD_EVENT_FORK:  # watched from here on, though with which pages is not known yet
                self._watched.add(message.child)
                self._poll.register(message.child, select.EPOLLIN)

    def _start(self) -> None:
        """Begin, as the job runs; or end, as orch was killed, and the job with it."""
        if not self._duties.helm.has_begun:
            raise SystemExit
        self._poll.unregister(self._duties.go)

    def _attend(self, fd: int) -> None:
        guest = self._duties.desk.attend(fd, self._missing(), self._duties.helm.total)
        if guest is not None:
            self._poll.register(guest, select.EPOLLIN)
        if self._duties.desk.is_urgent:
            self._duties.helm.is_filling = True

    def _settle(self) -> None:
        """Let events take effect, when all that are under way have been read."""
        for fd in [fd for fd in self._world if fd in self._duties.left]:
            match userfaultfd.look_at(fd, _ANY_PAGE):
                case errno.EAGAIN:
                    self._tries += 1
                case errno.ESRCH:
                    self._gone(fd)
                case _:
                    try:
                        self._apply(fd)
                    except NotYet:
                        self._tries += 1
                    else:
                        self._tries = 0

    def _apply(self, fd: int) -> None:
        messages = self._duties.left.get(fd)
        if not messages:
            return
        messages = in_order(messages, self._world[fd], self._look_at)
        self._duties.journal.note_applied([message.number for message in messages])
        del self._duties.left[fd]
        for message in messages:
            apply(self._world, message)

    def _look_at(self, fd: int, address: int) -> int:
        """Say what is there now; of a child that has changed something itself, not even that it was forked with it."""
        return errno.EAGAIN if fd in self._duties.left and fd not in self._world else userfaultfd.look_at(fd, address)

    def _serve(self) -> None:
        """Put into place what somebody waits for."""
        for fault in list(self._faults):
            fd, address = fault
            pages = self._world.get(fd)
            if pages is None:
                if fd not in self._watched:
                    self._faults.pop(fault, None)
                continue
            if fd in self._duties.left:
                continue
            run = pages.at(address)
            if run is None:
                done = self._judge(fd, address, PAGE_SIZE, userfaultfd.put_zeros(fd, address, PAGE_SIZE))
            else:
                end = min(run.end, (address & -_AROUND_FAULT) + _AROUND_FAULT)
                done = self._put(fd, address, end, run.at + address - run.start)
                self._places[fd] = end
            if done:
                self._faults.pop(fault, None)

    def _fill(self) -> None:
        """Put one part of the rest into place, of the oldest process where that can be done now."""
        for fd, pages in list(self._world.items()):
            run = pages.next(self._places.get(fd, 0))
            if run is None or fd in self._duties.left:
                continue
            self._source.fetch_ahead(run.at)
            self._places[fd] = run.start
            if self._put(fd, run.start, min(run.end, run.start + _AT_ONCE), run.at):
                return

    def _put(self, fd: int, start: int, end: int, at: int) -> bool:
        """Put pages of the image into place, as many as can be; say whether there was any use in it."""
        shift = self._source.address(at) - start
        filled = userfaultfd.copy(fd, start, start + shift, end - start)
        if filled.errno == errno.ENOENT and end - start > PAGE_SIZE:  # it lies in several mappings by now
            end = start + max(PAGE_SIZE, (end - start) // 2 & -PAGE_SIZE)
            return self._put(fd, start, end, at)
        return self._judge(fd, start, end - start, filled)

    def _judge(self, fd: int, start: int, length: int, filled: userfaultfd.Filled) -> bool:
        """Take note of what became of pages that were put into place; False if it must be tried again."""
        pages = self._world[fd]
        if filled.length:
            self._tries = 0
            self._short_since = 0.0
            pages.remove(start, start + filled.length)
            self._source.used(filled.length)
            return True
        match filled.errno:
            case errno.EEXIST:
                pages.remove(start, start + PAGE_SIZE)
                userfaultfd.wake(fd, start, PAGE_SIZE)
                return True
            case errno.ENOENT:
                if userfaultfd.look_at(fd, start) == errno.EAGAIN:
                    self._tries += 1
                    return False
                pages.remove(start, start + PAGE_SIZE)
                userfaultfd.wake(fd, start, PAGE_SIZE)
                return True
            case errno.EAGAIN | errno.EINTR:
                self._tries += 1
                return False
            case errno.ESRCH:
                self._gone(fd)
                return True
            case errno.ENOMEM:
                self._wait_for_memory()
                return False
            case errno.EFAULT:
                raise CannotFill("the image cannot be read any more: its disk has failed, or it was cut short")
            case number:
                raise CannotFill(f"{length} bytes at {start:#x} cannot be put into place: {os.strerror(number)}")

    def _wait_for_memory(self) -> None:
        now = time.monotonic()
        self._short_since = self._short_since or now
        if now - self._short_since > _WITHOUT_MEMORY:
            raise CannotFill("there is no memory left to put it into")
        time.sleep(0.01)

    def _gone(self, fd: int) -> None:
        """Let go of an address space that is no more; children that were forked of it may live."""
        self._apply(fd)
        self._let_go(fd)

    def _release(self) -> None:
        """Let go of processes that have all their pages."""
        for fd in [fd for fd, pages in self._world.items() if not pages and fd not in self._duties.left]:
            self._let_go(fd)

    def _let_go(self, fd: int) -> None:
        self._duties.journal.note_closed(fd)
        del self._world[fd]
        self._watched.discard(fd)
        self._places.pop(fd, None)
        os.close(fd)

    def _renew(self) -> None:
        """Have a new keeper and an empty journal; later, if no process can be made just now."""
        if self._keeper >= 0:
            self._poll.unregister(self._keeper)
        try:
            self._keeper = self._relieve()
        except OSError:
            self._keeper = -1
        else:
            self._poll.register(self._keeper, select.EPOLLIN)

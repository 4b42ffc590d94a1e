"""Which descriptor number each open file has while a restore makes the job: where the depot keeps it.

A file stands at a number that it has in the job if no other file has that number in any table; then a table that
has it there finds it in place. All others, and whatever a restore needs besides, get numbers that are free in all
tables: above them, or between them where the limit of open files leaves no room above.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count

from orchestrator.ids import DepotFd, ObjectId
from orchestrator.tape.build import Tape

LOWEST = 16
"""Numbers below are free between the openings of two files: what is opened gets them in turn."""
_ABOVE = 64
_SEVERAL = ObjectId(-1)
_MAX_FD = 0xFFFFFFFF


class Slots:
    """The numbers of some files of one process."""

    def __init__(
        self,
        files: Iterable[ObjectId],
        claims: Iterable[tuple[int, ObjectId]],
        *,
        limit: int = 1 << 30,
        lowest: int = LOWEST,
        inherited: Slots | None = None,
    ) -> None:
        """``claims``: every number of every table with what is there. ``limit``: numbers that a process may have.

        ``inherited``: what stands in the process already, and is free in this and all other tables.
        """
        self._claims: dict[int, ObjectId] = {}
        for number, file in claims:
            if self._claims.setdefault(number, file) != file:
                self._claims[number] = _SEVERAL
        self._taken: list[int] = []
        self._spares: list[int] = []
        self.passing = next(number for number in count(lowest) if number not in self._claims)
        """Never in use but in passing; the lowest of those without a claim."""
        self._inherited = inherited
        self._limit, self._lowest = limit, lowest
        self._free = self._without_claim() if inherited is None else inherited.spares()
        own = dict.fromkeys(files, -1)
        for number, file in self._claims.items():
            if number >= lowest and own.get(file) == -1:
                own[file] = number
        self._direct = sorted(number for number in own.values() if number >= 0)
        self._in_place = frozenset(self._direct)
        self.highest = max([self.passing, *self._claims])
        """Of the numbers that are needed."""
        self._of: Mapping[ObjectId, int] = {
            file: number if number >= 0 else self.take() for file, number in own.items()
        }

    def _without_claim(self) -> Iterator[int]:
        above = max(self.passing, _ABOVE - 1, *self._claims) + 1
        yield from range(above, self._limit)
        yield from (number for number in range(self.passing + 1, above) if number not in self._claims)
        yield from count(max(above, self._limit))  # there is no room; whoever looks at ``highest`` will say so

    def room(self, more: int) -> int:
        """Return how many numbers a process must be allowed to have if ``more`` are taken; at least the limit."""
        free = (
            self._limit - self._lowest - 1 - len(self._taken) - sum(number >= self._lowest for number in self._claims)
        )
        return max([self._limit, self._limit + more - free, *(number + 1 for number in self._claims)])

    def of(self, file: ObjectId) -> DepotFd:
        """Return the number of a file."""
        if self._inherited is not None and file not in self._of:
            return self._inherited.of(file)
        return DepotFd(self._of[file])

    def take(self) -> DepotFd:
        """Return one more number."""
        number = next(self._free)
        insort(self._taken, number)
        self.highest = max(self.highest, number)
        return DepotFd(number)

    def spares(self) -> Iterator[int]:
        """Yield more numbers, the same for everybody who asks."""
        for nth in count():
            if nth == len(self._spares):
                self._spares.append(self.take())
            yield self._spares[nth]

    def lowest_free(self, table: Mapping[int, object]) -> int:
        """Return what is opened next by a process that has these numbers, and all that stand here."""
        if self._inherited is not None:
            return self._inherited.lowest_free(table)
        return next(number for number in count() if number not in table and number not in self._in_place)

    def close_all_but(self, tape: Tape, numbers: Sequence[int]) -> None:
        """Close what stands here but for some numbers, ascending, and all above these."""
        begin = 0
        for number in numbers:
            if self._any_between(begin, number):
                tape.close_range(begin, number - 1, 0)
            begin = number + 1
        tape.close_range(begin, _MAX_FD, 0)

    def _any_between(self, begin: int, end: int) -> bool:
        if self._inherited is not None:  # its own are in place, and what it took was to spare there
            return self._inherited._any_between(begin, end)
        return any(bisect_left(some, begin) < bisect_left(some, end) for some in (self._direct, self._taken))

    def close_the_rest(self, tape: Tape) -> None:
        """Close all that does not stand here."""
        close_all_but(tape, sorted({*self._direct, *self._taken}))


def close_all_but(tape: Tape, numbers: Iterable[int]) -> None:
    """Close every descriptor but these, ascending."""
    begin = 0
    for number in numbers:
        if number > begin:
            tape.close_range(begin, number - 1, 0)
        begin = number + 1
    tape.close_range(begin, _MAX_FD, 0)

"""What a kind of task state is: it is asked by a tape inside the task, and told by a tape.

``ask`` adds entries to a capture tape and returns a function that reads the answer. ``tell`` adds the
entries that change the state a task has (``before``: what it inherited) into the recorded one; equal
records need no entry, which is what makes restoring a thousand plain processes cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from orchestrator.tape.build import Played

T = TypeVar("T")
Answer = Callable[[Played], T]

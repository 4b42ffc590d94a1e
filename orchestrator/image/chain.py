"""The other images that a delta refers to: find them beside it, and refuse what is not what it was.

Each place says in which image it lies, so nothing is looked up along the chain.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import UUID

import msgspec

from orchestrator.errors import ChainBroken, ImageCorrupt, ImageError, ImageMissing, NotPermitted
from orchestrator.image.header import HEADER_BYTES, Header
from orchestrator.image.places import MOST_IMAGES
from orchestrator.image.reader import ImageFile
from orchestrator.image.receive import HEAD_BYTES, must_be_received

_HINT = "put all images of the chain into one directory; 'orch show' names them"


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An image that another one refers to."""

    number: int
    """The one that places name it by; at least 1."""
    id: UUID
    name: str
    """What its file was called."""
    pages: int
    """How many bytes of page data it has."""


class _Links(msgspec.Struct):
    """What is read of an image to know which others it refers to."""

    chain: list[Link] = []


def links_of(image: ImageFile) -> list[Link]:
    """Return which images an image refers to. Raises ImageCorrupt."""
    return image.decode(_Links).chain if image.header.has_chain else []


def open_ancestors(image: ImageFile, links: Sequence[Link], *, foreign: bool = False) -> None:
    """Open the images that an image refers to; they are closed with it. Raises ChainBroken and ImageCorrupt."""
    numbers = {link.number for link in links}
    if len(numbers) != len(links) or not all(0 < number < MOST_IMAGES for number in numbers):
        raise ImageCorrupt(f"{image.path}: its list of other images is damaged")
    if bool(links) != image.header.has_chain:
        raise ImageCorrupt(f"{image.path}: header and records differ on whether it refers to other images")
    opened: dict[int, ImageFile] = {}
    try:
        for link in links:
            opened[link.number] = _open(image, link, foreign=foreign)
    except BaseException:
        for one in opened.values():
            one.close()
        raise
    image.ancestors.update(opened)


def _open(image: ImageFile, link: Link, *, foreign: bool) -> ImageFile:
    problem = "it is missing"
    for path in _candidates(image, link):
        try:
            found = ImageFile.open(path, foreign=foreign)
        except ImageMissing:
            continue
        except NotPermitted:
            raise
        except ImageError as error:
            problem = f"{path} is not usable: {error.message}"
            continue
        if found.header.image_id != link.id:
            problem = f"{path} is another image, {found.header.image_id}"
        elif found.header.pages_length < link.pages:  # one that was made whole since has more
            problem = f"{path} has {found.header.pages_length} bytes of pages instead of {link.pages}"
        else:
            return found
        found.close()
    raise ChainBroken(
        f"{image.path} has pages in image {link.id}, once called {link.name}: {problem}",
        hint=_HINT if image.path and os.path.exists(image.path) else "a delta can only be read by its file name",
    )


def _candidates(image: ImageFile, link: Link) -> Iterator[str]:
    """Yield files that may be the image that is looked for: by its name, then by its id."""
    if not os.path.exists(image.path):  # it came through a pipe
        return
    names = (image.path, os.path.realpath(image.path))
    directories = dict.fromkeys(os.path.dirname(name) or os.curdir for name in names)
    for directory in directories:
        yield os.path.join(directory, os.path.basename(link.name))
    for directory in directories:
        for path, header in headers_in(directory):
            if header.image_id == link.id:
                yield path


def headers_in(directory: str) -> Iterator[tuple[str, Header]]:
    """Yield the images in a directory that could be part of a chain, with their headers; skip what is not one."""
    with suppress(OSError), os.scandir(directory) as entries:
        for path in sorted(entry.path for entry in entries if entry.is_file()):
            header = read_header(path)
            if header is not None:
                yield path, header


def read_header(path: str) -> Header | None:
    """Read the first page of an image; None if it is none that could be part of a chain."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        page = os.pread(fd, HEADER_BYTES, 0)
        return Header.decode(page, name=path)
    except (OSError, ImageError):
        return None
    finally:
        os.close(fd)


def is_packed(path: str) -> bool:
    """Whether a file is an image that is compressed or encrypted."""
    try:
        with open(path, "rb") as file:
            return must_be_received(file.read(HEAD_BYTES))
    except OSError:
        return False


def dependants(path: str) -> list[str]:
    """Return the images in the same directory that refer to an image."""
    mine = read_header(path)
    if mine is None:
        return []
    found = []
    for other, header in headers_in(os.path.dirname(path) or os.curdir):
        if not header.has_chain or header.image_id == mine.image_id:
            continue
        with suppress(ImageError), ImageFile.open(other, foreign=True) as image:
            if any(link.id == mine.image_id for link in links_of(image)):
                found.append(other)
    return found

"""An image that was opened to be read: what 'orch show' shows and 'orch restore' brings back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

from orchestrator.image.chain import open_ancestors
from orchestrator.image.reader import ImageFile
from orchestrator.snapshot import Snapshot


class Image:
    """A finished image. Opening it checks that it is whole; its records are decoded when they are asked for.

    ``keys`` are files of private keys, of which one opens it if it is encrypted. An image of another architecture can
    be looked at, not restored.
    """

    def __init__(self, path: str, keys: Sequence[str] = ()) -> None:
        self.path = path
        self.keys = keys
        self._file: ImageFile | None = ImageFile.open(path, foreign=True, keys=keys)
        self._snapshot: Snapshot | None = None

    @classmethod
    def unopened(cls, path: str) -> Self:
        """Return an image that is opened when something is asked for: only whoever has its key can do so."""
        image = cls.__new__(cls)
        image.path, image.keys, image._file, image._snapshot = path, (), None, None
        return image

    @property
    def file(self) -> ImageFile:
        """The container."""
        if self._file is None:
            self._file = ImageFile.open(self.path, foreign=True, keys=self.keys)
        return self._file

    @property
    def id(self) -> str:
        """The image's own id."""
        return str(self.file.header.image_id)

    @property
    def architecture(self) -> str:
        return self.file.header.architecture

    @property
    def created(self) -> float:
        """When it was made, in seconds since 1970."""
        return self.file.header.created_unix_ns / 1e9

    @property
    def snapshot(self) -> Snapshot:
        """The records; those of kinds that differ from image to image (files, objects, namespaces) as plain data."""
        if self._snapshot is None:
            self._snapshot = self.file.decode(Snapshot)
        return self._snapshot

    @property
    def job(self) -> str:
        """The name of the job that it was made of."""
        job: str = self.snapshot.job
        return job

    def describe(self) -> dict[str, Any]:
        """Return all that 'orch show --json' prints."""
        from orchestrator.portrait import describe_image

        return describe_image(self)

    def verify(self) -> int:
        """Compare the page data with its checksums; return how many bytes were compared, 0 if it has none.

        So is that of the images that this one refers to. Raises ImageCorrupt and ChainBroken.
        """
        if not self.file.ancestors:
            open_ancestors(self.file, self.snapshot.chain, foreign=True)
        if self.file.ancestors:
            return sum(one.verify_pages() for one in (self.file, *self.file.ancestors.values()))
        return self.file.verify_pages()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

"""Artifacts: folders `kind/collection/key/` that are whole or not there.

An artifact's key hashes everything its content depends on, so a key names a content.
It holds Parquet parts, `<table>-<shard>.parquet`, perhaps files of a library's own format in a
subfolder, and is published by `manifest.json`, which is written last: no manifest, no artifact.
A part appears in one step, so one that is there is whole, and a stage that was killed is resumed
from the parts that are there.

Between stages and tasks an artifact is named by its *reference*, `kind/collection/key`,
relative to the root, so that references are the same on every machine. The root is a local
folder or a prefix of an S3 bucket; `perank_tasks.artifacts.storage` knows the difference.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from perank_tasks.artifacts.artifact import Artifact
from perank_tasks.artifacts.manifest import Manifest
from perank_tasks.artifacts.storage.base import MANIFEST, Contents, Storage
from perank_tasks.artifacts.storage.local import LocalStorage
from perank_tasks.config import stable_hash
from perank_tasks.errors import ArtifactError
from perank_tasks.settings import Settings
from perank_tasks.support.s3_uri import SCHEME, S3Uri

__all__ = ["MANIFEST", "Artifact", "Manifest", "Store", "artifact_key"]

FORMAT_VERSION = 2
"""Part of every key: raise it when the meaning of any artifact's content changes."""


def artifact_key(**content: Any) -> str:
    """Sixteen hex digits from everything an artifact's content depends on."""
    return stable_hash({"format": FORMAT_VERSION, **content})


class Store:
    """All artifacts below one root, a local folder or a prefix of an S3 bucket."""

    def __init__(self, root: str | Path):
        """Open a folder or an `s3://bucket/prefix`.

        Raises:
            ConfigError: the URI is malformed.
        """
        text = str(root)
        self.root: Path | S3Uri
        self.storage: Storage
        if text.startswith(SCHEME):
            # boto3 takes a third of a second
            from perank_tasks.artifacts.storage.s3 import S3Storage

            self.root = S3Uri.parse(text, "PERANK_ROOT")
            self.storage = S3Storage(self.root, Settings.from_environment().cache)
        else:
            self.root = Path(text).absolute()
            self.storage = LocalStorage(self.root)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        """For another process, which opens it for itself: connections are not handed over."""
        return Store, (str(self.root),)

    def check(self) -> None:
        """Look whether the root can be reached, before work begins.

        Raises:
            StorageError: there is no such bucket, access is denied, or nothing answers.
        """
        self.storage.check()

    def artifact(self, kind: str, collection: str, key: str) -> Artifact:
        """The artifact of that name, published or not."""
        return Artifact(self, f"{kind}/{collection}/{key}")

    def open(self, reference: str) -> Artifact:
        """A published artifact, which counts as used now.

        Raises:
            ArtifactError: it is not there, or was never finished.
        """
        artifact = Artifact(self, reference)
        if not artifact.use():
            raise ArtifactError(
                f"The artifact {reference} is not in {self.root} or was never finished. "
                "Run the stage that makes it again; it resumes from the parts that are whole."
            )
        return artifact

    def published(self, kind: str, collection: str) -> Iterator[Artifact]:
        """Every published artifact of a kind, the newest first."""
        artifacts = [
            self.artifact(kind, collection, key)
            for key in self.storage.folders(f"{kind}/{collection}")
        ]
        manifests = zip(artifacts, self.storage.map(Artifact.load, artifacts), strict=True)
        ages = {artifact: manifest.created_at for artifact, manifest in manifests if manifest}
        yield from sorted(ages, key=lambda artifact: (ages[artifact], artifact.reference))[::-1]

    def collections(self, kind: str) -> list[str]:
        """The collections that have artifacts of a kind, in order."""
        return self.storage.folders(kind)

    def contents(self, kind: str) -> Iterator[Contents]:
        """What lies in every artifact's folder of a kind, finished or not."""
        return self.storage.contents(kind)

    @contextmanager
    def draft(self, kind: str, collection: str) -> Iterator[Artifact]:
        """A nameless artifact, for content whose key is only known once it is written.

        It belongs to this process: on S3 it lies on this machine until it is published.
        `Artifact.publish` names it; one that the block leaves unpublished is removed.
        """
        reference = f"{kind}/{collection}/.draft-{uuid.uuid4().hex[:12]}"
        draft = Artifact(self, reference, self.storage.drafts())
        try:
            yield draft
        finally:
            draft.discard()

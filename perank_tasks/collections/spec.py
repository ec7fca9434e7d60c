"""Collections by name: a *spec* in, the adapter that reads it out.

    pydocs                                   the embedded collection
    files:/data/scifact                      a folder, BEIR or TREC layout
    files:/data/dl19?name=dl19&run=bm25.trec&relevance_level=2
    files:s3://bucket/scifact                the same on S3
    ir_datasets:beir/scifact/test            a public one, by its id in ir_datasets
    files:/data/scifact?strict=true          what is odd and harmless is refused, not counted
    files:/data/quora?identical_ids=keep     a query's own passage stays among its candidates

An adapter is one class with `check(as_of)` and `load(as_of)`, picked by the spec's scheme.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

from pydantic import Field

from perank_tasks.artifacts.storage.s3_path import S3Path, to_path
from perank_tasks.collections.records import Collection
from perank_tasks.config import Options, did_you_mean
from perank_tasks.errors import ConfigError
from perank_tasks.support.s3_uri import SCHEME


class IrDatasetsOptions(Options):
    """What a spec of such a dataset may say behind its question mark."""

    name: str | None = Field(None, min_length=1)
    run: str | None = Field(None, min_length=1)
    relevance_level: int | None = Field(None, ge=1)
    identical_ids: Literal["keep", "drop"] | None = None
    strict: bool = False


class FilesOptions(IrDatasetsOptions):
    """What the spec of a folder may set: the same, and its judgements."""

    qrels: str | None = Field(None, min_length=1)


OPTIONS: dict[str, type[Options]] = {
    "pydocs": Options,
    "files": FilesOptions,
    "ir_datasets": IrDatasetsOptions,
}
"""The options of each scheme."""


@dataclass(frozen=True)
class _Spec:
    """`scheme`, or `scheme:rest`, and perhaps `?option=value&…`; options are percent-decoded, the
    rest is taken as it is."""

    scheme: str
    rest: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "_Spec":
        address, _, query = text.partition("?")
        scheme, _, rest = address.partition(":")
        pairs = (part.partition("=") for part in query.split("&") if part)
        return cls(scheme, rest, {key: unquote(value) for key, _, value in pairs})

    def name(self, default: str) -> str:
        name = self.options.get("name", default)
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise ConfigError(
                f"collection name {name!r}: expected letters, digits, '.', '_' and '-', 100 at "
                f"most; choose one with {self.scheme}:{self.rest}?name=…"
            )
        return name


def open_collection(text: str) -> Collection:
    """The adapter that a spec names; nothing is read before its `check` or `load`.

    Raises:
        ConfigError: no such scheme or option, or an option's value is invalid.
    """
    spec, where = _Spec.parse(text), f"collection {text!r}"
    if spec.scheme not in OPTIONS:
        raise ConfigError(
            f"{where}: unknown; expected {' or '.join(OPTIONS)}{did_you_mean(spec.scheme, OPTIONS)}"
        )
    options = OPTIONS[spec.scheme].parse(spec.options, f"The options of {where}")
    given = options.model_dump(exclude={"name"}, exclude_none=True)
    if spec.scheme == "pydocs":
        if spec.rest:
            raise ConfigError(f"{where}: pydocs takes no path; write just pydocs")
        from perank_tasks.collections.pydocs import PydocsCollection

        return PydocsCollection()
    if spec.scheme == "ir_datasets":
        from perank_tasks.collections.ir_datasets import IrDatasetsCollection

        return IrDatasetsCollection(spec.rest, spec.name(spec.rest.replace("/", "-")), **given)
    if not spec.rest:
        raise ConfigError(f"{where}: expected a folder, as in files:/data/scifact")
    from perank_tasks.collections.files import FilesCollection

    folder = to_path(spec.rest, where)
    own_name = (folder if isinstance(folder, S3Path) else folder.resolve()).name
    return FilesCollection(folder, spec.name(own_name), **given)


def absolute_spec(text: str) -> str:
    """The spec with its folder's absolute path, so that it means the same everywhere."""
    spec = _Spec.parse(text)
    if spec.scheme != "files" or not spec.rest or spec.rest.startswith(SCHEME):
        return text
    _, question_mark, query = text.partition("?")
    return f"files:{Path(spec.rest).expanduser().absolute()}{question_mark}{query}"


def is_named_by_folder(text: str) -> bool:
    """Whether a collection takes its name from its folder, for want of `name=`."""
    spec = _Spec.parse(text)
    return spec.scheme == "files" and "name" not in spec.options


def same_place(text: str, other_text: str) -> bool:
    """Whether two specs name one collection, whatever their options."""
    one, other = _Spec.parse(text), _Spec.parse(other_text)
    if (one.scheme, one.rest.rstrip("/")) == (other.scheme, other.rest.rstrip("/")):
        return True
    if any(spec.scheme != "files" or spec.rest.startswith(SCHEME) for spec in (one, other)):
        return False
    return Path(one.rest).expanduser().resolve() == Path(other.rest).expanduser().resolve()


def with_run(text: str, run: Path) -> str:
    """The spec of the same collection with another first-stage run.

    Raises:
        ConfigError: the run is not there, or such a collection takes none.
    """
    if not run.is_file():
        raise ConfigError(f"{run}: no such run file")
    address, _, query = text.partition("?")
    known = OPTIONS.get(_Spec.parse(text).scheme, Options).model_fields
    if "run" not in known:
        raise ConfigError(
            f"collection {text!r} takes no run: give the folder that holds the run's queries and "
            f"passages, as in --collection files:/data/scifact"
        )
    others = [part for part in query.split("&") if part and not part.startswith("run=")]
    return f"{address}?{'&'.join([*others, f'run={quote(str(run.absolute()))}'])}"

"""Collections by name: a *spec* in, the adapter that reads it out.

    pydocs                                   the embedded collection
    files:/data/scifact                      a folder, BEIR or TREC layout
    files:/data/dl19?name=dl19&run=bm25.trec&relevance_level=2
    files:s3://bucket/scifact                the same on S3
    ir_datasets:beir/scifact/test            a public one, by its id in ir_datasets

An adapter is one class with `check(as_of)` and `load(as_of)`, picked by the spec's scheme.
"""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from perank_tasks.artifacts.storage.s3_path import S3Path, to_path
from perank_tasks.collections.records import Collection
from perank_tasks.config import did_you_mean
from perank_tasks.errors import ConfigError
from perank_tasks.support.s3_uri import SCHEME

OPTIONS = {
    "pydocs": [],
    "files": ["name", "qrels", "run", "relevance_level"],
    "ir_datasets": ["name", "run", "relevance_level"],
}
"""The options of each scheme."""


@dataclass(frozen=True)
class _Spec:
    """`scheme`, or `scheme:rest`, and perhaps `?option=value&…`; options are percent-decoded, the
    rest is taken as it is."""

    text: str
    scheme: str
    rest: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "_Spec":
        address, _, query = text.partition("?")
        scheme, _, rest = address.partition(":")
        pairs = (part.partition("=") for part in query.split("&") if part)
        return cls(text, scheme, rest, {key: unquote(value) for key, _, value in pairs})

    def check(self) -> None:
        if self.scheme not in OPTIONS:
            raise ConfigError(
                f"collection {self.text!r}: unknown; expected {' or '.join(OPTIONS)}"
                f"{did_you_mean(self.scheme, OPTIONS)}"
            )
        known = OPTIONS[self.scheme]
        for option, value in self.options.items():
            if option not in known:
                raise ConfigError(
                    f"collection {self.text!r}: unknown option {option!r}; expected "
                    f"{' or '.join(known) or 'none'}{did_you_mean(option, known)}"
                )
            if not value:
                raise ConfigError(f"collection {self.text!r}: option {option!r} has no value")

    @property
    def relevance_level(self) -> int | None:
        level = self.options.get("relevance_level")
        if level is not None and (not level.isdecimal() or int(level) < 1):
            raise ConfigError(
                f"collection {self.text!r}: relevance_level={level}: expected a grade of 1 or more"
            )
        return int(level) if level else None


def open_collection(text: str) -> Collection:
    """The adapter that a spec names; nothing is read before its `check` or `load`.

    Raises:
        ConfigError: no such scheme or option, or an option's value is invalid.
    """
    spec = _Spec.parse(text)
    spec.check()
    if spec.scheme == "files":
        return _open_files(spec)
    if spec.scheme == "ir_datasets":
        return _open_ir_datasets(spec)
    return _open_pydocs(spec)


def _open_pydocs(spec: _Spec) -> Collection:
    from perank_tasks.collections.pydocs import PydocsCollection

    if spec.rest:
        raise ConfigError(f"collection {spec.text!r}: pydocs takes no path; write just pydocs")
    return PydocsCollection()


def _open_files(spec: _Spec) -> Collection:
    from perank_tasks.collections.files import FilesCollection

    if not spec.rest:
        raise ConfigError(f"collection {spec.text!r}: expected a folder, as in files:/data/scifact")
    folder = to_path(spec.rest, f"collection {spec.text!r}")
    if isinstance(folder, S3Path):
        own_name = folder.name or folder.uri.bucket
    else:
        own_name = folder.resolve().name
    return FilesCollection(
        folder=folder,
        name=spec.options.get("name") or own_name,
        qrels=spec.options.get("qrels"),
        run=spec.options.get("run"),
        relevance_level=spec.relevance_level or 1,
    )


def _open_ir_datasets(spec: _Spec) -> Collection:
    from perank_tasks.collections.ir_datasets import IrDatasetsCollection

    return IrDatasetsCollection(
        dataset_id=spec.rest,
        name=spec.options.get("name") or spec.rest.replace("/", "-"),
        run=spec.options.get("run"),
        given_level=spec.relevance_level,
    )


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
    if one.scheme != other.scheme or one.scheme != "files":
        return (one.scheme, one.rest) == (other.scheme, other.rest)
    if one.rest.startswith(SCHEME) or other.rest.startswith(SCHEME):
        return one.rest.rstrip("/") == other.rest.rstrip("/")
    paths = [Path(spec.rest).expanduser() for spec in (one, other)]
    # Of a link that was turned to another folder since then, only the name is still the same.
    return paths[0] == paths[1] or paths[0].resolve() == paths[1].resolve()


def with_run(text: str, run: Path) -> str:
    """The spec of the same collection with another first-stage run.

    Raises:
        ConfigError: the run is not there, or such a collection takes none.
    """
    if not run.is_file():
        raise ConfigError(f"{run}: no such run file")
    address, _, query = text.partition("?")
    if "run" not in OPTIONS.get(_Spec.parse(text).scheme, []):
        raise ConfigError(
            f"collection {text!r} takes no run: give the folder that holds the run's queries and "
            f"passages, as in --collection files:/data/scifact"
        )
    others = [part for part in query.split("&") if part and not part.startswith("run=")]
    return f"{address}?{'&'.join([*others, f'run={quote(str(run.absolute()))}'])}"

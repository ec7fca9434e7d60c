"""Collections by name: a *spec* in, the adapter that reads it out.

    pydocs                                   the embedded collection
    files:/data/scifact                      a folder, BEIR or TREC layout
    files:/data/dl19?name=dl19&run=bm25.trec&relevance_level=2
    files:s3://bucket/scifact                the same on S3
    ir_datasets:beir/scifact/test            a public one, by its id in ir_datasets

An adapter is one class with `check(as_of)` and `load(as_of)`, picked by the spec's scheme.
"""

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from urllib.parse import quote, unquote

from perank_tasks.artifacts.storage.s3_path import AnyPath, S3Path
from perank_tasks.collections.records import Collection
from perank_tasks.errors import ConfigError
from perank_tasks.support.s3_uri import SCHEME, S3Uri


def open_collection(spec: str) -> Collection:
    """The adapter that a spec names; nothing is read before its `check` or `load`.

    A spec is `scheme`, or `scheme:rest`, and perhaps `?option=value&…`; options are
    percent-decoded, the rest is taken as it is.

    Raises:
        ConfigError: no such scheme or option, or an option's value is invalid.
    """
    scheme, rest, options = _parts(spec)
    if scheme not in _ADAPTERS:
        raise ConfigError(
            f"collection {spec!r}: unknown; expected {_choices(list(_ADAPTERS))}"
            f"{_did_you_mean(scheme, list(_ADAPTERS))}"
        )
    return _ADAPTERS[scheme](spec, rest, options)


def absolute_spec(spec: str) -> str:
    """The spec with its folder's absolute path, so that it means the same everywhere."""
    scheme, rest, _ = _parts(spec)
    if scheme != "files" or not rest or rest.startswith(SCHEME):
        return spec
    _, question_mark, query = spec.partition("?")
    return f"files:{Path(rest).expanduser().absolute()}{question_mark}{query}"


def is_named_by_folder(spec: str) -> bool:
    """Whether a collection takes its name from its folder, for want of `name=`."""
    scheme, _, options = _parts(spec)
    return scheme == "files" and "name" not in options


def same_place(spec: str, other: str) -> bool:
    """Whether two specs name one collection, whatever their options."""
    scheme, rest, _ = _parts(spec)
    other_scheme, other_rest, _ = _parts(other)
    if scheme != other_scheme or scheme != "files":
        return scheme == other_scheme and rest == other_rest
    if rest.startswith(SCHEME) or other_rest.startswith(SCHEME):
        return rest.rstrip("/") == other_rest.rstrip("/")
    paths = [Path(path).expanduser() for path in (rest, other_rest)]
    # Of a link that was turned to another folder since then, only the name is still the same.
    return paths[0] == paths[1] or paths[0].resolve() == paths[1].resolve()


def _parts(spec: str) -> tuple[str, str, dict[str, str]]:
    """Scheme, rest and options of a spec."""
    address, _, query = spec.partition("?")
    scheme, _, rest = address.partition(":")
    options = {}
    for part in filter(None, query.split("&")):
        key, _, value = part.partition("=")
        options[key] = unquote(value)
    return scheme, rest, options


def with_run(spec: str, run: Path) -> str:
    """The spec of the same collection with another first-stage run.

    Raises:
        ConfigError: the run is not there, or such a collection takes none.
    """
    if not run.is_file():
        raise ConfigError(f"{run}: no such run file")
    address, _, query = spec.partition("?")
    if not address.startswith(("files:", "ir_datasets:")):
        raise ConfigError(
            f"collection {spec!r} takes no run: give the folder that holds the run's queries and "
            f"passages, as in --collection files:/data/scifact"
        )
    kept = [part for part in query.split("&") if part and not part.startswith("run=")]
    return f"{address}?{'&'.join([*kept, f'run={quote(str(run.absolute()))}'])}"


def _open_pydocs(spec: str, rest: str, options: dict[str, str]) -> Collection:
    from perank_tasks.collections.pydocs import PydocsCollection

    if rest:
        raise ConfigError(f"collection {spec!r}: pydocs takes no path; write just pydocs")
    _check_options(spec, options, [])
    return PydocsCollection()


def _open_files(spec: str, rest: str, options: dict[str, str]) -> Collection:
    from perank_tasks.collections.files import FilesCollection

    if not rest:
        raise ConfigError(f"collection {spec!r}: expected a folder, as in files:/data/scifact")
    _check_options(spec, options, ["name", "qrels", "run", "relevance_level"])
    folder: AnyPath
    if rest.startswith(SCHEME):
        folder = S3Path(S3Uri.parse(rest, f"collection {spec!r}"))
        own_name = folder.name or folder.uri.bucket
    else:
        folder = Path(rest).expanduser()
        own_name = folder.resolve().name
    return FilesCollection(
        folder=folder,
        name=options.get("name") or own_name,
        qrels=options.get("qrels"),
        run=options.get("run"),
        relevance_level=_relevance_level(spec, options) or 1,
    )


def _open_ir_datasets(spec: str, rest: str, options: dict[str, str]) -> Collection:
    from perank_tasks.collections.ir_datasets import IrDatasetsCollection

    _check_options(spec, options, ["name", "run", "relevance_level"])
    return IrDatasetsCollection(
        dataset_id=rest,
        name=options.get("name") or rest.replace("/", "-"),
        run=options.get("run"),
        given_level=_relevance_level(spec, options),
    )


def _relevance_level(spec: str, options: dict[str, str]) -> int | None:
    level = options.get("relevance_level")
    if level is None:
        return None
    if not level.isdecimal() or int(level) < 1:
        raise ConfigError(
            f"collection {spec!r}: relevance_level={level}: expected a grade of 1 or more"
        )
    return int(level)


_ADAPTERS: dict[str, Callable[[str, str, dict[str, str]], Collection]] = {
    "pydocs": _open_pydocs,
    "files": _open_files,
    "ir_datasets": _open_ir_datasets,
}


def _check_options(spec: str, options: dict[str, str], known: list[str]) -> None:
    for option in options:
        if option not in known:
            raise ConfigError(
                f"collection {spec!r}: unknown option {option!r}; expected "
                f"{_choices(known) or 'none'}{_did_you_mean(option, known)}"
            )
        if not options[option]:
            raise ConfigError(f"collection {spec!r}: option {option!r} has no value")


def _choices(names: list[str]) -> str:
    return " or ".join(names)


def _did_you_mean(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=3)
    return f". Did you mean {_choices(close)}?" if close else ""

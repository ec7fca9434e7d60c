"""What no file of the package does: read pickles, run code from data, open doors to the network,
leave an encoding to the locale."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.needs import PROJECT

# What .ci/ installs, below it, is not ours.
FILES = sorted(
    path
    for pattern in ("perank_tasks/**/*.py", "dags/**/*.py", "docker/*.py", ".ci/*.py")
    for path in PROJECT.glob(pattern)
)

LOADS = {"pickle.load", "pickle.loads", "joblib.load", "dill.load", "yaml.load", "marshal.loads"}
RUNS = {"eval", "exec", "os.system", "os.popen", "compile"}


def calls(source: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call with its dotted name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def in_the_locales_encoding(name: str, call: ast.Call) -> bool:
    """Whether a call reads or writes text without saying in which encoding; ruff's PLW1514 sees
    only those whose object it knows."""
    options = {keyword.arg for keyword in call.keywords}
    method = name.rpartition(".")[2]
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    given = [value.value for value in values if isinstance(value, ast.Constant)]
    is_text_mode = any(isinstance(v, str) and re.fullmatch(r"[rwax]t?\+?", v) for v in given)
    return "encoding" not in options and (
        (method == "read_text" and not call.args)
        or (method == "write_text" and len(call.args) < 2)
        or (method in ("open", "fdopen") and (is_text_mode or not values))
        or (method.endswith("TemporaryFile") and is_text_mode)
        or any(k.arg in ("text", "universal_newlines") for k in call.keywords if "run" in name)
    )


def wrong(source: str) -> list[str]:
    """Calls that are not to be there."""
    found = []
    for name, call in calls(source):
        options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
        if (
            name in LOADS | RUNS
            or (name == "torch.load" and options.get("weights_only") != "True")
            or options.get("allow_pickle") == "True"
            or options.get("shell") == "True"
            or options.get("trust_remote_code") == "True"
            or options.get("verify") == "False"
            or "0.0.0.0" in ast.unparse(call)
            or in_the_locales_encoding(name, call)
        ):
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_nothing_from_outside_is_run(path: Path) -> None:
    assert wrong(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "pickle.loads(data)",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "subprocess.run(text, shell=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "httpx.get(url, verify=False)",
        "server.bind(('0.0.0.0', 80))",
        "eval(text)",
        "Path(name).read_text()",
        "path.write_text(text)",
        "(folder / name).open('w')",
        "path.open()",
        "tempfile.NamedTemporaryFile('w', delete=False)",
        "subprocess.run(git, capture_output=True, text=True)",
    ],
)
def test_it_would_be_seen(source: str) -> None:
    assert len(wrong(source)) == 1


def test_the_local_airflow_listens_on_loopback(tmp_path: Path) -> None:
    from perank_tasks.airflow.local.home import Home, environment

    env = environment(Home(tmp_path, PROJECT / "dags"), 18080)
    assert env["AIRFLOW__API__HOST"] == "127.0.0.1"

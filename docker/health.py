"""Say by the exit status whether a container works: `python health.py [COMPONENT]`.

In: api-server, scheduler or worker; nothing for a container that runs a command of `perank`. Out:
exit status 0, or 1 and the reason on standard error. DAG processor and triggerer have a command of
Airflow's own, `airflow jobs check`.
"""

import json
import os
import subprocess
import sys
from urllib.request import ProxyHandler, build_opener

SECONDS = 20
# Never through a proxy: it is this container that is asked about.
_open = build_opener(ProxyHandler({})).open


def api_server() -> str | None:
    """What is wrong with the API server of this container, None if nothing is."""
    port = os.environ.get("AIRFLOW__API__PORT", "8080")
    with _open(f"http://127.0.0.1:{port}/api/v2/monitor/health", timeout=SECONDS) as answer:
        status = json.load(answer)["metadatabase"]["status"]
    return None if status == "healthy" else f"metadatabase: {status}"


def scheduler() -> str | None:
    """What is wrong with the scheduler of this container."""
    port = os.environ.get("AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_SERVER_PORT", "8974")
    # Any answer but 200 is raised.
    with _open(f"http://127.0.0.1:{port}/health", timeout=SECONDS):
        return None


def worker() -> str | None:
    """Whether the Celery worker of this container answers a ping through the broker."""
    name = os.environ.get("PERANK_WORKER") or os.uname().nodename
    app = "airflow.providers.celery.executors.celery_executor.app"
    ping = ["inspect", "ping", "--destination", f"celery@{name}", "--timeout", "10"]
    done = subprocess.run(
        [sys.executable, "-m", "celery", "--app", app, *ping], capture_output=True, encoding="utf-8"
    )
    return None if done.returncode == 0 else f"celery@{name} does not answer"


def package() -> str | None:
    """Whether the package can be imported and its folder written."""
    from perank_tasks.settings import Settings

    Settings.from_environment()
    folder = os.environ.get("PERANK_HOME", "var")
    return None if os.access(folder, os.W_OK) else f"{folder} cannot be written"


CHECKS = {"api-server": api_server, "scheduler": scheduler, "worker": worker, "package": package}


def main(arguments: list[str]) -> int:
    """Check one component."""
    component = arguments[0] if arguments else "package"
    try:
        wrong = CHECKS[component]()
    except (OSError, ValueError, KeyError) as error:
        wrong = f"{component}: {error!r}"
    if wrong:
        print(wrong, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

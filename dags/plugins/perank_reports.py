"""Airflow plugin: the nights' pages at `/perank/`, and each night's verdict as its run's note.

In: the reports folder (`PERANK_REPORTS`), and the verdict task's XComs. Out: pages, read only, for
whoever may see the DAG's runs; a note on every run of the nightly DAG that ended.

Notes: Airflow loads this file in every one of its processes, so it imports little at the top.
"""

import functools
from typing import Any, ClassVar
from urllib.parse import urlencode

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from perank_tasks.airflow.run_pages import REPORTS_PREFIX

DAG = "perank_nightly"
OURS = "**"
"""How a note of ours begins; anything else on a run is a person's, and stays."""

HEADERS = {
    # Pages show texts of the collection: nothing in them may run, or reach another host.
    "Content-Security-Policy": (
        "sandbox allow-popups; default-src 'none'; img-src data:; font-src data:; "
        "style-src 'unsafe-inline'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def _pages() -> Any:
    """The application that serves the pages, made at its first request."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from airflow.configuration import conf
    from fastapi import Depends, FastAPI, HTTPException, Request
    from fastapi.exception_handlers import http_exception_handler
    from fastapi.responses import PlainTextResponse, RedirectResponse, Response
    from fastapi.staticfiles import StaticFiles

    from perank_tasks.settings import Settings

    # Airflow's own rule for the runs of a DAG, so that a team sees its own pages alone.
    may_read = requires_access_dag("GET", DagAccessEntity.RUN, DAG)
    app = FastAPI(title="perank", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(401)
    async def log_in(request: Request, error: HTTPException) -> Response:
        """Whoever follows a link of an alert without a session logs in and then reads it."""
        if "text/html" not in request.headers.get("accept", ""):
            return await http_exception_handler(request, error)
        base = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
        query = urlencode({"next": str(request.url)})
        return RedirectResponse(f"{base}/api/v2/auth/login?{query}", 303)

    @app.exception_handler(404)
    async def say_so(request: Request, error: HTTPException) -> Response:
        return PlainTextResponse("There is no report here yet.", 404)

    @app.get("/{path:path}", dependencies=[Depends(may_read)])
    async def read(path: str, request: Request) -> Response:
        # Follows no link out of the folder; a folder's page is its index.html.
        folder = Settings.from_environment().reports
        files = StaticFiles(directory=folder, html=True, check_dir=False)
        answer = await files.get_response(path or ".", request.scope)
        answer.headers.update(HEADERS)
        return answer

    return app


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application that Airflow mounts."""
    await _pages()(scope, receive, send)


class RunNotes:
    """Writes each night's verdict on its run, in the process that ends the run."""

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        self._write(dag_run)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        self._write(dag_run)

    def _write(self, dag_run: Any) -> None:
        if dag_run.dag_id != DAG:
            return
        from airflow.models.xcom import XComModel
        from sqlalchemy.orm import object_session

        from perank_tasks.airflow.verdict import NOTE, VERDICT

        session = object_session(dag_run)
        if session is None:
            return
        stored = session.scalar(
            XComModel.get_many(run_id=dag_run.run_id, key=NOTE, task_ids=VERDICT, dag_ids=DAG)
        )
        missing = f"{OURS}incomplete{OURS}: the run ended before its verdict"
        text = XComModel.deserialize_value(stored) if stored else missing
        if not dag_run.note or dag_run.note.startswith(OURS):
            dag_run.note = text


class PerankReports(AirflowPlugin):
    """What Airflow finds in this file."""

    name = "perank_reports"
    fastapi_apps: ClassVar = [
        {"app": pages, "url_prefix": REPORTS_PREFIX, "name": "perank reports"}
    ]
    external_views: ClassVar = [
        {"name": "perank reports", "href": f"{REPORTS_PREFIX}/", "destination": "nav"}
    ]
    listeners: ClassVar = [RunNotes()]

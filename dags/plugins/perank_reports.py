"""Airflow plugin: the nights' pages at `/perank/`, and each night's verdict as its run's note.

In: the reports folder (`PERANK_REPORTS`), and the XComs of a run's tasks. Out: pages, read only,
for whoever may see the DAG's runs: "Nights" in the navigation, and "Night" on every run; a note on
every run of the nightly DAG that ended.

Notes: Airflow loads this file in every one of its processes, so it imports little at the top.
"""

import functools
from typing import Any, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from airflow.configuration import conf
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

from perank_tasks.airflow.run_pages import REPORTS_PREFIX

DAG = "perank_nightly"
OURS = "**"
"""How a note of ours begins; anything else on a run is a person's, and stays."""

BASE = (conf.get("api", "base_url", fallback=None) or "").rstrip("/")
PAGES = f"{urlsplit(BASE).path}{REPORTS_PREFIX}/"
"""The path of the pages, as a browser asks for it."""

HEADERS = {
    # Pages show texts of the collection: nothing in them may run, or reach another host. They are
    # of Airflow's origin, or a link inside its frame would be followed without the login.
    "Content-Security-Policy": (
        "sandbox allow-popups allow-same-origin; default-src 'none'; img-src data:; "
        "font-src data:; style-src 'unsafe-inline'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@functools.cache
def _pages() -> Any:
    """The application that serves the pages, made at its first request."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity
    from airflow.api_fastapi.core_api.security import requires_access_dag
    from fastapi import Depends, FastAPI, Request
    from fastapi.responses import PlainTextResponse, RedirectResponse, Response
    from fastapi.staticfiles import StaticFiles
    from starlette.concurrency import run_in_threadpool
    from starlette.exceptions import HTTPException

    from perank_tasks.settings import Settings

    # Airflow's own rule for the runs of a DAG, so that a team sees its own pages alone.
    may_read = requires_access_dag("GET", DagAccessEntity.RUN, DAG)
    app = FastAPI(title="perank", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(HTTPException)
    async def say_so(request: Request, error: HTTPException) -> Response:
        """Whoever follows a link of an alert without a session logs in and then reads it."""
        asked = request.headers
        # Airflow's login page needs scripts, which its frame for our pages does not run.
        in_frame = asked.get("sec-fetch-dest") == "iframe"
        if error.status_code == 401 and "text/html" in asked.get("accept", "") and not in_frame:
            query = urlencode({"next": str(request.url)})
            return RedirectResponse(f"{BASE}/api/v2/auth/login?{query}", 303)
        is_ours = error.status_code == 404 and error.detail == "Not Found"
        text = "There is no report here yet." if is_ours else str(error.detail)
        if error.status_code == 401:
            text = "Log in to Airflow and open this page again."
        return PlainTextResponse(text, error.status_code, headers=HEADERS)

    @app.get("/{path:path}", dependencies=[Depends(may_read)])
    async def read(path: str, request: Request, run: str | None = None) -> Response:
        if run:
            return RedirectResponse(await run_in_threadpool(_page_of_run, run))
        folder = Settings.from_environment().reports
        if (collection := path.strip("/")) in {place.name for place in folder.glob("*/")}:
            return RedirectResponse(f"{PAGES}#{quote(collection)}")
        # Follows no link out of the folder; a folder's page is its index.html.
        files = StaticFiles(directory=folder, html=True, check_dir=False)
        answer = await files.get_response(path or ".", request.scope)
        answer.headers.update(HEADERS)
        return answer

    return app


def _page_of_run(run_id: str) -> str:
    """The address of the page of a run's night.

    Raises:
        HTTPException: 404, with the run's note, where the run has planned no night.
    """
    from airflow.models.dagrun import DagRun
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select
    from starlette.exceptions import HTTPException

    from perank_tasks.airflow.run_pages import page_path
    from perank_tasks.airflow.tasks import NIGHT
    from perank_tasks.config import Night

    first = NIGHT.planning.__name__
    with create_session() as session:
        plan = session.scalar(
            XComModel.get_many(run_id=run_id, key="return_value", task_ids=first, dag_ids=DAG)
        )
        if plan:
            return PAGES + page_path(Night.from_json(XComModel.deserialize_value(plan)))
        run = session.scalar(select(DagRun).where(DagRun.dag_id == DAG, DagRun.run_id == run_id))
        text = "This run has planned no night." if run else f"Only runs of {DAG} have nights."
        raise HTTPException(404, "\n\n".join(filter(None, [text, run and run.note])))


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The ASGI application that Airflow mounts."""
    await _pages()(scope, receive, send)


class RunNotes:
    """Writes each night's verdict on its run, in the process that ends the run."""

    @hookimpl
    def on_dag_run_success(self, dag_run: Any, msg: str) -> None:
        self._write(dag_run, msg)

    @hookimpl
    def on_dag_run_failed(self, dag_run: Any, msg: str) -> None:
        self._write(dag_run, msg)

    def _write(self, dag_run: Any, msg: str) -> None:
        if dag_run.dag_id != DAG:
            return
        from airflow.models.xcom import XComModel
        from sqlalchemy.orm import object_session

        from perank_tasks.airflow.run_pages import NOTE, note_of

        session = object_session(dag_run)
        if session is None:
            return
        stored = XComModel.get_many(run_id=dag_run.run_id, key=NOTE, dag_ids=DAG)
        stored = stored.order_by(None).order_by(XComModel.timestamp)
        notes = {
            (row.task_id, row.map_index): XComModel.deserialize_value(row)
            for row in session.scalars(stored)
        }
        tasks = dag_run.get_task_instances(session=session)
        failed = [(ti.task_id, ti.map_index) for ti in tasks if ti.state == "failed"]
        if not dag_run.note or dag_run.note.startswith(OURS):
            dag_run.note = note_of(notes, failed, msg)


class PerankReports(AirflowPlugin):
    """What Airflow finds in this file."""

    name = "perank_reports"
    fastapi_apps: ClassVar = [
        {"app": pages, "url_prefix": REPORTS_PREFIX, "name": "perank reports"}
    ]
    external_views: ClassVar = [
        {"name": "Nights", "href": PAGES, "url_route": "nights", "nav_top_level": True},
        {
            "name": "Night",
            "href": f"{PAGES}?run={{RUN_ID}}",
            "url_route": "night",
            "destination": "dag_run",
        },
    ]
    listeners: ClassVar = [RunNotes()]

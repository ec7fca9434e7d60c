"""Run Airflow on one machine: no server, no account, everything below one folder.

    home.py          the folder, its database, the environment of all that runs in it
    components.py    start, join and stop API server, scheduler and DAG processor
    api.py           the calls of Airflow's REST API that running a DAG takes
    runs.py          run a DAG once and follow it; explain a failure
    logs.py          the readable last lines of a log
    __main__.py      the command line: `python -m perank_tasks.airflow.local --help`

Nothing here imports Airflow: it is driven by its own command and its REST API.
"""

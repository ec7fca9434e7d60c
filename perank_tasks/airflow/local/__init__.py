"""Run Airflow on one machine: no server, no account, everything below one folder.

    home.py          the folder, its secrets and database, the environment of all that runs in it
    components.py    start, join and stop scheduler, DAG processor and API server
    runs.py          run a DAG once and follow it; explain a failure
    logs.py          the readable last lines of a log
    __main__.py      the command line: `python -m perank_tasks.airflow.local --help`

Nothing here imports Airflow: it is driven by its own command and its REST API.
"""

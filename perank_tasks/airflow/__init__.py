"""Where Airflow meets the pipeline: tasks, forms, alerts; `local/` runs one on this machine."""

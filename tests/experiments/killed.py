"""Runs the experiment of a file in a process of its own, to be killed: `killed.py FILE DATE`."""

import sys
from datetime import date

from perank_tasks.experiments.options import RunOptions
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import plan_experiment
from perank_tasks.night.site import Site

if __name__ == "__main__":
    site = Site.from_environment()
    file = RunOptions(experiment=sys.argv[1]).file()
    plan = plan_experiment(file, date.fromisoformat(sys.argv[2]), site)
    run_experiment(plan, site, lambda line: print(line, flush=True))

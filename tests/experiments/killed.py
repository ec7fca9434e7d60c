"""Runs the experiment of a file in a process of its own, to be killed: `killed.py FILE DATE`."""

import sys
from datetime import date

from perank_tasks.experiments.options import Experiment
from perank_tasks.experiments.pipeline import run_experiment
from perank_tasks.experiments.plan import plan_experiment

if __name__ == "__main__":
    plan = plan_experiment(Experiment.read(sys.argv[1]), date.fromisoformat(sys.argv[2]))
    run_experiment(plan, lambda line: print(line, flush=True))

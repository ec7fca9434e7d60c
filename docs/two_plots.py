"""Two plots of the newest night, from the result tables: python docs/two_plots.py [FOLDER]

In: the published warehouse (PERANK_HOME says where). Out: `trend.png`, nDCG@10 of every arm by
date, with the noise band of the first; and `queries.png`, what each query of the arm that changed
most gained or lost. Copy it and change it: every line is one question to the tables.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt

from perank_tasks import open_warehouse


def main(folder: Path) -> None:
    """Draw both into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with open_warehouse() as warehouse:
        night = warehouse.sql("FROM night_verdicts ORDER BY run_date DESC").iloc[0]
        arms = warehouse.sql(
            "FROM arm_verdicts WHERE run_date = ? AND collection = ? "
            "ORDER BY abs(ndcg_10_delta) DESC NULLS LAST, arm",
            night["run_date"],
            night["collection"],
        )

        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        for i, arm in enumerate(arms["arm"]):
            trend = warehouse.sql("FROM measure_trend(?, ?, 'nDCG@10')", night["collection"], arm)
            axes.plot(trend["run_date"], trend["value"], marker="o", label=arm)
            if i == 0:
                axes.fill_between(
                    trend["run_date"], trend["band_low"], trend["band_high"], alpha=0.2
                )
        axes.set(title=f"{night['collection']}: {night['verdict']}", ylabel="nDCG@10")
        axes.tick_params(axis="x", rotation=30)
        axes.legend()
        figure.savefig(folder / "trend.png", dpi=150)

        name = f"{night['run_date']:%Y-%m-%d}/{arms['arm'][0]}/{night['collection']}"
        queries = warehouse.sql("FROM worst_queries(?, 100000)", name)
        figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
        axes.bar(range(len(queries)), queries["delta"])
        worst = queries["query"][0] if len(queries) else "nothing to compare with"
        axes.set(title=name, xlabel=f"queries, from: {worst}", ylabel="change of nDCG@10")
        figure.savefig(folder / "queries.png", dpi=150)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))

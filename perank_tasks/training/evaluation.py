"""An evaluation: in, the results that `stages.evaluate` published; out, what its arms got.

Its arms are `new`; `new, LLM off`, its residual alone, where it has one; `champion`, the one to
beat; `champion, LLM off`; and `bm25`, the first stage. The values are a night's own result rows,
the tests the nights' own (`regression.paired`): a paired randomisation test, Student's t interval
of the difference, Holm's correction over all that is compared at once.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from perank_tasks.artifacts.store import Store
from perank_tasks.regression.paired import Comparison, Pair, compare_family
from perank_tasks.regression.statistics import mean_interval

NEW, CHAMPION, FIRST_STAGE, OFF = "new", "champion", "bm25", ", LLM off"

MAIN = "nDCG@10"
"""The measure that decides."""

Values = Mapping[str, Mapping[str, float]]
"""{measure: {query id: value}}"""


@dataclass(frozen=True)
class Evaluation:
    """What the arms of an evaluation got.

    Attributes:
        collection: its name.
        values: of every arm, by the arm's name.
        tests: by MAIN, of the new checkpoint (b) against the champion, itself with its LLM off, and
            the first stage (a), by a's name.
    """

    collection: str
    values: dict[str, Values]
    tests: dict[str, Comparison]

    @classmethod
    def read(cls, store: Store, reference: str) -> "Evaluation":
        """Of the artifact `results/<collection>/<key>`.

        Raises:
            ArtifactError: it is not there.
        """
        values: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
        for row in store.open(reference).read("query_measures").to_pylist():
            values[row["arm"]][row["measure"]][row["query_id"]] = row["value"]
        others = [name for name in (CHAMPION, NEW + OFF, FIRST_STAGE) if name in values]
        compared = compare_family(
            [Pair.by_query(values[NEW][MAIN], values[other][MAIN]) for other in others]
        )
        tests = {other: test for other, test in zip(others, compared, strict=True) if test}
        return cls(reference.split("/")[1], dict(values), tests)

    @property
    def means(self) -> dict[str, float]:
        """The mean of MAIN of every arm."""
        return {
            name: float(np.mean(list(measures[MAIN].values())))
            for name, measures in self.values.items()
        }


def score(values: Values, measure: str) -> str:
    """The mean of one measure with its 95% interval: `0.5012 [0.4312, 0.5712]`."""
    of_queries = np.array(list(values[measure].values()))
    interval = mean_interval(of_queries)
    return f"{of_queries.mean():.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def in_words(test: Comparison) -> str:
    """A comparison in one phrase: `+0.0123 [+0.0010, +0.0236], p .03, 12 better, 5 worse`."""
    p = "" if test.p is None else f", p {test.p:.2g}"
    return (
        f"{test.delta:+.4f} [{test.ci_low:+.4f}, {test.ci_high:+.4f}]{p}, "
        f"{test.better} better, {test.worse} worse of {test.queries}"
    )

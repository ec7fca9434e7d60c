-- Which nights have other judgements than the accepted one, and what did these alone change in the
-- means? `delta` is what the rankings changed.
SELECT run_date, collection, arm, measure, round(judgements_delta, 4) AS by_judgements,
    round(delta, 4) AS by_rankings, verdict
FROM judged
WHERE judgements_delta IS NOT NULL
ORDER BY abs(judgements_delta) DESC, run_date, collection, arm, measure;

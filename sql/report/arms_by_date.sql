-- Every arm's mean of a measure over the newest $nights nights; of several configurations the best.
SELECT
    arm,
    list(run_date ORDER BY run_date) AS days,
    list(value ORDER BY run_date) AS means
FROM (
    SELECT arm, run_date, max(value) AS value
    FROM means_by_date
    WHERE collection = $collection AND measure = $measure
    GROUP BY arm, run_date
    QUALIFY dense_rank() OVER (ORDER BY run_date DESC) <= $nights
)
GROUP BY arm
ORDER BY arm;

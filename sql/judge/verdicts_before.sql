-- The verdicts of a collection's nights before a date.
FROM verdicts WHERE collection = $collection AND run_date < $since;

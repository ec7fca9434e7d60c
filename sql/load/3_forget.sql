-- Remove what no result is of any more.
DELETE FROM queries WHERE snapshot NOT IN (SELECT snapshot FROM runs);
DELETE FROM judgements WHERE snapshot NOT IN (SELECT snapshot FROM runs);
DELETE FROM passages WHERE snapshot NOT IN (SELECT snapshot FROM runs);

#!/bin/sh
# A gate as a shell sees it: perank check, two pairs of runs, two exit statuses.
# Needs perank on the PATH and, in the current folder, main.trec, worse.trec, cut.trec and qrels.txt.
statuses=""
for run in worse cut; do
    perank check main.trec $run.trec --qrels qrels.txt --fail-on suspect --format markdown > $run.md
    statuses="$statuses $?"
done
echo "exit statuses:$statuses"

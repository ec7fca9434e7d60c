"""A night for people: in a terminal, as a page of its own, and the index over all nights.

    contents  what there is to say of a night, read from the published warehouse
    looks     an arm's colour and marker
    plots     its figures, as SVG that follows the page's colours
    page      one self-contained HTML file a night, and the index
    terminal  the table that `perank report` prints

All is read from the published warehouse, and from snapshots what changed in a collection; verdicts
are worded by `warehouse.night_verdict`.
"""

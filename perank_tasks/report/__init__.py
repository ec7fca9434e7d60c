"""A night for people: in a terminal, as a page of its own, and the index over all nights.

    contents  what there is to say of a night, read from the published warehouse
    looks     an arm's colour and marker
    plots     its figures, as SVG that follows the page's colours
    page      one self-contained HTML file a night, and the index
    terminal  the table that `perank report` prints

Everything here reads the warehouse alone; nothing is judged here.
"""

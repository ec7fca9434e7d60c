"""Collections: passages, queries and judgements, wherever they come from.

    spec           a spec         -> the adapter that reads it
    records        what adapters hand over
    files          a folder in BEIR's or TREC's layout, local or on S3
    formats        passages and queries in its files; `lines` reads their rows
    rows           what a row must hold to be a passage or a query, whatever its source
    ir_datasets    a public collection, by its id in ir_datasets
    pydocs         the embedded one; `pydocs_reader` finds its passages, `pydocs_data` has the rest
    trec           run and qrels files
    odd            what is odd in a collection and harmless, counted

Adapters parse, check and clean texts (`text.clean_text`), and never write.
"""

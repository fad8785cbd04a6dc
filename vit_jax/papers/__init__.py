"""A paper's table as a sweep with expected values.

table.py       what a table is: rows that are trained or computed, columns that are measured, the
               published values, and claims about their order
data_sizes.py  classes and images of data that is not at hand
loading.py     from a file with `get_table()` to a table whose every name has been checked
analytic.py    what is counted or read from a row's config without running it
trials.py      its runs: one for each row and seed
pricing.py     what they would cost, and what would start them
running.py     run what is not finished, measure, judge, write
measuring.py   what is measured on finished runs
verdicts.py    what that says of the paper's numbers and sentences
deviations.py  in what the runs differ from the paper's protocol
outcome.py     all of it as plain data, which markdown.py and drawing.py show
"""

"""Many runs that answer one question: which trials, running them, and what they found.

trials.py   a trial, and the helpers that a config's `sweep()` is written with
folder.py   a sweep on disk: the state of each trial, told by its files alone, and its record

report.py   what it found, as files; of these parts:
    findings.py       its metric, and its trials in groups that share all but the seed
    statistics.py     spread over seeds, intervals and tests of a difference
    costs.py          time and device-hours
    deviations.py     in what it was not run as planned
    importance.py     the variance that each setting explains
    report_text.py, report_data.py                          Markdown; CSV and JSON
    report_figures.py, report_parallel.py                   pictures
    labels.py, swept_axes.py, drawing.py                    how they name and place things
"""

"""What a sweep found, as files: Markdown, CSV, JSON and pictures.

report.py      writes all of them; of these parts:
findings.py    its metric, and its trials in groups that share all but the seed
costs.py       time and device-hours
deviations.py  in what it was not run as planned
importance.py  the variance that each setting explains
text.py        Markdown
data.py        CSV and JSON
figures.py     pictures; parallel.py: the one of parallel coordinates
drawing.py     what pictures share: width, colours, and how groups and the metric are named
swept_axes.py  where values stand on a picture's axis
labels.py      how settings, groups and numbers are named
"""

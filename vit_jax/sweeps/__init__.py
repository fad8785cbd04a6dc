"""Many runs that answer one question: which trials, running them, and what they found.

trials.py      a trial, and the helpers that a config's `sweep()` is written with
folder.py      a sweep on disk: the state of each trial, told by its files alone, and its record
running.py     a sweep from its beginning, or from where it was stopped, to its end
queue.py       which trial begins when: the loop between what is to be tried and what runs it
local.py       trials as processes of this machine; worker.py: what such a process does
cluster.py     trials as jobs of a Slurm cluster
attempts.py    how often a trial was begun, how that ended, and when it is given up
search.py      what to try next, by what was found; study.py: Optuna's part of that
status.py      what it has come to, for a person: the table of trials, and the best one
statistics.py  spread over seeds, and intervals and tests of a difference
reports/       what it found, as files
"""

"""Many runs that answer one question: which trials, running them, and what they found.

trials.py   a trial, and the helpers that a config's `sweep()` is written with
folder.py   a sweep on disk: the state of each trial, told by its files alone, and its record
"""

"""How runs are started: as several processes of this machine, or as jobs of a cluster.

`settings.py` is the section `launch` of a config, `local.py` and `slurm.py` are the launchers,
`run.py` is what a job of a cluster does, `following.py` watches it.
"""

"""From folders and archives to sharded ArrayRecord with a manifest, and the audit of a data set.

Files, in the order in which they are best read:

- index.py: what there is to convert: flat arrays, one row an example
- folder.py, tar.py, webdataset.py, tfrecord.py (with crc32c.py): one file a kind of input
- kinds.py: opens an input by its specification
- shards.py: one shard = one unit of work; shrink.py: large images made smaller, if asked for
- pool.py: units of work in worker processes
- output.py: the folder that is written: settings, finished shards, manifest
- run.py: all of it together
- audit.py, duplicates.py: the same questions asked of an existing data set
"""

"""Many clients write and read through several nodes, and what they have recorded is compared with the logs.

`records` is what they record, `checks` decides, and `driver` lets them run. `plan` and `faults` are what
happens to the nodes and their stores meanwhile.
"""

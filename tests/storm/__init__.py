# SPDX-License-Identifier: Apache-2.0
"""Workloads that run on a volume while its worker or its keeper is killed again and again, and what that does to them.

| module | holds |
| --- | --- |
| run | what a workload is written in: every call named, timed and reported |
| dataset | files whose content follows from their names |
| reading, files, names, tools | the workloads |
| crew | the workloads as processes: started, watched, stopped, their reports collected |
| killer | who dies when |
| pauses, probe.c | how long a call waits while somebody dies |

`python3 -m storm NAME DIRECTORY SCRATCH SEED` runs one workload until its standard input ends, at least one round.
"""

# SPDX-License-Identifier: Apache-2.0
"""python3 -m storm NAME DIRECTORY SCRATCH SEED: one workload, until the standard input ends."""

import os
import sys

from storm import workloads
from storm.run import Run


def main():
    name, directory, scratch, seed = sys.argv[1:]
    os.umask(0o022)
    run = Run(name, directory, scratch, seed)
    run.rounds(workloads.ALL[name])


if __name__ == "__main__":
    main()

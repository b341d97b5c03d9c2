# SPDX-License-Identifier: Apache-2.0
"""The workloads by name."""

from storm import files, names, reading, tools

READING = {f.__name__: f for f in (reading.big, reading.small, reading.tree, reading.mapped, reading.listing)}
WRITING = {f.__name__: f for f in (
    tools.git, tools.build, tools.sqlite, tools.tar,
    files.append, files.direct, files.locks, files.unlinked, files.churn,
    names.names, names.exclusive, names.model_tree, names.model_file)}
ALL = {**READING, **WRITING}

# SPDX-License-Identifier: Apache-2.0
"""A storm: workers die all the time, and no application sees a failed call or a byte that differs."""

import pathlib
import sys
import time

import pytest

from harness import AccessMode

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from storm import dataset, workloads  # noqa: E402
from storm.crew import Crew  # noqa: E402
from storm.killer import Killer  # noqa: E402

STORM_S = 12
TIMEOUTS = {"attrTimeout": "50ms", "entryTimeout": "50ms"}  # names and attributes are asked for again and again


def storm(node, volume, names, victim="worker", seconds=STORM_S):
    """All workloads at once, while the victim is killed. What they report, and how many kills there were."""
    dataset.make(node.make_source("data"))
    target = volume.up()
    crew, killer = Crew(target, node.base / "storm", names), Killer(node, volume.id, victim)
    try:
        crew.start()
        end = time.monotonic() + seconds
        killer.run(lambda: crew.is_well() and time.monotonic() < end)
        crew.stop()
    finally:
        if crew.hung or sys.exc_info()[0]:
            node.abort_connections()
        crew.close()
    return crew.result(), killer.kills


def assert_calm(result, kills):
    assert result.clean(), f"{kills} kills, {result.text()}"
    assert kills > 10 and all(result.rounds.values()), f"{kills} kills, {result.rounds}"


@pytest.mark.parametrize("mode", ("passthrough", "worker"))
def test_every_application_works_on_while_workers_die(node, mode):
    volume = node.volume("data", access=AccessMode.SINGLE_NODE_MULTI_WRITER, attributes={"mode": mode, **TIMEOUTS})
    assert_calm(*storm(node, volume, workloads.ALL))
    volume.down()


def test_readers_of_an_immutable_volume_read_on_while_workers_die(node):
    volume = node.volume("data", attributes={"mode": "upcall-free", "consistency": "immutable", **TIMEOUTS})
    assert_calm(*storm(node, volume, workloads.READING))
    volume.down()

# SPDX-License-Identifier: Apache-2.0
"""A long storm: all workloads at once while worker or keeper are killed thousands of times, and how long calls wait.

HOLDFAST_STORM_KILLS       kills of each storm (2000)
HOLDFAST_STORM_VICTIMS     "worker,keeper,alternate": who is killed, one storm each; --victim says the same
HOLDFAST_STORM_MODES       "passthrough,worker"

Ends with exit code 1 if a call failed, hung, or did something else than on a disk.
"""

import argparse
import os
import pathlib
import sys
import time

from common import HERE, READ_WRITE, new_node, say, table

sys.path.insert(0, str(HERE.parent))

from storm import dataset, workloads  # noqa: E402
from storm.crew import Crew  # noqa: E402
from storm.killer import VICTIMS, Killer, Stuck  # noqa: E402
from storm.pauses import CALLS, Probe, per_kill, percentiles  # noqa: E402

KILLS = int(os.environ.get("HOLDFAST_STORM_KILLS", "2000"))
ALONE_KILLS = max(20, KILLS // 4)
CALM_S = 3
MODES = ("passthrough", "worker")
PROGRAM = os.environ.get("STORM_PROBE", "storm-probe")
TIMEOUTS = {"attrTimeout": "50ms", "entryTimeout": "50ms"}


def start_probes(node, target, calls):
    path = pathlib.Path(target) / "big" / next(iter(dataset.BIG))
    return [Probe(PROGRAM, call, path, node.base / f"probe-{call}") for call in calls]


def stop_probes(probes, errors):
    """{call: samples}; what the probes complained about goes to `errors`."""
    found = {}
    for probe in probes:
        if not probe.stop():
            errors.append(f"probe {probe.call}: {probe.error}")
        if samples := probe.samples():
            found[probe.call] = samples
    return found


def cells(nanoseconds):
    return {name: (ms, "ms", None) for name, ms in percentiles(nanoseconds).items()}


def calm(node, target, errors):
    """Nobody dies: what the same calls need anyway."""
    rows = {}
    for call in CALLS:
        probes = start_probes(node, target, [call])
        time.sleep(CALM_S)
        for samples in stop_probes(probes, errors).values():
            rows[f"{call}, nobody dies: each call"] = cells(samples[1])
    return rows


def alone(node, volume, target, victim, errors):
    """One probe and nothing else."""
    rows = {}
    for call in CALLS:
        killer = Killer(node, volume.id, victim)
        probes = start_probes(node, target, [call])
        killer.run(lambda: killer.kills < ALONE_KILLS)
        for samples in stop_probes(probes, errors).values():
            rows[f"{call}, alone: pause per kill"] = cells(per_kill(samples, killer.moments))
    return rows


def storm(node, volume, target, victim, errors):
    """All workloads and all probes. Rows, kills, and what the workloads report."""
    rows, killer = {}, Killer(node, volume.id, victim)
    crew = Crew(target, node.base / f"storm-{victim}", workloads.ALL)
    probes = start_probes(node, target, CALLS)
    try:
        crew.start()
        killer.run(lambda: crew.is_well() and killer.kills < KILLS)
        crew.stop()
    except Stuck as e:
        errors.append(str(e))
    finally:
        if crew.hung or errors or sys.exc_info()[0]:
            node.abort_connections()
        crew.close()
    for call, samples in stop_probes(probes, [] if crew.hung else errors).items():
        rows[f"{call}, all workloads: pause per kill"] = cells(per_kill(samples, killer.moments))
        rows[f"{call}, all workloads: each call"] = cells(samples[1])
    return rows, killer.kills, crew.result()


def measure(mode, victim):
    """One storm on a node of its own; whether nobody noticed it."""
    node, errors = new_node(), []
    try:
        dataset.make(node.make_source("data"))
        keywords = {**READ_WRITE, "attributes": {"mode": mode, **TIMEOUTS}}
        volume = node.volume("data", node.sources / "data", **keywords)
        target, begin = volume.up(), time.monotonic()
        rows = calm(node, target, errors)
        rows.update(alone(node, volume, target, victim, errors))
        more, kills, result = storm(node, volume, target, victim, errors)
        rows.update(more)
        say(f"\nmode {mode}, {victim} killed: {kills} kills in {time.monotonic() - begin:.0f} s, "
            f"{sum(result.rounds.values())} rounds of {len(result.rounds)} workloads, {len(result.failed)} failed calls, "
            f"{len(result.differences)} differences, {len(result.hung)} hang")
        say("  " + ", ".join(f"{name} {n}" for name, n in sorted(result.rounds.items())))
        if not result.clean():
            say(result.text())
        for error in errors:
            say(f"  {error}")
        table(f"pauses, mode {mode}, {victim} killed", ["p50", "p99", "p99.9", "max"], rows)
        return result.clean() and not errors and all(result.rounds.values())
    finally:
        node.close()


def listed(text, allowed):
    words = text.split(",")
    for word in words:
        if word not in allowed:
            raise argparse.ArgumentTypeError(f"'{word}' is none of {', '.join(allowed)}")
    return words


def main():
    parser = argparse.ArgumentParser(description="a long storm of kills, and the pauses that calls see")
    parser.add_argument("--victim", type=lambda text: listed(text, VICTIMS),
                        default=listed(os.environ.get("HOLDFAST_STORM_VICTIMS", "worker"), VICTIMS))
    parser.add_argument("--mode", type=lambda text: listed(text, MODES),
                        default=listed(os.environ.get("HOLDFAST_STORM_MODES", "passthrough,worker"), MODES))
    args = parser.parse_args()
    outcomes = [measure(mode, victim) for victim in args.victim for mode in args.mode]
    return 0 if all(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What ./try runs: one dataset, one container, a few kills, and a short account of what the container saw."""

import argparse
import os
import pathlib
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
os.environ.setdefault("HOLDFAST_BUILD", str(ROOT / "build"))
sys.path.insert(0, str(ROOT / "tests" / "functional"))

import stubs  # noqa: E402

KILLS = 20
FILES, FILE_SIZE = 64, 1 << 20
# One line an answer: the shell in the container reads a file and prints its checksum, for ever.
READER = 'while :; do for f in /data/*; do [ -f "$f" ] && { md5sum < "$f" || echo FAILED; }; done; done'


def say(text=""):
    print(text, flush=True)


def step(text):
    print(f"{text:<58} ", end="", flush=True)
    begin = time.monotonic()
    return lambda detail="": say(f"{(time.monotonic() - begin) * 1000:8.1f} ms  {detail}".rstrip())


def make_sample(node):
    source = node.make_source("sample")
    for i in range(FILES):
        (source / f"shard-{i:03}").write_bytes(os.urandom(FILE_SIZE))
    return source


def names_in(directory):
    return sorted(e.name for e in os.scandir(directory) if e.is_file())


class Watch(threading.Thread):
    """Reads the lines that the container prints, and notes when each came."""

    def __init__(self, process):
        super().__init__(daemon=True)
        self.process, self.times, self.failed, self.sums = process, [], 0, set()

    def run(self):
        for line in self.process.stdout:
            self.times.append(time.monotonic())
            if "FAILED" in line:
                self.failed += 1
            else:
                self.sums.add(line.strip())

    def gaps(self):
        return [(b - a) * 1000 for a, b in zip(self.times, self.times[1:])]


def kill_workers(volume, watch):
    """Kill the worker KILLS times while the container reads; the gaps in which a kill lies, in ms."""
    kills = []
    for i in range(KILLS):
        time.sleep(0.25)
        pid = volume.worker()
        os.kill(pid, signal.SIGKILL)
        kills.append(time.monotonic())
        print(f"\r  killed worker {pid} ({i + 1} of {KILLS})   ", end="", flush=True)
    time.sleep(0.5)
    say("\r" + " " * 50 + "\r")
    gaps = []
    for kill in kills:
        after = next((i for i, t in enumerate(watch.times) if t > kill), 0)
        if after > 0:
            gaps.append((watch.times[after] - watch.times[after - 1]) * 1000)
    return gaps


def show(node, volume, watch, gaps, expected):
    quiet = statistics.median(watch.gaps())
    say("What the container saw")
    say(f"  files read                 {len(watch.times)}")
    say(f"  failed reads               {watch.failed}")
    say(f"  different checksums        {len(watch.sums)} for {expected} files")
    say(f"  workers killed             {volume.status()['restarts']}")
    say(f"  time between two files     {quiet:.1f} ms as a rule")
    if gaps:
        say(f"  ... around a kill          {statistics.median(gaps):.1f} ms as a rule, {max(gaps):.1f} ms at most")


def stay(node, container, target):
    build = os.environ["HOLDFAST_BUILD"]
    say("\nEverything goes on running. Look around from another terminal:")
    say(f"  {build}/holdfastctl --run-dir {node.run_dir} status")
    say(f"  {' '.join(container._command())} exec -t {container.id} sh        # the dataset is in /data")
    say(f"  nsenter -t {os.getpid()} -m ls {target}")
    say(f"  kill -9 $({build}/holdfastctl --run-dir {node.run_dir} status --json | jq '.volumes[0].workerPid')")
    say(f"  tail -f {node.keeper.log} {node.plugin.log}")
    say("Ctrl-C ends it and cleans up.")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})


def demonstrate(node, args):
    from container import Container

    done = step("starting holdfast-keeper and holdfast-csi")
    node.start()
    done()
    if not args.source:
        done = step(f"making a sample dataset of {FILES} files of {FILE_SIZE >> 20} MiB")
    source = pathlib.Path(args.source).resolve() if args.source else make_sample(node)
    if not args.source:
        done()
    expected = len(names_in(source))
    volume = node.volume("sample", source)
    done = step("NodeStageVolume over gRPC")
    volume.stage()
    done(f"worker {volume.worker()}, served as {volume.status().get('mode', '?')}")
    done = step("NodePublishVolume over gRPC")
    target = volume.publish(readonly=True)
    done()
    done = step("starting a container (runc) with the volume in /data")
    container = Container(node, {"/data": (target, ["ro"])})
    done()
    inside = container.exec("ls", "/data").split()
    say(f"the container sees {len(inside)} names in /data")
    if expected:
        process = container.popen("sh", "-c", READER)
        watch = Watch(process)
        watch.start()
        time.sleep(1)
        say(f"\nkilling the worker {KILLS} times with SIGKILL while the container reads")
        gaps = kill_workers(volume, watch)
        show(node, volume, watch, gaps, expected)
        process.kill()
    if args.stay:
        stay(node, container, target)
    container.remove()
    done = step("\nNodeUnpublishVolume, NodeUnstageVolume")
    volume.down()
    done("nothing is left" if node.is_clean() else "")
    return 0 if not expected or (watch.failed == 0 and len(watch.sums) <= expected) else 1


def main():
    parser = argparse.ArgumentParser(prog="./try", description=__doc__)
    parser.add_argument("--source", metavar="DIR", help="publish this directory (read-only) instead of a sample")
    parser.add_argument("--stay", action="store_true", help="leave it running and say how to look around")
    args = parser.parse_args()
    if args.source and not os.path.isdir(args.source):
        parser.error(f"{args.source} is not a directory")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM} if args.stay else set())

    stubs.own_mount_namespace()
    generated = stubs.generate()
    from harness import Node

    node = Node(pathlib.Path(tempfile.mkdtemp(prefix="holdfast-try-")))
    if args.source:
        node.plugin.args += ["--allow-source", str(pathlib.Path(args.source).resolve())]
    try:
        return demonstrate(node, args)
    finally:
        node.close()
        shutil.rmtree(generated, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

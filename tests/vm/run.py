#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Functional tests on another kernel: Debian's cloud kernel of a release, in QEMU by software emulation, with the built tree inside.

    tests/vm/run.py 6.1 functional/test_takeover.py
    tests/vm/run.py trixie --build build-asan functional/test_node.py -k inline

What follows the kernel goes to pytest, run in tests/. Kernels are kept in VM below the build directory; remove it to get newer
ones. The last line is "N passed, N failed, N skipped"; a guest that does not come to its end counts as a failure.
"""

import argparse
import collections
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

import image
from kernel import Kernel, Unavailable

RELEASES = {"6.1": "bookworm", "6.12": "trixie"}
OUTCOME = re.compile(r"\[gw\d+\] \[ *\d+%\] (PASSED|FAILED|ERROR|SKIPPED) (.*)")
END = re.compile(r"guest: ended with (\d+)")
TAIL = 60
ENVIRONMENT = {"HOLDFAST_BUILD": f"/{image.HERE}/build", "HOLDFAST_TEST_DEADLINE": "240", "HOLDFAST_TEST_PATIENCE": "6",
               "PYTHONDONTWRITEBYTECODE": "1"}


def boot(kernel, disk, initrd, args):
    """The guest from its start to its end, with its output as ours: (its exit code or None, its last lines)."""
    log, code = [], None
    with subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", str(args.cpus),
             "-m", str(args.memory), "-display", "none", "-monitor", "none", "-serial", "stdio", "-nic", "none", "-no-reboot",
             "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe", "-kernel", kernel.image, "-initrd", initrd,
             "-append", "console=ttyS0 quiet panic=-1 oops=panic"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as guest:
        timer = threading.Timer(args.limit, guest.kill)
        timer.start()
        try:
            for line in guest.stdout:
                text = re.sub(r"\x1b\[[\d;?]*\w|[\x00-\x08\x0b-\x1f]", "", line.decode(errors="replace")).rstrip()
                log.append(text)
                print(text, flush=True)
                if m := END.search(text):
                    code = int(m[1])
            if code is None and timer.finished.is_set():
                print(f"guest: not done within {args.limit:.0f} s")
        finally:
            timer.cancel()
            guest.kill()
    return code, log


def counts(log):
    """passed, failed, skipped: as far as the tests came. A test that failed stays so, whatever is said of it later."""
    outcomes = {}
    for m in filter(None, map(OUTCOME.search, log)):
        if outcomes.get(m[2]) not in ("FAILED", "ERROR"):
            outcomes[m[2]] = m[1]
    n = collections.Counter(outcomes.values())
    return n["PASSED"], n["FAILED"] + n["ERROR"], n["SKIPPED"]


def main():
    parser = argparse.ArgumentParser(description="run functional tests on another kernel", allow_abbrev=False)
    parser.add_argument("kernel", choices=[*RELEASES, *RELEASES.values()])
    parser.add_argument("--build", type=pathlib.Path, default=image.ROOT / "build", help="what to test (build)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds until the guest is given up (1800)")
    parser.add_argument("--cpus", type=int, default=2, help="the guest's processors (2)")
    parser.add_argument("--memory", type=int, default=2048, help="its MiB (2048)")
    args, selection = parser.parse_known_args()
    build = args.build.resolve()
    cache = build / "vm"
    start = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what is in the scratch directory goes all the same
    try:
        kernel = Kernel(RELEASES.get(args.kernel, args.kernel), cache)
    except Unavailable as e:
        print(f"{e}\n0 passed, 1 failed, 0 skipped")
        return 1
    pytest = ["python3", "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider", "-n", str(args.cpus), "--rootdir=tests",
              *[f"tests/{s}" if s.startswith("functional") else s for s in selection]]
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        disk = image.root_image(pathlib.Path(scratch), build)
        initrd = image.initramfs(pathlib.Path(scratch) / "initramfs", kernel, pytest, ENVIRONMENT)
        print(f"{kernel.version}: the image is made ({time.monotonic() - start:.0f} s)", flush=True)
        code, log = boot(kernel, disk, initrd, args)
    passed, failed, skipped = counts(log)
    if code is None or (code and not failed) or not passed:
        print("\n".join(["the guest ended before its tests did; its last lines:", *log[-TAIL:]]))
        failed += 1
    print(f"{kernel.version}, {time.monotonic() - start:.0f} s\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What ./check runs after the packages are there: every build, every test, one closing line.

Steps are independent: a failed one is counted and the next one runs. Output of a step goes to build/check-logs/STEP.log and is
shown when the step fails.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOGS = ROOT / "build" / "check-logs"
STRICT = ["-Dwerror=true"]
SANITIZER_ENV = {
    "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0:allocator_may_return_null=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=0",
    "TSAN_OPTIONS": "ignore_noninstrumented_modules=1:halt_on_error=0:second_deadlock_stack=1",
}
PYTEST_JOBS = "4"
CRASH_POINTS = "functional/test_crash_points.py"
# what is run on other kernels, in an emulator: all that depends on the kernel, or the two minutes of it that say most
KERNELS = ("6.1", "6.12")
ON_KERNELS = [f"functional/test_{name}.py" for name in ("takeover", "container", "heal", "keeper", "node", "escrow", "memory",
                                                        "heal_namespaces", "heal_layers", "swap", "handover")]
# what a kernel does not have: mounting beneath (6.5), mappings of ids on FUSE mounts and a list of all mount namespaces (6.12); an
# end for requests that take too long, and telling what a mount's mapping of ids is (6.15); the guests have cgroup version 2 alone
LACKS = {"6.1": "not (test_heal and (mapping or user_namespace)) and not namespace_without_a_process and not under_readers "
                "and not before_the_kernel_ends and not same_cgroup",
         "6.12": "not (test_heal and mappings) and not before_the_kernel_ends and not same_cgroup"}
ON_OLDEST = [*ON_KERNELS[:3], "-k", f"not immutable and {LACKS['6.1']}"]


class Sum:
    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def add(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = self.passed + passed, self.failed + failed, self.skipped + skipped


def run(step, command, env=None, cwd=ROOT):
    """Run a command with its output in the step's log; whether it exited 0."""
    log = LOGS / f"{step}.log"
    with open(log, "ab") as out:
        out.write(f"$ {' '.join(map(str, command))}\n".encode())
        out.flush()
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   env={**os.environ, **SANITIZER_ENV, **(env or {})})
        while True:
            try:
                return process.wait(30) == 0
            except subprocess.TimeoutExpired:
                print(f"    ... {step} goes on ({int(time.monotonic() - START)} s since the start)", flush=True)


def show_log(step, lines=60):
    log = LOGS / f"{step}.log"
    tail = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    print("\n".join("    " + line for line in tail), flush=True)


def build(total, name, options, compiler="gcc"):
    """Configure and compile; counts as one test. Whether the build is usable."""
    step = f"build-{name}"
    directory = ROOT / ("build" if name == "gcc" else f"build-{name}")
    env = {"CC": compiler}
    setup = ["meson", "setup", str(directory), *options]
    if (directory / "build.ninja").exists():
        setup = ["meson", "setup", "--reconfigure", str(directory), *options]
    ok = run(step, setup, env) and run(step, ["ninja", "-C", str(directory)], env)
    total.add(passed=ok, failed=not ok)
    report(step, ok)
    return directory if ok else None


def report(step, ok, detail=""):
    print(f"{'ok  ' if ok else 'FAIL'} {step} {detail}", flush=True)
    if not ok:
        show_log(step)


def meson_tests(total, name, directory):
    """Unit tests and the replay of the fuzzers' corpus; cmocka's cases are counted one by one."""
    step = f"unit-{name}"
    run(step, ["meson", "test", "-C", str(directory), "--print-errorlogs", "--no-suite", "benchmark"])
    passed = failed = skipped = 0
    for line in (directory / "meson-logs" / "testlog.json").read_text().splitlines():
        test = json.loads(line)
        text = test.get("stdout", "") + test.get("stderr", "")
        good = sum(int(n) for n in re.findall(r"\[  PASSED  \] (\d+) test", text))
        bad = len(re.findall(r"\[  FAILED  \] \w+$", text, re.M)) // 2
        skipped += sum(int(n) for n in re.findall(r"\[  SKIPPED \] (\d+) test", text))
        if test["result"] == "OK":
            passed += good or 1
        elif test["result"] == "SKIP":
            skipped += 1
        else:
            passed, failed = passed + good, failed + (bad or 1)
    total.add(passed, failed, skipped)
    report(step, failed == 0, f"{passed} passed, {failed} failed, {skipped} skipped")


def pytest(total, name, directory, paths, deadline="120", select=None):
    step = f"functional-{name}"
    xml = LOGS / f"{step}.xml"
    xml.unlink(missing_ok=True)
    select = ["-k", select] if select else []
    if CRASH_POINTS not in paths:  # they need a build of their own
        select += [f"--ignore={ROOT / 'tests' / CRASH_POINTS}"]
    run(step, ["/usr/bin/python3", "-m", "pytest", "-q", "-n", PYTEST_JOBS, "-p", "no:cacheprovider",
               f"--junitxml={xml}", *select, *[str(ROOT / "tests" / p) for p in paths]],
        {"HOLDFAST_BUILD": str(directory), "HOLDFAST_TEST_DEADLINE": deadline, "PYTHONDONTWRITEBYTECODE": "1"})
    if not xml.exists():
        total.add(failed=1)
        return report(step, False)
    passed = failed = skipped = 0
    for suite in ElementTree.parse(xml).getroot().iter("testsuite"):
        bad = int(suite.get("failures")) + int(suite.get("errors"))
        skipped += int(suite.get("skipped"))
        failed += bad
        passed += int(suite.get("tests")) - bad - int(suite.get("skipped"))
    failed += passed == 0  # a run without a test is a failure
    total.add(passed, failed, skipped)
    report(step, failed == 0, f"{passed} passed, {failed} failed, {skipped} skipped")
    return None


def other_kernel(total, directory, kernel, paths):
    """Tests on another kernel (tests/vm)."""
    step = f"kernel-{kernel}"
    run(step, [sys.executable, str(ROOT / "tests" / "vm" / "run.py"), kernel, "--build", str(directory), *paths])
    said = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", (LOGS / f"{step}.log").read_text(errors="replace"), re.M)
    passed, failed, skipped = map(int, said[-1]) if said else (0, 1, 0)
    total.add(passed, failed, skipped)
    report(step, failed == 0, f"{passed} passed, {failed} failed, {skipped} skipped")


def is_debian():
    """Kernels come from the mirror of Debian that apt is set up with."""
    return "debian" in re.findall(r"^ID=(.*)$", pathlib.Path("/etc/os-release").read_text(), re.M)


def main():
    parser = argparse.ArgumentParser(description="build Holdfast and run its tests")
    parser.add_argument("--quick", action="store_true", help="leave the clang and sanitizer builds and the other kernel out")
    parser.add_argument("--kernels", action="store_true", help=f"run tests on Linux {', '.join(KERNELS)} too, for longer")
    args = parser.parse_args()
    total = Sum()
    LOGS.mkdir(parents=True, exist_ok=True)
    for old in LOGS.iterdir():
        old.unlink()

    plain = build(total, "gcc", STRICT)
    if plain:
        meson_tests(total, "gcc", plain)
        pytest(total, "gcc", plain, ["static", "functional"])
    if not args.quick:
        build(total, "clang", STRICT, "clang")
        asan = build(total, "asan", ["-Db_sanitize=address,undefined", "-Db_lundef=false"])
        if asan:
            meson_tests(total, "asan", asan)
            pytest(total, "asan", asan, ["functional"], deadline="300")
        crash = build(total, "crash", ["-Dcrash_points=true", "-Db_sanitize=address,undefined", "-Db_lundef=false"])
        if crash:
            pytest(total, "crash", crash, [CRASH_POINTS], deadline="300")
        tsan = build(total, "tsan", ["-Db_sanitize=thread", "-Db_lundef=false"])
        if tsan:
            pytest(total, "tsan", tsan, ["functional"], deadline="300", select="test_node or test_identity or test_server")
    if plain and args.kernels:
        for kernel in KERNELS:
            other_kernel(total, plain, kernel, [*ON_KERNELS, "-k", LACKS[kernel]])
    elif plain and not args.quick and is_debian():
        other_kernel(total, plain, KERNELS[0], ON_OLDEST)
    elif not args.quick and not is_debian():
        total.add(skipped=1)
        print(f"skip kernel-{KERNELS[0]} (no mirror of Debian is configured here)")
    minutes = (time.monotonic() - START) / 60
    print(f"logs are in {LOGS.relative_to(ROOT)}; {minutes:.1f} minutes")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed else 0


START = time.monotonic()
if __name__ == "__main__":
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""A real container: runc or crun with a busybox root file system, and volumes bind-mounted as a kubelet's runtime does."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import uuid

from harness import eventually

BUSYBOX = "/usr/bin/busybox"
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
KERNEL_NAMES = {"pid": "pid", "ipc": "ipc", "uts": "uts", "mount": "mnt", "network": "net"}


def namespace_of(pid, kind):
    """None if it has ended, or is not ours to look into."""
    try:
        return os.readlink(f"/proc/{pid}/ns/{kind}")
    except OSError:
        return None


def processes_in(pid_namespace):
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and namespace_of(entry, "pid") == pid_namespace]


class Container:
    """Started at once; its first process sleeps, exec() runs commands in it."""

    def __init__(self, node, mounts, runtime="runc", command=("sleep", "100000"), mappings=None, read_only=False,
                 share=None, propagation="rprivate"):
        """mounts: {path in the container: (path on the host, [options])}; mappings: OCI uid/gid mappings for a user
        namespace; read_only: its root file system; share: {kind of namespace: pid of whoever has it};
        propagation: of its root, which decides what binds of the host's mounts belong to."""
        self.runtime, self.id = runtime, f"hf-{uuid.uuid4().hex[:8]}"
        self.shares_pids = "pid" in (share or {})
        self.bundle = pathlib.Path(node.base) / "containers" / self.id
        self.state = pathlib.Path(node.base) / "containers" / "state"
        self._make_rootfs([to for to, (source, _) in mounts.items() if pathlib.Path(source).is_dir()])
        config = self._config(mounts, command, mappings)
        config["root"]["readonly"] = read_only
        config["linux"]["rootfsPropagation"] = propagation
        for namespace in config["linux"]["namespaces"]:
            if namespace["type"] in (share or {}):
                namespace["path"] = f"/proc/{share[namespace['type']]}/ns/{KERNEL_NAMES[namespace['type']]}"
        (self.bundle / "config.json").write_text(json.dumps(config))
        node._containers.append(self)
        self._run("run", "--detach", "--bundle", str(self.bundle), self.id, stdin=subprocess.DEVNULL,
                  stdout=subprocess.DEVNULL)

    def _make_rootfs(self, directories):
        rootfs = self.bundle / "rootfs"
        for d in ("bin", "proc", "dev", "sys", "tmp", "data", "etc"):
            (rootfs / d).mkdir(parents=True)
        for d in directories:  # root of a user namespace may not make them
            (rootfs / d.lstrip("/")).mkdir(parents=True, exist_ok=True)
        shutil.copy(BUSYBOX, rootfs / "bin" / "busybox")
        subprocess.run(["chroot", rootfs, "/bin/busybox", "--install", "-s", "/bin"], check=True)

    def _config(self, mounts, command, mappings):
        namespaces = [{"type": t} for t in NAMESPACES] + ([{"type": "user"}] if mappings else [])
        capabilities = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_SETGID",
                        "CAP_SETUID", "CAP_SETFCAP", "CAP_KILL"]
        config = {
            "ociVersion": "1.0.2",
            "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": list(command), "cwd": "/",
                        "env": ["PATH=/bin"], "noNewPrivileges": True,
                        "capabilities": {k: capabilities for k in ("bounding", "effective", "permitted")}},
            "root": {"path": "rootfs", "readonly": False},
            "hostname": "pod",
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}]
            + [{"destination": to, "type": "bind", "source": str(source), "options": ["rbind", *options]}
               for to, (source, options) in mounts.items()],
            "linux": {"namespaces": namespaces, "cgroupsPath": f"/{self.id}"},
        }
        if mappings:
            config["linux"]["uidMappings"] = config["linux"]["gidMappings"] = mappings
        return config

    def _run(self, *args, **kw):
        # a file, not a pipe: the container's own process inherits it and keeps it open
        with tempfile.TemporaryFile("w+") as errors:
            done = subprocess.run([*self._command(), *args], timeout=60, stderr=errors, text=True, **kw)
            errors.seek(0)
            assert done.returncode == 0, f"{self.runtime} {args[0]}: {errors.read()}"
        return done

    def _command(self):
        # crun before 1.9 refuses machines with both cgroup versions; these tests need no limits
        manager = ["--cgroup-manager=disabled"] if self.runtime == "crun" else []
        return [self.runtime, "--root", str(self.state), *manager]

    @property
    def pid(self):
        out = self._run("state", self.id, stdout=subprocess.PIPE).stdout
        return json.loads(out)["pid"]

    def others(self):
        """Pids of processes in mount namespaces that they made in the container."""
        mounts = namespace_of(self.pid, "mnt")
        return [pid for pid in processes_in(namespace_of(self.pid, "pid")) if namespace_of(pid, "mnt") not in (mounts, None)]

    def exec(self, *command, timeout=30, user="0:0"):
        """Run a command in the container; its standard output. Fails the test if the command fails."""
        done = subprocess.run([*self._command(), "exec", "--user", user, self.id, *command],
                              timeout=timeout, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.returncode}: {done.stderr}"
        return done.stdout

    def popen(self, *command):
        """A command in the container that goes on by itself, with pipes for its output."""
        return subprocess.Popen([*self._command(), "exec", self.id, *command],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def pause(self):
        self._run("pause", self.id)

    def resume(self):
        self._run("resume", self.id)

    def remove(self):
        """With all its processes: the runtimes wait for the first one alone."""
        is_there = (self.state / self.id).exists() and not self.shares_pids
        pids = namespace_of(self.pid, "pid") if is_there else None
        subprocess.run([*self._command(), "delete", "--force", self.id], timeout=60,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually(lambda: not (self.state / self.id).exists(), what="the container to go")
        eventually(lambda: not pids or not processes_in(pids), what="its processes to go")

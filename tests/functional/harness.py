# SPDX-License-Identifier: Apache-2.0
"""What the functional tests are written in: Node, Daemon, Volume."""

import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import grpc

import csi_pb2
import csi_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("HOLDFAST_BUILD", ROOT / "build")).resolve()

AccessMode = csi_pb2.VolumeCapability.AccessMode
SANITIZER_REPORTS = ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "runtime error:", "WARNING: ThreadSanitizer")
MNT_DETACH = 2
PATIENCE = float(os.environ.get("HOLDFAST_TEST_PATIENCE", "1"))  # for machines that are slower by nature, like an emulator

_libc = ctypes.CDLL(None, use_errno=True)

# gRPC 1.51 takes its event engine down with the last channel, sometimes on one of the engine's own threads, and then
# aborts the process: one channel stays for ever.
_KEEP_ENGINE = grpc.insecure_channel("unix:/nonexistent/holdfast.sock")


def listens(path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        return s.connect_ex(str(path)) == 0


def eventually(condition, timeout=20.0, what="condition"):
    """Wait until condition() is true; its value is returned. `what` lacked otherwise: a text, or what makes one by then."""
    timeout *= PATIENCE
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what() if callable(what) else what}: not within {timeout} s")
        time.sleep(0.005)


def mountinfo(pid="self"):
    """The mounts of a process as dicts: id, parent, dev, root, target, options, fstype, source, super."""
    entries = []
    for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        f, g = left.split(" "), right.split(" ")
        decode = lambda s: s.encode().decode("unicode_escape").encode("latin-1").decode()
        entries.append({"id": int(f[0]), "parent": int(f[1]), "dev": f[2], "root": decode(f[3]), "target": decode(f[4]),
                        "options": f[5].split(","), "optional": f[6:], "fstype": g[0], "source": decode(g[1]),
                        "super": g[2].split(",")})
    return entries


def _link(path):
    try:
        return os.readlink(path)
    except OSError:
        return None


class Daemon:
    """One of our processes, with its log in a file."""

    def __init__(self, name, args, log, env=None):
        self.name, self.args, self.log, self.env = name, [str(a) for a in args], pathlib.Path(log), env or {}
        self.path, self.process = BUILD / name, None

    def start(self, **popen):
        """It dies with us. By setpriv, because code between fork and exec may deadlock on gRPC's locks."""
        assert self.process is None
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", str(self.path), *self.args], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, env={**os.environ, **self.env}, **popen)
        return self

    @property
    def pid(self):
        return self.process.pid

    def running(self):
        return self.process is not None and self.process.poll() is None

    def terminate(self, timeout=40):
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout)
        self.process = None
        return code

    def kill(self):
        self.process.kill()
        self.process.wait(20)
        self.process = None

    def stop(self):
        if self.process is None:
            return
        if self.running():
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait(20)
        self.process = None

    def fds(self):
        """What its descriptors are open on, sorted."""
        links = []
        for fd in pathlib.Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                links.append(os.readlink(fd))
            except FileNotFoundError:
                pass
        return sorted(links)

    def text(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Node:
    def __init__(self, base):
        self.base = pathlib.Path(base)
        self.run_dir = self.base / "run"
        self.kubelet_root = self.base / "kubelet"
        self.sources = self.base / "sources"
        self.plugin_dir = self.kubelet_root / "plugins" / "csi.holdfast.dev"
        for d in (self.sources, self.plugin_dir, self.kubelet_root / "plugins_registry", self.kubelet_root / "pods"):
            d.mkdir(parents=True)
        self.endpoint = f"unix://{self.plugin_dir}/csi.sock"
        self.registration = self.kubelet_root / "plugins_registry" / "csi.holdfast.dev-reg.sock"
        self.keeper = Daemon("holdfast-keeper", ["--run-dir", self.run_dir], self.base / "keeper.log")
        self.plugin = Daemon("holdfast-csi", self.plugin_args(), self.base / "csi.log")
        self._channels = []
        self._containers = []

    def plugin_args(self, *more):
        return ["--endpoint", self.endpoint, "--run-dir", self.run_dir, "--node-id", "node-1",
                "--kubelet-root", self.kubelet_root, "--registration-socket", self.registration,
                "--topology", "topology.holdfast.dev/node=node-1", "--allow-source", self.sources, *more]

    # processes

    def start(self):
        self.start_keeper()
        self.start_plugin()
        return self

    def start_keeper(self):
        self.keeper.start()
        eventually(lambda: listens(self.run_dir / "keeper.sock") or self._died(self.keeper), what="keeper's socket")

    def start_plugin(self):
        self.plugin.start()
        eventually(lambda: self._answers() or self._died(self.plugin), what="plugin's answer")

    @staticmethod
    def _died(daemon):
        if not daemon.running():
            raise AssertionError(f"{daemon.name} ended: {daemon.text()[-2000:]}")
        return False

    def _answers(self):
        try:
            self.identity().Probe(csi_pb2.ProbeRequest(), timeout=2)
            return True
        except grpc.RpcError:
            return False

    def channel(self, address=None):
        channel = grpc.insecure_channel(address or self.endpoint.replace("unix://", "unix:"),
                                        options=[("grpc.use_local_subchannel_pool", 1),
                                                 ("grpc.initial_reconnect_backoff_ms", 100),
                                                 ("grpc.max_reconnect_backoff_ms", 200)])
        self._channels.append(channel)
        return channel

    def identity(self):
        return csi_pb2_grpc.IdentityStub(self.channel())

    def rpc(self):
        """A fresh Node stub."""
        return csi_pb2_grpc.NodeStub(self.channel())

    def status(self):
        """holdfastctl status --json as a dict: volume id -> entry."""
        out = subprocess.run([BUILD / "holdfastctl", "--run-dir", self.run_dir, "status", "--json"], check=True,
                             capture_output=True, text=True, timeout=30).stdout
        return {v["id"]: v for v in json.loads(out)["volumes"]}

    # what is there

    def mounts(self, prefix=None):
        """Mounts below this node's directory."""
        return [m for m in mountinfo() if m["target"].startswith(str(prefix or self.base) + "/")]

    def fuse_mounts(self):
        return [m for m in self.mounts() if m["fstype"].startswith("fuse")]

    def records(self):
        d = self.run_dir / "volumes"
        return sorted(p.name for p in d.iterdir()) if d.exists() else []

    def workers(self):
        """Pids of the workers that serve a volume; the one in store has no FUSE device yet."""
        if not self.keeper.running():
            return []
        children = pathlib.Path(f"/proc/{self.keeper.pid}/task/{self.keeper.pid}/children").read_text().split()
        return [int(c) for c in children if _link(f"/proc/{c}/fd/3") == "/dev/fuse"]

    def is_clean(self):
        """Nothing of any volume is left: no mount, worker, record, directory."""
        assert self.fuse_mounts() == []
        assert self.records() == []
        assert eventually(lambda: self.workers() == [], what="workers to go")
        return True

    # volumes

    def make_source(self, name, files=None):
        path = self.sources / name
        path.mkdir()
        path.chmod(0o755)
        for rel, content in (files or {}).items():
            f = path / rel
            f.parent.mkdir(parents=True, exist_ok=True)
            f.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def volume(self, name, source=None, **kw):
        return Volume(self, name, source if source is not None else self.sources / name, **kw)

    # the end

    def abort_connections(self):
        ctl = self.base / "fusectl"
        ctl.mkdir(exist_ok=True)
        if not ctl.is_mount():
            _libc.mount(b"none", str(ctl).encode(), b"fusectl", 0, None)
        # held, a number can't become another's between the look and the abort
        held = [os.open(m["target"], os.O_PATH) for m in self.fuse_mounts() if m["fstype"] != "fusectl"]
        ids = {int(line.split()[1]) for fd in held for line in pathlib.Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines()
               if line.startswith("mnt_id:")}
        minors = {m["dev"].split(":")[1] for m in self.fuse_mounts() if m["id"] in ids}
        for minor in minors:
            try:
                (ctl / minor / "abort").write_text("1")
            except OSError:
                pass
        for fd in held:
            os.close(fd)
        _libc.umount2(str(ctl).encode(), MNT_DETACH)

    def close(self):
        for container in self._containers:
            container.remove()
        for channel in self._channels:
            channel.close()
        self.plugin.stop()
        self.abort_connections()
        self.keeper.stop()
        for m in reversed(self.mounts()):
            _libc.umount2(m["target"].encode(), MNT_DETACH)
        _libc.umount2(str(self.base).encode(), MNT_DETACH)  # some tests make it a mount of its own
        logs = {d.name: d.text() for d in (self.keeper, self.plugin)}
        shutil.rmtree(self.base, ignore_errors=True)
        for name, text in logs.items():
            for report in SANITIZER_REPORTS:
                assert report not in text, f"{name}: {text[text.index(report) - 200:][:6000]}"


class Volume:
    """A dataset volume as kubelet sees it."""

    def __init__(self, node, name, source, attributes=None, access=AccessMode.MULTI_NODE_READER_ONLY, flags=(),
                 group=""):
        self.node, self.id = node, name
        self.attributes = {"source": str(source), **(attributes or {})}
        self.access, self.flags, self.group = access, list(flags), group
        self.staging = node.kubelet_root / "plugins" / "kubernetes.io" / "csi" / "csi.holdfast.dev" / name / "globalmount"

    def capability(self):
        return csi_pb2.VolumeCapability(
            mount=csi_pb2.VolumeCapability.MountVolume(fs_type="", mount_flags=self.flags,
                                                       volume_mount_group=self.group),
            access_mode=AccessMode(mode=self.access))

    def target(self, pod="pod-1"):
        return self.node.kubelet_root / "pods" / pod / "volumes" / "kubernetes.io~csi" / self.id / "mount"

    def stage(self, timeout=30, **change):
        self.staging.mkdir(parents=True, exist_ok=True)
        request = csi_pb2.NodeStageVolumeRequest(volume_id=self.id, staging_target_path=str(self.staging),
                                                 volume_capability=self.capability(), volume_context=self.attributes)
        _change(request, change)
        return self.node.rpc().NodeStageVolume(request, timeout=timeout)

    def publish(self, pod="pod-1", readonly=False, timeout=30, **change):
        target = self.target(pod)
        target.parent.mkdir(parents=True, exist_ok=True)
        request = csi_pb2.NodePublishVolumeRequest(
            volume_id=self.id, staging_target_path=str(self.staging), target_path=str(target),
            volume_capability=self.capability(), volume_context=self.attributes, readonly=readonly)
        _change(request, change)
        self.node.rpc().NodePublishVolume(request, timeout=timeout)
        return target

    def unpublish(self, pod="pod-1", timeout=30, **change):
        request = csi_pb2.NodeUnpublishVolumeRequest(volume_id=self.id, target_path=str(self.target(pod)))
        _change(request, change)
        return self.node.rpc().NodeUnpublishVolume(request, timeout=timeout)

    def unstage(self, timeout=30, **change):
        request = csi_pb2.NodeUnstageVolumeRequest(volume_id=self.id, staging_target_path=str(self.staging))
        _change(request, change)
        return self.node.rpc().NodeUnstageVolume(request, timeout=timeout)

    def stats(self, path=None, timeout=30):
        request = csi_pb2.NodeGetVolumeStatsRequest(volume_id=self.id, volume_path=str(path or self.target()))
        return self.node.rpc().NodeGetVolumeStats(request, timeout=timeout)

    def up(self, pod="pod-1", **kw):
        """Stage and publish; the target path."""
        self.stage()
        return self.publish(pod, **kw)

    def down(self, pod="pod-1"):
        self.unpublish(pod)
        self.unstage()

    def status(self):
        return self.node.status()[self.id]

    def is_passthrough(self):
        """Whether the kernel reads and writes its files itself (Linux 6.9), so that open ones need no worker."""
        return self.status()["mode"] == "passthrough"

    def worker(self):
        """The pid of the worker that serves now."""
        return eventually(lambda: self.status()["state"] == "serving" and self.status()["workerPid"], what="a worker")

    def kill_worker(self):
        """SIGKILL; returns the pid once the keeper has noticed, so that the next call finds the next worker."""
        pid, restarts = self.worker(), self.status()["restarts"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: self.status()["restarts"] > restarts, what="the keeper to notice")
        return pid


def _change(request, change):
    """Replace fields of a request: None clears one."""
    for name, value in change.items():
        request.ClearField(name)
        if value is None:
            continue
        field = getattr(request, name)
        if hasattr(field, "CopyFrom"):
            field.CopyFrom(value)
        elif hasattr(field, "update") and isinstance(value, dict):
            field.update(value)
        else:
            setattr(request, name, value)


def refused(call, code, *words):
    """The call fails with this gRPC code, and its message holds these words. Returns the message."""
    try:
        call()
    except grpc.RpcError as e:
        assert e.code() == code, f"{e.code()}: {e.details()}"
        for word in words:
            assert word in e.details(), e.details()
        return e.details()
    raise AssertionError(f"accepted, expected {code}")

# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: hostile bytes, many callers, and its beginning and end."""

import concurrent.futures
import os
import random
import resource
import signal
import socket
import stat
import subprocess
import threading
import time

import grpc
import pytest

import csi_pb2
import csi_pb2_grpc
import health_pb2
import health_pb2_grpc
from harness import BUILD, Daemon, eventually, refused

ENDED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def probe(node, timeout=10):
    return node.identity().Probe(csi_pb2.ProbeRequest(), timeout=timeout).ready.value


def raw(node, path="/csi.v1.Node/NodeGetVolumeStats"):
    """A method that takes the request's bytes as they are."""
    return node.channel().unary_unary(path)


def connect(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(10)
    s.connect(str(path))
    return s


def socket_path(node):
    return node.endpoint.removeprefix("unix://")


@pytest.fixture
def stuck(plugin):
    """A plugin whose keeper takes requests and never answers: every Stage hangs until its deadline."""
    keeper = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    keeper.bind(str(plugin.run_dir / "keeper.sock"))
    keeper.listen(1000)
    plugin.make_source("data", {"a": "1"})
    yield plugin
    keeper.close()


def hang(node, i, timeout=60):
    """Begin a Stage that hangs."""
    volume = node.volume(f"v{i}", node.sources / "data")
    volume.staging.mkdir(parents=True)
    request = csi_pb2.NodeStageVolumeRequest(volume_id=volume.id, staging_target_path=str(volume.staging),
                                             volume_capability=volume.capability(), volume_context=volume.attributes)
    return node.rpc().NodeStageVolume.future(request, timeout=timeout)


# what comes in

RANDOM = random.Random(7)
GARBAGE = {
    "random": RANDOM.randbytes(1 << 16),
    "zeros": bytes(1 << 16),
    "http/1.1": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("160301020001000001fc0303") + RANDOM.randbytes(500),
    "preface and garbage": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + RANDOM.randbytes(1 << 14),
    "preface, settings, headers flood":
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\1\1\4\0\0\0\1\x82" * 5000,
    "a huge frame": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff\xff\xff\0\0\0\0\0\1" + bytes(1 << 16),
    "nothing": b"",
}


@pytest.mark.parametrize("which", GARBAGE)
@pytest.mark.parametrize("where", ["endpoint", "registration"])
def test_garbage_disturbs_nobody(plugin, which, where):
    path = socket_path(plugin) if where == "endpoint" else plugin.registration
    for _ in range(5):
        with connect(path) as s:
            try:
                s.sendall(GARBAGE[which])
            except OSError:
                pass  # the plugin has hung up already
    assert probe(plugin)
    assert plugin.plugin.running()


def test_a_message_of_more_than_4_mib_is_refused_and_a_smaller_one_is_read(plugin):
    call = raw(plugin)
    field = b"\xfa\x3e"  # number 1007, which no version knows: skipped
    length = (4 << 20) - 6
    almost = field + bytes([length & 0x7f | 0x80, length >> 7 & 0x7f | 0x80, length >> 14 & 0x7f | 0x80, length >> 21])
    refused(lambda: call(almost + bytes(length), timeout=30), grpc.StatusCode.INVALID_ARGUMENT, "volume_id")
    refused(lambda: call(bytes((4 << 20) + 1), timeout=30), grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert probe(plugin)


def test_compressed_messages_are_refused_instead_of_unpacked(plugin):
    call = raw(plugin)
    refused(lambda: call(bytes(1 << 20), timeout=10, compression=grpc.Compression.Gzip),
            grpc.StatusCode.UNIMPLEMENTED)
    assert probe(plugin)


NO_REQUEST = {"garbled": b"\xff\xff\xff", "cut off": b"\x0a\x40abc", "NUL": b"\x0a\x05a\0../", "UTF-8": b"\x0a\x02\xc0\xaf",
              "fields": b"\x0a\0" * 70000}


@pytest.mark.parametrize("what", NO_REQUEST)
def test_bytes_that_are_no_request_are_an_invalid_argument(plugin, what):
    refused(lambda: raw(plugin)(NO_REQUEST[what], timeout=10), grpc.StatusCode.INVALID_ARGUMENT, what)


# many callers


def test_200_calls_at_once_are_all_answered(plugin):
    node, identity = plugin.rpc(), plugin.identity()
    calls = [node.NodeGetCapabilities.future(csi_pb2.NodeGetCapabilitiesRequest(), timeout=60) if i % 2 else
             identity.Probe.future(csi_pb2.ProbeRequest(), timeout=60) for i in range(200)]
    assert all(c.result() for c in calls)


def test_200_clients_at_once_are_all_answered(plugin):
    with concurrent.futures.ThreadPoolExecutor(40) as pool:
        assert all(pool.map(lambda _: probe(plugin, timeout=60), range(200)))


def test_a_client_that_dies_leaves_the_others_alone(plugin):
    assert probe(plugin)
    with connect(socket_path(plugin)) as s:
        s.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
        assert probe(plugin)
    assert probe(plugin)


def test_probes_are_answered_while_every_call_hangs(stuck):
    calls = [hang(stuck, i) for i in range(40)]
    time.sleep(0.3)
    health = health_pb2_grpc.HealthStub(stuck.channel())
    for _ in range(20):
        assert probe(stuck, timeout=5)
        assert health.Check(health_pb2.HealthCheckRequest(), timeout=5).status == health_pb2.HealthCheckResponse.SERVING
    for c in calls:
        c.cancel()


def test_too_many_calls_are_refused_at_once(stuck):
    calls = [hang(stuck, i) for i in range(300)]
    eventually(lambda: any(c.done() and c.code() == grpc.StatusCode.RESOURCE_EXHAUSTED for c in calls),
               what="a refusal")
    assert probe(stuck)
    for c in calls:
        c.cancel()


def test_the_callers_deadline_is_kept(stuck):
    call = hang(stuck, 1, timeout=0.5)
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert probe(stuck)


def test_a_call_may_be_given_up(stuck):
    call = hang(stuck, 1)
    time.sleep(0.2)
    call.cancel()
    assert call.code() == grpc.StatusCode.CANCELLED
    assert probe(stuck)


def test_a_deadline_in_the_past_disturbs_nobody(plugin):
    for _ in range(50):
        try:
            probe(plugin, timeout=0.0001)
        except grpc.RpcError as e:
            assert e.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert probe(plugin)


def test_when_descriptors_run_out_connections_wait_until_there_are_some(plugin):
    assert probe(plugin)
    used = len(plugin.plugin.fds())
    resource.prlimit(plugin.plugin.pid, resource.RLIMIT_NOFILE, (used + 8, used + 8))
    crowd = [connect(socket_path(plugin)) for _ in range(40)]
    eventually(lambda: "further connections wait" in plugin.plugin.text(), what="the log line")
    for s in crowd:
        s.close()
    assert eventually(lambda: _quietly(plugin), what="an answer")


def _quietly(node):
    try:
        return probe(node, timeout=1)
    except grpc.RpcError:
        return False


# begin and end


def test_only_root_may_connect(plugin):
    for path in (socket_path(plugin), plugin.registration):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_after_kill_9_the_next_plugin_takes_the_socket_over(plugin):
    for _ in range(3):
        plugin.plugin.kill()
        assert os.path.exists(socket_path(plugin))
        plugin.start_plugin()
        assert probe(plugin)


def test_a_second_plugin_does_not_steal_the_socket(plugin, tmp_path):
    second = Daemon("holdfast-csi", plugin.plugin_args("--run-dir", tmp_path / "run"), tmp_path / "log").start()
    assert second.process.wait(20) == 1
    assert "another process" in second.text()
    assert probe(plugin)


def test_a_second_plugin_does_not_share_the_run_directory(plugin, tmp_path):
    args = plugin.plugin_args("--endpoint", f"unix://{plugin.base}/b.sock", "--registration-socket", "")
    second = Daemon("holdfast-csi", args, tmp_path / "log").start()
    eventually(lambda: "waiting until it ends" in second.text(), what="the second plugin to wait")
    assert f"another plugin serves {plugin.run_dir}" in second.text() and "--run-dir" in second.text()
    assert not os.path.exists(plugin.base / "b.sock") and probe(plugin)
    assert second.terminate() == -signal.SIGTERM


def test_without_standard_descriptors_the_log_goes_nowhere_else(plugin):
    plugin.plugin.stop()
    args = [str(BUILD / "holdfast-csi"), *plugin.plugin.args]
    plugin.plugin.process = subprocess.Popen(["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *args])
    eventually(plugin._answers, what="plugin's answer")
    for fd in (1, 2):  # a library takes 0 before main
        assert os.readlink(f"/proc/{plugin.plugin.pid}/fd/{fd}") == "/dev/null"
    assert plugin.plugin.terminate() == 0


def test_a_file_in_the_sockets_place_is_left_alone(plugin):
    plugin.plugin.stop()
    with open(socket_path(plugin), "w") as f:
        f.write("precious")
    plugin.plugin.start()
    assert plugin.plugin.process.wait(20) == 1
    assert "not a socket" in plugin.plugin.text()
    with open(socket_path(plugin)) as f:
        assert f.read() == "precious"


def test_a_missing_directory_is_named(plugin, tmp_path):
    args = plugin.plugin_args("--endpoint", f"unix://{plugin.base}/none/deeper/csi.sock", "--run-dir", tmp_path / "run")
    other = Daemon("holdfast-csi", args, tmp_path / "log").start()
    assert other.process.wait(20) == 1
    assert f"{plugin.base}/none/deeper/csi.sock" in other.text()
    assert "directory does not exist" in other.text()


def test_the_directory_of_the_socket_is_made(bare_node, tmp_path):
    """kubelet makes "plugins", and not what is in it."""
    args = bare_node.plugin_args("--endpoint", f"unix://{bare_node.base}/new/csi.sock")
    other = Daemon("holdfast-csi", args, tmp_path / "log").start()
    eventually((bare_node.base / "new" / "csi.sock").is_socket, what="the socket")
    assert (bare_node.base / "new").stat().st_mode & 0o777 == 0o750
    other.process.terminate()
    assert other.process.wait(20) == 0


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_under_load_a_signal_ends_the_plugin_in_good_order(plugin, sig):
    codes, stop = [], threading.Event()

    def load():
        stub = csi_pb2_grpc.NodeStub(plugin.channel())
        while not stop.is_set():
            try:
                stub.NodeGetVolumeStats(csi_pb2.NodeGetVolumeStatsRequest(volume_id="v", volume_path="/x"), timeout=20)
            except grpc.RpcError as e:
                codes.append(e.code())
                if e.code() in ENDED:
                    return

    threads = [threading.Thread(target=load) for _ in range(16)]
    for t in threads:
        t.start()
    eventually(lambda: len(codes) > 200, what="load")
    plugin.plugin.process.send_signal(sig)
    assert plugin.plugin.process.wait(30) == 0
    stop.set()
    for t in threads:
        t.join(30)
    assert set(codes) - set(ENDED) <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert not os.path.exists(socket_path(plugin))
    assert not plugin.registration.exists()


def test_a_running_call_ends_before_the_plugin_does(stuck):
    call = hang(stuck, 1, timeout=3)
    time.sleep(0.3)
    stuck.plugin.process.send_signal(signal.SIGTERM)
    eventually(lambda: not os.path.exists(socket_path(stuck)), what="the socket to go")
    assert stuck.plugin.running()
    assert call.code() in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    assert stuck.plugin.process.wait(30) == 0


def test_a_silent_connection_does_not_delay_the_end(plugin):
    with connect(socket_path(plugin)):
        assert probe(plugin)
        assert plugin.plugin.terminate(timeout=10) == 0


# health


def test_the_health_service_knows_the_server_and_its_services(plugin):
    health = health_pb2_grpc.HealthStub(plugin.channel())
    for name in ("", "csi.v1.Identity", "csi.v1.Node"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="x"), timeout=10), grpc.StatusCode.NOT_FOUND)
    refused(lambda: next(health.Watch(health_pb2.HealthCheckRequest(), timeout=10)), grpc.StatusCode.UNIMPLEMENTED)


def check_health(node):
    return subprocess.run([BUILD / "holdfast-csi", "--endpoint", node.endpoint, "--check-health"], timeout=30,
                          capture_output=True, text=True)


def test_check_health_tells_a_probe_by_its_exit_code(plugin):
    assert check_health(plugin).returncode == 0
    plugin.plugin.process.send_signal(signal.SIGSTOP)
    result = check_health(plugin)
    plugin.plugin.process.send_signal(signal.SIGCONT)
    assert result.returncode == 1
    assert "DEADLINE_EXCEEDED" in result.stderr
    plugin.plugin.stop()
    result = check_health(plugin)
    assert result.returncode == 1
    assert socket_path(plugin) in result.stderr


# the service manager and the log


def test_the_service_manager_hears_of_ready_watchdog_and_stopping(bare_node, tmp_path):
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(bare_node.base / "notify"))
    manager.settimeout(20)
    bare_node.run_dir.mkdir(mode=0o700)
    bare_node.plugin.env = {"NOTIFY_SOCKET": str(bare_node.base / "notify"), "WATCHDOG_USEC": "200000"}
    bare_node.plugin.start()

    def hear(what):
        while True:
            if what in manager.recv(4096).decode():
                return True

    assert hear("READY=1")
    assert probe(bare_node)
    assert hear("WATCHDOG=1") and hear("WATCHDOG=1") and hear("WATCHDOG=1")
    bare_node.plugin.process.send_signal(signal.SIGTERM)
    assert hear("STOPPING=1")


def test_a_call_is_one_line_in_the_log_and_secrets_are_in_none(stuck):
    stuck.plugin.stop()
    stuck.plugin.args = stuck.plugin_args("--log-level", "debug")
    stuck.start_plugin()
    volume = stuck.volume("pv-7", stuck.sources / "data", attributes={
        "csi.storage.k8s.io/pod.name": "train-0", "csi.storage.k8s.io/pod.uid": "uid-7",
        "csi.storage.k8s.io/serviceAccount.tokens": '{"HUSH": "HUSH-token"}'})
    refused(lambda: volume.stage(timeout=1, secrets={"HUSH-key": "HUSH-value"}), grpc.StatusCode.DEADLINE_EXCEEDED)
    refused(lambda: volume.stage(staging_target_path="", secrets={"HUSH-key": "HUSH-value"}),
            grpc.StatusCode.INVALID_ARGUMENT)
    eventually(lambda: stuck.plugin.text().count("rpc=NodeStageVolume") >= 2, what="the lines")
    assert "HUSH" not in stuck.plugin.text()
    lines = [line for line in stuck.plugin.text().splitlines() if "grpc_code=INVALID_ARGUMENT" in line]
    assert len(lines) == 1
    for word in ("volume_id=pv-7", "pod_name=train-0", "pod_uid=uid-7", "duration_ms=", "staging_target_path"):
        assert word in lines[0]

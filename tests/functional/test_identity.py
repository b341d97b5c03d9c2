# SPDX-License-Identifier: Apache-2.0
"""The service csi.v1.Identity, and the command line that it speaks of."""

import os
import subprocess

import grpc
import pytest

import csi_pb2
from harness import BUILD, refused

CAPABILITY = csi_pb2.PluginCapability.Service


def run(*args, env=None):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HOLDFAST_")}
    return subprocess.run([BUILD / "holdfast-csi", *args], env={**clean, **(env or {})}, capture_output=True, text=True,
                          timeout=20)


def test_the_plugin_says_its_name_and_version(plugin):
    info = plugin.identity().GetPluginInfo(csi_pb2.GetPluginInfoRequest(), timeout=10)
    assert info.name == "csi.holdfast.dev"
    assert info.vendor_version == run("--version").stdout.split()[-1]


def test_volumes_bound_to_nodes_are_announced_where_there_is_a_topology(plugin):
    capabilities = plugin.identity().GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest(), timeout=10).capabilities
    assert [c.service.type for c in capabilities] == [CAPABILITY.VOLUME_ACCESSIBILITY_CONSTRAINTS]


def test_no_capability_is_announced_without_topology(bare_node):
    args = bare_node.plugin.args
    at = args.index("--topology")
    del args[at:at + 2]
    bare_node.run_dir.mkdir(mode=0o700)
    bare_node.start_plugin()
    answer = bare_node.identity().GetPluginCapabilities(csi_pb2.GetPluginCapabilitiesRequest(), timeout=10)
    assert len(answer.capabilities) == 0


def test_the_plugin_is_ready_even_while_no_keeper_runs(plugin):
    assert plugin.identity().Probe(csi_pb2.ProbeRequest(), timeout=10).ready.value


@pytest.mark.parametrize("path", ["/csi.v1.Controller/CreateVolume", "/csi.v1.GroupController/GetVolumeGroupSnapshot",
                                  "/csi.v1.Identity/NoSuchMethod", "/csi.v0.Identity/Probe", "/x"])
def test_what_is_not_served_is_unimplemented(plugin, path):
    refused(lambda: plugin.channel().unary_unary(path)(b"", timeout=10), grpc.StatusCode.UNIMPLEMENTED)


# the command line


def test_help_names_every_flag_with_its_environment_variable():
    text = " ".join(run("--help").stdout.split())
    for flag in ("endpoint", "run-dir", "node-id", "driver-name", "registration-socket", "kubelet-root", "topology",
                 "allow-source", "log-level", "check-health"):
        assert f"--{flag}" in text
        assert "HOLDFAST_" + flag.upper().replace("-", "_") in text


GOOD = {"--endpoint": "unix:///tmp/hf-none/csi.sock", "--node-id": "n"}


@pytest.mark.parametrize("flag,value", [
    ("--endpoint", None), ("--endpoint", "tcp://[::]:9000"), ("--endpoint", "unix://relative"),
    ("--endpoint", "unix:///" + "x" * 120), ("--node-id", None), ("--node-id", "n" * 193), ("--node-id", "a\nb"),
    ("--driver-name", "no spaces"), ("--driver-name", "d" * 64), ("--topology", "zone"), ("--topology", "a b=c"),
    ("--kubelet-root", "kubelet"), ("--kubelet-root", "/var/../kubelet"), ("--run-dir", ""), ("--log-level", "loud"),
    ("--registration-socket", "reg.sock"), ("--registration-socket", "/tmp/hf-none/csi.sock"),
])
def test_a_wrong_flag_is_named_before_anything_starts(flag, value):
    flags = {**GOOD, flag: value}
    result = run(*(a for f, v in flags.items() if v is not None for a in (f, v)))
    assert result.returncode == 2
    assert flag in result.stderr
    assert "--help" in result.stderr


def test_flags_come_from_the_environment_too():
    result = run(env={"HOLDFAST_ENDPOINT": "unix:///tmp/hf-none/csi.sock", "HOLDFAST_NODE_ID": "n" * 193})
    assert result.returncode == 2
    assert "193 bytes" in result.stderr

# SPDX-License-Identifier: Apache-2.0
"""How kubelet finds the plugin: pluginregistration.Registration on a socket of its own."""

import csi_pb2
import registration_pb2
import registration_pb2_grpc
from harness import eventually


def registration(node):
    return registration_pb2_grpc.RegistrationStub(node.channel(f"unix:{node.registration}"))


def notify(node, registered, error=""):
    status = registration_pb2.RegistrationStatus(plugin_registered=registered, error=error)
    return registration(node).NotifyRegistrationStatus(status, timeout=10)


def test_kubelet_learns_type_name_socket_and_version(plugin):
    info = registration(plugin).GetInfo(registration_pb2.InfoRequest(), timeout=10)
    assert info.type == "CSIPlugin"
    assert info.name == "csi.holdfast.dev"
    assert f"unix://{info.endpoint}" == plugin.endpoint
    assert list(info.supported_versions) == ["1.0.0"]


def test_a_registered_plugin_goes_on(plugin):
    notify(plugin, True)
    assert plugin.identity().Probe(csi_pb2.ProbeRequest(), timeout=10).ready.value
    assert "registered" in plugin.plugin.text()


def test_a_refused_plugin_says_why_and_ends_so_that_it_is_started_again(plugin):
    notify(plugin, False, "another driver has this name")
    code = plugin.plugin.process.wait(30)
    assert code == 1
    assert "another driver has this name" in plugin.plugin.text()
    assert not plugin.registration.exists()


def test_there_is_no_registration_socket_unless_it_is_asked_for(bare_node):
    args = bare_node.plugin.args
    at = args.index("--registration-socket")
    del args[at:at + 2]
    bare_node.run_dir.mkdir(mode=0o700)
    bare_node.start_plugin()
    assert list(bare_node.registration.parent.iterdir()) == []


def test_kubelet_finds_the_socket_again_after_a_crash(plugin):
    plugin.plugin.kill()
    assert plugin.registration.exists()
    plugin.start_plugin()
    assert registration(plugin).GetInfo(registration_pb2.InfoRequest(), timeout=10).name == "csi.holdfast.dev"


def test_the_socket_goes_when_the_plugin_ends(plugin):
    assert plugin.plugin.terminate() == 0
    assert eventually(lambda: not plugin.registration.exists())

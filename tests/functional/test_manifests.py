# SPDX-License-Identifier: Apache-2.0
"""The manifests say what the binaries understand: flags, sockets, paths, names."""

import pathlib
import re
import subprocess

import pytest
import yaml

from harness import BUILD, ROOT

DEPLOY = ROOT / "deploy" / "daemonset"


def documents():
    found = {}
    for path in DEPLOY.glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            found.setdefault(document["kind"], []).append(document)
    return found


OBJECTS = documents()
DAEMONSET = OBJECTS["DaemonSet"][0]
POD = DAEMONSET["spec"]["template"]["spec"]
CONTAINERS = {c["name"]: c for c in POD["containers"]}
DRIVER = OBJECTS["CSIDriver"][0]["metadata"]["name"]


def commands(container):
    yield container["command"] + container.get("args", [])
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if probe in container:
            yield container[probe]["exec"]["command"]


def flags(command):
    return dict(a.lstrip("-").split("=", 1) for a in command if a.startswith("--") and "=" in a)


def help_of(program):
    return subprocess.run([BUILD / program, "--help"], check=True, capture_output=True, text=True, timeout=20).stdout


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_flag_and_variable_is_one_that_the_program_knows(name):
    container = CONTAINERS[name]
    for command in commands(container):
        text = help_of(command[0])
        for argument in command[1:]:
            if argument.startswith("--"):
                assert re.search(re.escape(argument.split("=")[0]) + r"\b", text), argument
    known = help_of(container["command"][0])
    for variable in container.get("env", []):
        assert f"${variable['name']}]" in " ".join(known.split()).replace("[ ", "["), variable["name"]


def mounted(container, path):
    """The volume mount that holds a path in a container."""
    mounts = [m for m in container["volumeMounts"] if pathlib.PurePath(path).is_relative_to(m["mountPath"])]
    assert mounts, f"{path} is on no volume"
    return max(mounts, key=lambda m: len(m["mountPath"]))


def host_path(name):
    return next(v["hostPath"]["path"] for v in POD["volumes"] if v["name"] == name)


def test_the_run_directory_is_one_and_the_same_on_the_node():
    paths = set()
    for container in CONTAINERS.values():
        run_dir = flags(next(commands(container)))["run-dir"]
        mount = mounted(container, run_dir)
        assert mount["mountPath"] == run_dir
        paths.add(host_path(mount["name"]))
    assert len(paths) == 1


def test_sockets_lie_where_kubelet_looks():
    csi = CONTAINERS["csi"]
    given = flags(next(commands(csi)))
    root = given["kubelet-root"]
    assert given["driver-name"] == DRIVER
    assert given["endpoint"] == f"unix://{root}/plugins/{DRIVER}/csi.sock"
    assert given["registration-socket"] == f"{root}/plugins_registry/{DRIVER}-reg.sock"
    mount = mounted(csi, root)
    assert mount["mountPropagation"] == "Bidirectional"
    assert host_path(mount["name"]) == mount["mountPath"] == root


def test_an_update_lets_the_new_pod_take_over_from_the_old_one():
    strategy = DAEMONSET["spec"]["updateStrategy"]
    assert strategy == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    assert DAEMONSET["spec"]["minReadySeconds"] > 0
    assert "--stand-by" in CONTAINERS["keeper"]["args"]
    assert "hostNetwork" not in POD and not any("ports" in c for c in CONTAINERS.values())  # two pods at once on a node
    # the new pod's plugin answers no probe before the old pod is gone, which takes no longer than its grace period
    probe = CONTAINERS["csi"]["livenessProbe"]
    patience = probe["initialDelaySeconds"] + probe["periodSeconds"] * (probe["failureThreshold"] - 1)
    assert patience > POD["terminationGracePeriodSeconds"] + DAEMONSET["spec"]["minReadySeconds"]


def test_allowed_sources_are_the_nodes_own_directories():
    csi = CONTAINERS["csi"]
    allowed = next(e["value"] for e in csi["env"] if e["name"] == "HOLDFAST_ALLOW_SOURCE")
    for prefix in allowed.split(","):
        mount = mounted(csi, prefix)
        assert host_path(mount["name"]) == mount["mountPath"]
        assert mount["mountPropagation"] == "HostToContainer"
    source = OBJECTS["PersistentVolume"][0]["spec"]["csi"]["volumeAttributes"]["source"]
    assert any(pathlib.PurePath(source).is_relative_to(p) for p in allowed.split(","))


def test_the_example_is_served(node):
    """The example's attributes and mount options, against the real plugin; only the source is moved."""
    spec = OBJECTS["PersistentVolume"][0]["spec"]
    node.make_source("imagenet", {"f": "hello"})
    attributes = {k: v for k, v in spec["csi"]["volumeAttributes"].items() if k != "source"}
    volume = node.volume("imagenet", attributes=attributes, flags=spec["mountOptions"])
    assert (volume.up(readonly=True) / "f").read_text() == "hello"
    volume.down()


def test_the_objects_fit_together():
    driver = OBJECTS["CSIDriver"][0]["spec"]
    assert driver["attachRequired"] is False
    assert set(driver["volumeLifecycleModes"]) == {"Persistent", "Ephemeral"}
    assert OBJECTS["PersistentVolume"][0]["spec"]["csi"]["driver"] == DRIVER
    assert POD["serviceAccountName"] == OBJECTS["ServiceAccount"][0]["metadata"]["name"]
    assert POD["hostPID"] is True
    names = {v["name"] for v in POD["volumes"]}
    for container in CONTAINERS.values():
        assert {m["name"] for m in container["volumeMounts"]} <= names


def test_the_image_recipe_installs_what_the_binaries_link_against():
    recipe = (DEPLOY / "Dockerfile").read_text()
    assert "FROM debian:bookworm-slim AS build" in recipe
    needed = set()
    for program in ("holdfast-fuse", "holdfast-keeper", "holdfast-csi", "holdfastctl"):
        out = subprocess.run(["readelf", "-d", BUILD / program], check=True, capture_output=True, text=True).stdout
        needed |= set(re.findall(r"NEEDED.*\[(lib[a-z0-9_+-]+)\.so", out))
    packages = {"libfuse3": "libfuse3-3", "libgrpc": "libgrpc29", "libprotobuf-c": "libprotobuf-c1", "libmount": "libmount1",
                "libsystemd": "libsystemd0", "libcap": "libcap2", "libjansson": "libjansson4", "libcrypto": "libssl3",
                "libgpr": "libgrpc29", "libc": None, "libm": None, "libasan": None, "libubsan": None, "libtsan": None}
    for library in needed:
        package = packages[library]
        assert package is None or package in recipe.split(), library

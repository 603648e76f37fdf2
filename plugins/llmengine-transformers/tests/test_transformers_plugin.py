"""What the plugin declares, and that declaring it costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from typing import Any

import pytest
from packaging.requirements import Requirement

from llmengine_core.errors import BadRequestError
from llmengine_core.recipes import parse_pins
from llmengine_core.types.declarations import EnvironmentBuild
from llmengine_core.types.launch import Deployment
from llmengine_transformers import host, plugin
from llmengine_transformers.backend import TransformersBackend

BUILDS = plugin.ENVIRONMENT.builds


def deployment(**options: Any) -> Deployment:
    return Deployment(
        backend="transformers",
        version="5.23.0",
        weights="/models/small",
        weights_digest="0" * 64,
        python="/environments/transformers/bin/python",
        options=options,
    )


def pins(build: EnvironmentBuild) -> dict[str, str]:
    assert build.pins is not None
    package, _, path = build.pins.partition(":")
    return dict(parse_pins(files(package).joinpath(path).read_text()))


def test_declaring_imports_neither_engine_nor_sockets() -> None:
    code = (
        "import sys; import llmengine_transformers.plugin; "
        "print(sorted({'torch', 'transformers', 'numpy', 'asyncio', 'socket', 'ssl'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_backend_is_named_as_users_write_it() -> None:
    (info,) = plugin.register_backends()
    assert info.name == "transformers"
    assert info.formats == {"safetensors", "pytorch"}
    assert info.takes_masker
    assert info.accelerators == {"cpu"}, "it was run on nothing else"


def test_a_machine_without_builds_of_torch_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        assert host.problems() == ()
    monkeypatch.setattr("sys.platform", "linux")
    for library, version, trouble in [
        ("glibc", "2.28", 0),
        ("glibc", "2.17", 1),
        ("", "", 1),
        ("glibc", "3.0", 0),
    ]:
        monkeypatch.setattr("platform.libc_ver", lambda found=(library, version): found)
        assert len(host.problems()) == trouble
    monkeypatch.setattr("sys.platform", "darwin")
    for machine, version, trouble in [("arm64", "15.1", 0), ("arm64", "13.6", 1), ("x86_64", "15.1", 1)]:
        monkeypatch.setattr("platform.machine", lambda found=machine: found)
        monkeypatch.setattr("platform.mac_ver", lambda found=version: (found, ("", "", ""), ""))
        assert len(host.problems()) == trouble


def test_llama_cpp_comes_first_where_both_fit() -> None:
    from llmengine_llamacpp.plugin import register_backends

    (other,) = register_backends()
    (info,) = plugin.register_backends()
    assert other.priority > info.priority


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.version} {sorted(build.accelerators)}")
def test_what_a_build_asks_for_is_pinned(build: EnvironmentBuild) -> None:
    pinned = pins(build)
    assert pinned["transformers"] == build.version
    for text in build.requirements:
        requirement = Requirement(text)
        assert pinned[requirement.name] in requirement.specifier


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: f"{build.version} {sorted(build.accelerators)}")
def test_pins_leave_to_other_plugins_what_is_theirs(build: EnvironmentBuild) -> None:
    names = list(pins(build))
    assert names == sorted(set(names))
    assert not {"bitsandbytes", "llguidance", "torchvision", "torchaudio"} & set(names)
    assert ("nvidia-cublas" in names or "triton" in names) is (build.accelerators == {"cuda"})


def test_each_version_is_built_at_most_once_for_a_device() -> None:
    pairs = [(build.version, device) for build in BUILDS for device in build.accelerators]
    assert len(pairs) == len(set(pairs))


def test_a_launch_is_data_without_secrets() -> None:
    spec = TransformersBackend().launch(deployment(dtype="float32", threads=2))
    assert spec.argv[0] == "/environments/transformers/bin/python"
    document = json.loads(json.dumps(dict(spec.document)))
    assert (document["weights"], document["dtype"], document["per_worker"]) == ("/models/small", "float32", 2)
    assert spec.resources.threads == 2


@pytest.mark.parametrize("options", [{"dtype": "float8"}, {"dtype": 16}, {"gpu_layers": 3}, {"threads": 0}])
def test_launch_options_are_checked(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(BadRequestError, match=name):
        TransformersBackend().launch(deployment(**options))

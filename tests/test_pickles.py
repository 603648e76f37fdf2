"""PyTorch files are told from programs before anything loads them."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.checkpoint_files import hugging_face_folder
from tests.e2e.torch_checkpoints import pickled

from llmengine_core import pickles
from llmengine_core.gguf import BadHeader
from llmengine_core.looks_here import look_here
from llmengine_core.pickles import check_pickles

MAGIC = 0x1950A86A20F9469CFC6C


class Stands:
    """Pickles as a call of something by its name, whether that is here or not."""

    def __init__(self, module: str, name: str, *arguments: object) -> None:
        self.module, self.name, self.arguments = module, name, arguments


Written: Any = vars(pickle)["_Pickler"]
"""The library's pickler in Python, whose steps can be written by hand."""


def save(pickler: Any, obj: Stands) -> None:
    if pickler.proto >= 4:
        pickler.save(obj.module)
        pickler.save(obj.name)
        pickler.write(pickle.STACK_GLOBAL)
    else:
        pickler.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
    pickler.save(obj.arguments)
    pickler.write(pickle.REDUCE)


def pickled_as(content: object, protocol: int) -> bytes:
    written = io.BytesIO()
    pickler = Written(written, protocol)
    pickler.dispatch = {**pickler.dispatch, Stands: save}
    pickler.dump(content)
    return written.getvalue()


def zipped(program: bytes, **more: bytes) -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for name, content in more.items():
            archive.writestr(f"archive/{name.replace('__', '/')}", content)
    return written.getvalue()


def old(program: bytes) -> bytes:
    parts = (MAGIC, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(part, 2) for part in parts) + program + b"the weights themselves"


TENSOR = Stands(
    "torch._utils", "_rebuild_tensor_v2", Stands("torch", "FloatStorage"), 0, (2, 2), (2, 1), False
)
WEIGHTS = OrderedDict(a=TENSOR, size=Stands("torch", "Size", [1]), kind=Stands("torch", "bfloat16"), epoch=3)
FORMS = [(form, protocol) for form in (zipped, old) for protocol in (2, 3, 4, 5)]


def reason(content: bytes, folder: Path) -> str:
    (folder / "w.bin").write_bytes(content)
    with pytest.raises(BadHeader) as caught:
        check_pickles(folder / "w.bin")
    return caught.value.reason


@pytest.mark.parametrize(("form", "protocol"), FORMS)
def test_weights_pass(form: Any, protocol: int, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(form(pickled_as(WEIGHTS, protocol)))
    check_pickles(tmp_path / "w.bin")


@pytest.mark.parametrize(("form", "protocol"), FORMS)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "FloatStorage.__class__"),
        ("torch.nn.modules.linear", "Linear"),
        ("runpy", "run_path"),
        ("numpy.testing._private.utils", "runstring"),
        ("__main__", "Size"),
    ],
)
def test_m04_what_no_weights_import_is_named(
    form: Any, protocol: int, module: str, name: str, tmp_path: Path
) -> None:
    hidden = {**WEIGHTS, "x": [TENSOR, (Stands(module, name, "true"),)]}
    said = reason(form(pickled_as(hidden, protocol)), tmp_path)
    assert f"w.bin holds more than weights: loading it would run {module}.{name}; nothing was run" == said


def test_names_that_are_hidden_are_refused(tmp_path: Path) -> None:
    system, in_torch = b"\x8c\x02os", b"\x8c\x06system"
    shuffled = (
        b"\x80\x04"
        + system
        + b"\x94"
        + in_torch
        + b"\x94"
        + b"0"
        + in_torch
        + b"\x93.",  # popped and pushed again
        b"\x80\x04" + system + b"\x94" + b"h\x00" + in_torch + b"\x93.",  # by way of the memo
        b"\x80\x04" + system + in_torch + b"2" + b"\x93.",  # duplicated
        b"\x80\x02\x82\x01.",  # by number
        b"\x80\x02(ios\nsystem\n.",  # an instance, as they were long ago
    )
    for program in shuffled:
        assert "holds more than weights" in reason(zipped(program), tmp_path)


def test_m04_it_is_refused_where_the_checkpoint_is_looked_at(tmp_path: Path) -> None:
    folder, canary = hugging_face_folder(tmp_path / "hf"), tmp_path / "canary"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickled(canary))
    problem = look_here(str(folder), None).problem
    assert problem is not None
    assert "pytorch_model.bin holds more than weights: loading it would run os.mkdir" in problem.message
    assert problem.mend == "save the weights as safetensors"
    (folder / "pytorch_model.bin").write_bytes(zipped(pickled_as(WEIGHTS, 2)))
    facts = look_here(str(folder), None)
    assert (facts.format, facts.problem) == ("pytorch", None)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (zipped(b"\x80\x02}.")[:-30], "the list of its files, which comes last, is missing"),
        (zipped(b"\x80\x02}"), "truncated or damaged"),
        (zipped(b""), "truncated or damaged"),
        (old(b"\x80\x02}.")[:30], "truncated or damaged"),
        (zipped(b"\x80\x02}.").replace(b"data.pkl", b"dota.pkl"), "doesn't hold one data.pkl"),
    ],
)
def test_damaged_files_are_told(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in reason(content, tmp_path)


def test_lists_and_pickles_without_end_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(zipped(b"\x80\x02}."))
    at = content.rfind(b"PK\x05\x06")
    content[at + 12 : at + 16] = struct.pack("<I", 1 << 30)
    assert "claims 1,073,741,824 bytes" in reason(bytes(content), tmp_path)
    monkeypatch.setattr(pickles, "LIMIT", 1 << 20)
    assert "more than 1,048,576 bytes" in reason(zipped(b"\x80\x02" + bytes(2 << 20)), tmp_path)
    assert "truncated or damaged" in reason(old(b"\x80\x02" + b"}0" * (1 << 20) + b"}."), tmp_path)


@given(at=st.integers(0, 2000), flip=st.integers(1, 255), form=st.sampled_from([zipped, old]))
def test_any_damage_passes_or_is_told(
    at: int, flip: int, form: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(form(pickled_as(WEIGHTS, 2)))
    content[at % len(content)] ^= flip
    path = tmp_path_factory.mktemp("damaged") / "w.bin"
    path.write_bytes(content)
    with suppress(BadHeader):
        check_pickles(path)

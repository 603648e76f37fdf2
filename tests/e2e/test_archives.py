"""Models from archives: served as what is in them, refused where that must not be unpacked."""

from __future__ import annotations

import tarfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.archive_files import compressed, entry, finished, packed, zstd
from tests.checkpoint_files import small_gguf, smollm2
from tests.e2e.facade import MODEL, answer

from llmengine import Model, errors

pytestmark = [pytest.mark.engine, pytest.mark.usefixtures("own_home")]


def create(checkpoint: Path) -> None:
    Model.create(
        name="packed",
        model=MODEL,
        inference_framework="llama_cpp",
        inference_framework_image_tag="latest",
        checkpoint_path=str(checkpoint),
    )


@pytest.mark.parametrize("kind", ["tar", "tar.zst"])
def test_m04_a_model_in_an_archive_is_served(tmp_path: Path, kind: str) -> None:
    archive = tmp_path / "model"
    with ExitStack() as closing:
        target = closing.enter_context(
            zstd().open(archive, "wb") if kind == "tar.zst" else archive.open("wb")
        )
        packing = closing.enter_context(tarfile.open(fileobj=target, mode="w|"))
        packing.add(smollm2(), "smollm2/model.gguf")
    create(archive)
    assert answer(model="packed") == " Paris.\n"
    assert (Model.get("packed").status, Model.delete("packed").deleted) == ("READY", True)
    assert archive.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (finished(entry("model.gguf", small_gguf()), entry("../../evil", b"x")), "outside its folder"),
        (finished(entry("model.gguf", kind=b"2", link="/etc/passwd")), "a symbolic link: 'model.gguf'"),
        (compressed(packed({"model.gguf": small_gguf()}), "tar.gz")[:-9], "it is truncated"),
        (compressed(packed({"model.gguf": small_gguf()[:-9]}), "tar.zst"), "it is truncated: the tensor"),
        (packed({"README.md": b"A model"}), "no weights were found in the folder (it holds README.md)"),
    ],
)
def test_m04_an_archive_that_is_no_use_is_refused_at_once(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "model").write_bytes(content)
    with pytest.raises(errors.ResolutionError) as caught:
        create(tmp_path / "model")
    assert reason in str(caught.value)
    with pytest.raises(errors.NotFoundError):
        Model.get("packed")

"""A folder or hub name becomes a backbone that sees what the network's own processor would show it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from aerogel.condense.families import load_backbone
from aerogel.condense.families.architectures import ARCHITECTURES
from aerogel.condense.families.opening import load_transformer
from aerogel.condense.families.towers import Tower
from aerogel.errors import DataError
from tests.unit.condense import tiny
from tests.unit.condense.families import tiny_towers

WORDLESS = [kind for kind, family in ARCHITECTURES.items() if family.text is None]


def preparation(folder: Path, **settings: Any) -> Any:
    tower = load_transformer(str(folder), **settings).module
    assert isinstance(tower, Tower)
    return tower.preparation


@pytest.mark.parametrize("kind", WORDLESS)
def test_features_are_those_of_transformers_own_processor_and_model(kind: str, tmp_path: Path) -> None:
    from transformers import AutoImageProcessor, AutoModel

    folder = tiny_towers.write_network(tmp_path, kind)
    images = tiny_towers.draw()
    shown = [(image * 255.0).round().to(torch.uint8).numpy() for image in images]
    model, processor = AutoModel.from_pretrained(folder).eval(), AutoImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        output = model(**processor(shown, return_tensors="pt"))
        ours = load_backbone(str(folder), 1).module(images)
    theirs = output.last_hidden_state[:, 0] if kind in ("vit", "deit") else output.pooler_output.flatten(1)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_the_grid_is_asked_for_or_suits_the_images(tmp_path: Path) -> None:
    folder = str(tiny_towers.write_network(tmp_path / "vit", "vit"))
    assert [load_transformer(folder, size=size).grid for size in (0, 15, 16)] == [1, 1, 2]
    assert (load_transformer(folder, 3).features, load_transformer(folder, 1, size=99).grid) == (8 * 10, 1)
    words = str(tiny_towers.write_network(tmp_path / "siglip", "siglip"))
    assert load_transformer(words, size=224).grid == 1
    assert load_transformer(words, 2).grid == 2


def test_a_classifiers_folder_serves_without_its_head(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny.write_classifier(tmp_path)
    capfd.readouterr()
    backbone = load_backbone(str(folder))
    assert capfd.readouterr() == ("", "")
    assert backbone.text is None
    assert backbone.features == 16


def test_an_image_is_shown_whole_at_the_size_that_a_processor_cuts_out(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "dinov2")
    cut = {"size": {"shortest_edge": 32}, "crop_size": {"height": 24, "width": 24}}
    tiny_towers.write_processor(folder, "Bit", **cut)
    found = preparation(folder)
    assert (found.resize, found.crop, found.mean) == ((24, 24), None, (0.4, 0.5, 0.6))
    edges = torch.zeros(2, 3, 40, 40)
    edges[1, :, :3] = 1.0
    first, second = load_backbone(str(folder)).module(edges)
    assert not torch.allclose(first, second, atol=1e-4)


def test_a_network_of_one_size_is_shown_that_size(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "vit")
    tiny_towers.write_processor(folder, size={"height": 24, "width": 24}, resample=3)
    found = preparation(folder)
    assert (found.resize, found.filter) == ((16, 16), "bicubic")
    assert load_backbone(str(folder)).module(tiny_towers.draw(20)).shape == (3, 8)


def test_without_a_processor_the_familys_own_habits_are_taken_and_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_towers.write_network(tmp_path, "deit", processor=False)
    capfd.readouterr()
    found = preparation(folder)
    told = capfd.readouterr().err
    assert "has no preprocessor_config.json: images are resized to 16 pixels" in told
    assert "0.485" in told
    assert (found.resize, found.mean) == ((16, 16), (0.485, 0.456, 0.406))


def test_a_processor_that_lies_in_the_file_of_all_processors_is_read(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "clip")
    own = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    whole = {"processor_class": "CLIPProcessor", "image_processor": own}
    (folder / "processor_config.json").write_text(json.dumps(whole))
    assert preparation(folder).mean == (0.4, 0.5, 0.6)


def test_without_a_processor_and_a_size_it_is_224_pixels(tmp_path: Path) -> None:
    assert preparation(tiny_towers.write_network(tmp_path, "resnet", processor=False)).resize == (224, 224)


def test_what_a_processor_asks_for_and_cannot_be_reproduced_is_refused(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "vit")
    tiny_towers.write_processor(folder, resample=1)
    with pytest.raises(DataError, match="resample=1"):
        load_backbone(str(folder))


def test_bytes_are_those_of_the_precision_in_the_config(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "resnet")
    full = load_backbone(str(folder))
    numbers = sum(
        value.numel() for key, value in full.module.state_dict().items() if key not in ("mean", "std")
    )
    assert full.size_bytes == 4 * numbers
    weights = load_file(folder / "model.safetensors")
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop("dtype", None)
        (folder / "config.json").write_text(json.dumps({**config, key: "float16"}))
        assert load_backbone(str(folder)).size_bytes == 2 * numbers


def test_the_hash_is_of_weights_and_of_what_images_are_normalised_by(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "vit")
    first = load_backbone(str(folder)).sha256
    assert first == load_backbone(str(folder), 2).sha256
    tiny_towers.write_processor(folder, image_mean=[0.5, 0.5, 0.5])
    assert load_backbone(str(folder)).sha256 != first


@pytest.mark.parametrize("kind", ["vit_mae", "bert", None])
def test_an_unknown_family_is_refused_by_name(kind: str | None, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind, "hidden_size": 8}))
    with pytest.raises(DataError, match=r"families clip, siglip, .*efficientnet; got .*of type"):
        load_backbone(str(tmp_path))


def test_code_in_the_folder_is_not_run(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "siglip")
    mark = tmp_path / "ran"
    (folder / "mine.py").write_text(f"open({str(mark)!r}, 'w').close()\n")
    own = {name: f"mine.{name}" for name in ("AutoConfig", "AutoModel", "AutoImageProcessor")}
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        data = json.loads((folder / name).read_text())
        data["auto_map"] = {**own, "AutoTokenizer": ["mine.Slow", "mine.Fast"]}
        (folder / name).write_text(json.dumps(data))
    assert load_backbone(str(folder)).text is not None
    assert not mark.exists()


def test_weights_that_are_missing_or_pickled_are_refused(tmp_path: Path) -> None:
    folder = tiny_towers.write_network(tmp_path, "vit")
    path = folder / "model.safetensors"
    kept = {
        key: value
        for key, value in load_file(path).items()
        if "layers.0.mlp.fc1" not in key and "intermediate" not in key
    }
    assert kept.keys() != load_file(path).keys()
    save_file(kept, path, {"format": "pt"})
    with pytest.raises(DataError, match="a model without"):
        load_backbone(str(folder))
    path.rename(folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="safetensors"):
        load_backbone(str(folder))

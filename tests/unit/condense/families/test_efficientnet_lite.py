"""EfficientNet-Lite0 is opened by its file, and its network is the published one."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional

from aerogel.condense.config import ProjectorConfig
from aerogel.condense.families import Backbone, load_backbone
from aerogel.condense.families.efficientnet_lite import (
    EfficientNetLite0,
    InvertedBottleneck,
    LiteTower,
    read_network,
    rename_weight,
)
from aerogel.condense.merged import Merged
from aerogel.condense.projector import adapt, build_projector
from aerogel.errors import DataError
from tests.unit.condense import tiny

FILE = Path(os.environ.get("AEROGEL_DATA", "")) / "models" / "efficientnet-lite0.fp16.safetensors"
PUBLISHED = {
    "stem": "_conv_stem",
    "stem_norm": "_bn0",
    "top": "_conv_head",
    "top_norm": "_bn1",
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}


def publish(name: str) -> str:
    """Return the published name of a weight of ours."""
    parts = name.split(".")
    if parts[0] == "blocks":
        return ".".join(["_blocks", parts[1], PUBLISHED[parts[2]], *parts[3:]])
    return ".".join([PUBLISHED[parts[0]], *parts[1:]])


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    """Return random weights under their published names, in half precision, with statistics that matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = EfficientNetLite0()
        for name, value in network.state_dict().items():
            if name.endswith(("running_mean", "running_var")):
                value.uniform_(0.1, 0.5)
    found = {publish(name): value.half() for name, value in network.state_dict().items()}
    classifier = {"_fc.weight": torch.zeros(1000, 1280).half(), "_fc.bias": torch.zeros(1000).half()}
    return {name: value.clone() for name, value in {**found, **classifier}.items()}


@pytest.fixture(scope="module")
def file(weights: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite") / "efficientnet-lite0.safetensors"
    save_file(weights, path)
    return path


@pytest.fixture(scope="module")
def backbone(file: Path) -> Backbone:
    return load_backbone(str(file), size=28)


def images(size: int = 24) -> torch.Tensor:
    return torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0))


def test_it_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = EfficientNetLite0()
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count, count + 1280 * 1000 + 1000) == (3_371_008, 4_652_008)
    assert len(network.blocks) == 16
    assert sum(block.shortcut for block in network.blocks if isinstance(block, InvertedBottleneck)) == 9
    assert network(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1280, 7, 7)


def test_every_published_name_is_known(weights: dict[str, torch.Tensor]) -> None:
    ours = {rename_weight(name) for name in weights if not name.startswith("_fc")}
    assert ours == set(EfficientNetLite0().state_dict())


def test_weights_go_where_they_belong(file: Path, weights: dict[str, torch.Tensor]) -> None:
    network = read_network(file)
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    for name, value in network.state_dict().items():
        assert torch.equal(value, weights[publish(name)].to(value.dtype)), name


def test_images_are_centred_at_127_and_shown_at_224_pixels(backbone: Backbone, file: Path) -> None:
    grey = torch.full((1, 1, 30, 30), 0.25)
    expected = read_network(file)(torch.full((1, 3, 224, 224), (63.75 - 127.0) / 128.0))
    assert isinstance(backbone.module, LiteTower)
    cells = functional.adaptive_avg_pool2d(expected, 2).flatten(1)
    assert torch.allclose(backbone.module(grey), cells, atol=1e-4)


def test_what_is_said_of_it(backbone: Backbone, file: Path) -> None:
    assert (backbone.grid, backbone.features, load_backbone(str(file), 1).features) == (2, 5120, 1280)
    assert backbone.size_bytes == file.stat().st_size
    assert backbone.name == str(file)
    assert backbone.text is None
    layers = dict(backbone.module.named_modules())
    assert len(backbone.lora_targets) == 33
    assert "network.stem" in backbone.lora_targets
    assert all(layers[name].groups == 1 for name in backbone.lora_targets)
    assert set(backbone.norms) == {
        name for name, layer in layers.items() if isinstance(layer, torch.nn.Conv2d)
    }
    assert all(isinstance(layers[norm], torch.nn.BatchNorm2d) for norm in backbone.norms.values())
    assert not any(name.endswith("head") for name in layers)
    assert not any(parameter.requires_grad for parameter in backbone.module.parameters())


def test_changes_and_norms_fold_into_the_convolutions(backbone: Backbone) -> None:
    data = tiny.draw(1, size=24)
    plain = build_projector(backbone, data.images, data.labels, tiny.NAMES, ("{}",))
    adapted = adapt(plain, backbone, ProjectorConfig(rank=2), 3).eval()
    with torch.no_grad():
        before = adapted(images())
        assert torch.allclose(before, plain(images()), atol=1e-5)
        generator = torch.Generator().manual_seed(1)
        for name, value in adapted.named_parameters():
            if value.requires_grad and "lora_B" in name:
                value.add_(0.05 * torch.randn(value.shape, generator=generator))
        after = adapted(images())
    assert not torch.allclose(after, before, atol=1e-3)
    torch.testing.assert_close(Merged(adapted, backbone.norms)(images()), after, rtol=1e-4, atol=1e-4)


def test_another_file_is_refused(tmp_path: Path, weights: dict[str, torch.Tensor], file: Path) -> None:
    for change, told in (
        ({"_bn0.weight": torch.ones(31)}, r"differ in stem_norm\.weight \(1 in all\)"),
        ({"more": torch.ones(1)}, r"differ in more"),
    ):
        save_file({**weights, **change}, tmp_path / "other.safetensors")
        with pytest.raises(DataError, match=told):
            load_backbone(str(tmp_path / "other.safetensors"))
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    for name in ("cut", "none"):
        with pytest.raises(DataError, match="cannot be read"):
            load_backbone(str(tmp_path / f"{name}.safetensors"))


def test_the_classifier_and_the_counters_may_be_left_out(
    tmp_path: Path, weights: dict[str, torch.Tensor], backbone: Backbone
) -> None:
    kept = {name: value for name, value in weights.items() if "num_batches" not in name and "_fc" not in name}
    save_file(kept, tmp_path / "lean.safetensors")
    lean = load_backbone(str(tmp_path / "lean.safetensors"), 2)
    assert lean.sha256 == backbone.sha256


@pytest.mark.skipif(not FILE.is_file(), reason="AEROGEL_DATA does not name a folder with EfficientNet-Lite0")
def test_the_real_one_names_real_photos() -> None:
    """Of twenty ImageNet photos, of every fiftieth class, at least fifteen are named rightly."""
    backbone, stored = load_backbone(str(FILE), 1), load_file(FILE)
    assert backbone.size_bytes < 10_000_000
    table = pq.read_table(FILE.parents[1] / "photos" / "imagenet-samples.parquet")
    # The synset's number comes first in the name, and the classes are in the order of these numbers.
    classes = sorted(table.column("name").to_pylist())
    right = 0
    for row in table.take(list(range(0, 1000, 50))).to_pylist():
        picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        square = np.array(picture.crop((left, top, left + side, top + side)))
        with torch.no_grad():
            features = backbone.module(torch.from_numpy(square).permute(2, 0, 1)[None].float() / 255.0)
        logits = features @ stored["_fc.weight"].float().T + stored["_fc.bias"].float()
        right += classes[int(logits.argmax())] == row["name"]
    assert right >= 15

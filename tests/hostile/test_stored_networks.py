"""Hostile teachers, students and classifiers of transformers: what a run is given to learn from."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from aerogel.condense.graduate import load_trained, save_student
from aerogel.condense.student import build_student
from aerogel.condense.teacher import identify_import, import_teacher
from tests.hostile.judge import Subject, judge, offer
from tests.hostile.manifests import hostile_manifests
from tests.hostile.mutate import (
    Mutation,
    added,
    boobytrap,
    cuts,
    edited,
    exchanged,
    flips,
    hostile_json,
    hostile_safetensors,
    misplaced,
    mutation,
    signed,
    swapped,
)
from tests.unit.condense import tiny

if TYPE_CHECKING:
    from aerogel.condense.api import Condensed

TEXT = "teacher.json"
FIRST, LAST = "snapshot-00.safetensors", "snapshot-01.safetensors"


def load_imported(folder: Path) -> Any:
    """Return all of a teacher that a run imports, and what it copies."""
    work = folder.parent / "work"
    work.mkdir()
    try:
        known = identify_import(str(folder))
        data = tiny.draw(4)
        teacher = import_teacher(str(folder), data, work)
        states = [snapshot.state_dict() for snapshot in teacher.snapshots]
        # The digest of a folder is that of its manifest, which may change with files that are not loaded.
        assert known
        logits = teacher.classifier(data.images.float() / 255.0)
        return {"states": states, "names": teacher.class_names, "size": teacher.size, "logits": logits}
    except Exception:
        assert not list(work.iterdir()), "half of a refused teacher was copied"
        raise
    finally:
        shutil.rmtree(work)


@pytest.fixture(scope="session")
def teachers(condensed: Condensed, other_condensed: Condensed) -> Subject:
    return Subject(condensed.folder / "teacher", other_condensed.folder / "teacher", load_imported)


def says(name: str, file: str = TEXT, **values: Any) -> Mutation:
    return edited(name, file, lambda data: data.update(values), (*values, file.rpartition("/")[2]))


def descriptions(file: str) -> list[Mutation]:
    """Descriptions of networks that cannot be, or that do not fit the weights."""
    return [
        *hostile_json(file),
        says("width-billion", file, width=10**9),
        says("width-negative", file, width=-8),
        says("width-text", file, width="8"),
        says("width-other", file, width=9),
        says("depth-billion", file, depth=10**9),
        says("depth-text", file, depth="1"),
        says("depth-zero", file, depth=0),
        says("size-billion", file, size=10**9),
        says("size-other", file, size=16),
        says("size-float", file, size=8.0),
        says("channels-other", file, channels=3),
        says("channels-many", file, channels=10**6),
        says("network-other", file, network="resnet18"),
        says("network-path", file, network="../../os.system"),
        says("network-list", file, network=["convnet"]),
        says("network-null", file, network=None),
        says("names-text", file, class_names="abc"),
        says("names-fewer", file, class_names=["bar", "dot"]),
        says("names-twice", file, class_names=["bar", "bar", "ring"]),
        says("names-numbers", file, class_names=[0, 1, 2]),
        says("names-many", file, class_names=[f"a/../{n}\n" for n in range(100_000)]),
        says("names-none", file, class_names=[]),
        says("mean-text", file, mean="x"),
        says("mean-many", file, mean=[0.5] * 10_000),
        says("std-null", file, std=None),
        says("std-list", file, std=[[0.5]]),
    ]


def poison(folder: Path, other: Path) -> None:
    """Put numbers that are none into the weights."""
    from safetensors.torch import load_file, save_file

    path = next(each for each in (folder / LAST, folder / "student.safetensors") if each.exists())
    weights = load_file(path)
    save_file({key: value * float("nan") for key, value in weights.items()}, path)


TEACHER = [
    *(each for file in (TEXT, LAST) for each in (*cuts(file), *flips(file), *misplaced(file))),
    swapped(LAST),
    exchanged(FIRST, LAST),
    added("snapshot-02.safetensors"),
    added("snapshot-02.bin", b"cos\nsystem\n"),
    *signed(
        [
            *cuts(TEXT),
            *cuts(LAST),
            *flips(LAST, (0, 1, 7, 8, 9, 20)),
            misplaced(TEXT)[0],
            swapped(TEXT),
            swapped(LAST),
            exchanged(TEXT, LAST),
            *descriptions(TEXT),
            *hostile_safetensors(LAST),
            mutation("not-a-number", LAST, poison),
            says("imported", network="transformers"),
            says("preparation", network="transformers", preparation={"resize": [10**9, 10**9]}),
        ]
    ),
    *hostile_manifests("teacher"),
]


@pytest.mark.parametrize("change", offer(TEACHER))
def test_a_mutated_teacher_is_refused_or_is_the_same(
    change: Mutation, teachers: Subject, tmp_path: Path
) -> None:
    judge(teachers, change, tmp_path)


def load_student(folder: Path) -> Any:
    """Return all of a stored student."""
    trained = load_trained(folder)
    return {"state": trained.classifier.state_dict(), "names": trained.class_names, "size": trained.size}


@pytest.fixture(scope="session")
def students(condensed: Condensed, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("students")
    data, config = condensed.pipeline.training_set, condensed.config.student
    for name in ("one", "other"):
        (place / name).mkdir()
        save_student(build_student(data, config, 0), data, config, place / name)
    return Subject(place / "one", place / "other", load_student)


STUDENT = [
    *cuts("student.safetensors"),
    *(each for file in ("student.json", "student.safetensors") for each in misplaced(file)),
    *hostile_safetensors("student.safetensors"),
    *descriptions("student.json"),
]


@pytest.mark.parametrize("change", offer(STUDENT))
def test_a_mutated_student_is_refused_or_is_the_same(
    change: Mutation, students: Subject, tmp_path: Path
) -> None:
    judge(students, change, tmp_path)


BORROWED = {"resnet50": 4, "mobilenet-v2": 4, "vit-t": 6, "swin-t": 6}
OF_NETWORK = [
    (network, change)
    for network in BORROWED
    for change in (
        says("width-billion", "student.json", width=12 * 10**8),
        says("width-other", "student.json", width=2 * BORROWED[network]),
        says("width-zero", "student.json", width=0),
        says("width-null", "student.json", width=None),
        says("depth-billion", "student.json", depth=10**9),
        says("size-other", "student.json", size=96),
        says("size-large", "student.json", size=4096),
        says("channels-other", "student.json", channels=3),
        says("names-many", "student.json", class_names=[f"{n}" for n in range(100_000)]),
        says("network-other", "student.json", network="resnet18"),
        *hostile_safetensors("student.safetensors")[::4],
        mutation("not-a-number", "student.safetensors", poison),
    )
    # The weights of MobileNet-V2 do not tell the size of the images.
    if not (network == "mobilenet-v2" and "size-" in change.name)
]


@pytest.fixture(scope="session")
def borrowed(condensed: Condensed, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Subject]:
    place = tmp_path_factory.mktemp("borrowed")
    data, known = condensed.pipeline.training_set, condensed.config.student
    for network, width in BORROWED.items():
        config = replace(known, network=network, width=width)
        (place / network).mkdir()
        save_student(build_student(data, config, 0), data, config, place / network)
    return {
        network: Subject(place / network, place / network, load_student_and_classify) for network in BORROWED
    }


def load_student_and_classify(folder: Path) -> Any:
    """Return all of a stored student, and its logits: tables that are not stored show there."""
    trained = load_trained(folder)
    images = torch.linspace(0, 1, 64).reshape(1, 1, 8, 8)
    return [load_student(folder), trained.classifier(images) if trained.size == 8 else None]


@pytest.mark.parametrize(
    ("network", "change"),
    [
        pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}", marks=case.marks)
        for pair, case in zip(OF_NETWORK, offer([each for _, each in OF_NETWORK]), strict=True)
    ],
)
def test_a_mutated_student_of_another_network_is_refused_or_is_the_same(
    network: str, change: Mutation, borrowed: dict[str, Subject], tmp_path: Path
) -> None:
    judge(borrowed[network], change, tmp_path)


@pytest.fixture(scope="session")
def classifiers(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    place = tmp_path_factory.mktemp("classifiers")
    one = tiny.write_classifier(place / "one")
    other = tiny.write_classifier(place / "other", names=("a", "b", "c", "d"), kind="resnet")
    return Subject(one, other, load_imported)


CONFIG, WEIGHTS, PROCESSOR = "config.json", "model.safetensors", "preprocessor_config.json"
CODE = "raise SystemExit('code of the folder was run')\n"


def with_code(file: str, key: str) -> Mutation:
    """Let a file ask for code of the folder's, and put it there; the type is one that nobody knows."""

    def act(folder: Path, other: Path) -> None:
        (folder / "evil.py").write_text(CODE)
        edited("code", file, lambda data: data.update({"auto_map": {key: "evil.Evil"}})).act(folder, other)

    return mutation(f"{file}-code-{key}", (file, "evil"), act)


def with_code_alone(folder: Path, other: Path) -> None:
    with_code(CONFIG, "AutoConfig").act(folder, other)
    says("", CONFIG, model_type="evil").act(folder, other)


def pickled(folder: Path, other: Path) -> None:
    """Leave weights as pickle alone."""
    (folder / WEIGHTS).unlink()
    (folder / "pytorch_model.bin").write_bytes(boobytrap(folder))


def sharded(place: str) -> Mutation:
    """Let an index say that weights lie elsewhere."""

    def act(folder: Path, other: Path) -> None:
        import json

        (folder / WEIGHTS).rename(folder.parent / "elsewhere.safetensors")
        index = {"metadata": {}, "weight_map": {"classifier.bias": place, "classifier.weight": place}}
        (folder / f"{WEIGHTS}.index.json").write_text(json.dumps(index))

    return mutation(f"index-{place.replace('/', '_')[:20]}", ("index", place), act)


CLASSIFIER = [
    *cuts(CONFIG, (0.0, 0.5)),
    *cuts(WEIGHTS, (0.0, 0.5)),
    *(each for each in misplaced(CONFIG) if "pipe" not in each.name and "linked" not in each.name),
    misplaced(WEIGHTS)[0],
    swapped(CONFIG),
    swapped(WEIGHTS),
    *hostile_json(CONFIG),
    *(each for each in hostile_json(PROCESSOR) if "object" not in each.name or "deep" in each.name),
    *hostile_safetensors(WEIGHTS),
    with_code(CONFIG, "AutoConfig"),
    with_code(CONFIG, "AutoModelForImageClassification"),
    with_code(PROCESSOR, "AutoImageProcessor"),
    mutation("code-alone", CONFIG, with_code_alone),
    mutation("pickle-alone", WEIGHTS, pickled),
    sharded("../elsewhere.safetensors"),
    sharded("/etc/passwd"),
    added("adapter_config.json", b'{"peft_type": "LORA", "base_model_name_or_path": "../other"}'),
    says("layers-billion", CONFIG, num_hidden_layers=10**9),
    says("layers-negative", CONFIG, num_hidden_layers=-1),
    says("layers-text", CONFIG, num_hidden_layers="many"),
    says("width-billion", CONFIG, hidden_size=10**9),
    says("width-other", CONFIG, hidden_size=32),
    says("heads-zero", CONFIG, num_attention_heads=0),
    says("heads-other", CONFIG, num_attention_heads=5),
    says("image-million", CONFIG, image_size=10**6),
    says("patch-zero", CONFIG, patch_size=0),
    says("labels-billion", CONFIG, num_labels=10**9),
    says("labels-text", CONFIG, id2label="abc"),
    says("labels-gap", CONFIG, id2label={"0": "bar", "5": "dot", "7": "ring"}),
    says("labels-words", CONFIG, id2label={"zero": "bar"}),
    says("type-other", CONFIG, model_type="sam"),
    says("type-list", CONFIG, model_type=["vit"]),
    says("type-path", CONFIG, model_type="../../vit"),
    says("kernel", CONFIG, attn_implementation="evil/kernel"),
    says("quantised", CONFIG, quantization_config={"quant_method": "bitsandbytes", "load_in_8bit": True}),
    says("size-null", PROCESSOR, size=None),
    says("size-billion", PROCESSOR, size={"height": 10**9, "width": 10**9}),
    says("size-text", PROCESSOR, size={"height": "a", "width": "b"}),
    says("mean-text", PROCESSOR, image_mean="abc"),
    says("mean-many", PROCESSOR, image_mean=[0.5] * 1000),
    says("std-zero", PROCESSOR, image_std=[0.0, 0.0, 0.0]),
    says("resample-other", PROCESSOR, resample=77),
    says("type-code", PROCESSOR, image_processor_type="os.system"),
    says("type-list", PROCESSOR, image_processor_type=["ViTImageProcessor"]),
]


@pytest.mark.parametrize("change", offer(CLASSIFIER))
def test_a_mutated_classifier_is_refused_or_is_the_same(
    change: Mutation, classifiers: Subject, tmp_path: Path
) -> None:
    judge(classifiers, change, tmp_path)

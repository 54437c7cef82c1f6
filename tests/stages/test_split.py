"""Given folders are kept and missing splits carved by group; added images move no other image."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageOps

from tasks.errors import UserError
from tasks.params.split import NearCopies, Patients, Split
from tasks.quality.duplicates import perceptual_hash
from tasks.split import (
    SPLITS,
    SPLITS_COLUMNS,
    WITHHELD,
    assign,
    check_classes,
    fill_splits,
    find_patients,
    main,
)
from tasks.tables import read_table, write_table
from tests.support import draw

NO_COPIES = pd.DataFrame(columns=["path_a", "path_b", "kind", "correlation"])
PARAMS = Split(seed=1, validation=0.2, test=0.1)


def images(*paths: str) -> pd.DataFrame:
    """Return rows of different usable images, with subset and label from the path."""
    rows = [
        (
            path,
            path.split("/")[-3] if path.count("/") == 2 else "",
            path.split("/")[-2],
            f"sha of {path}",
        )
        for path in paths
    ]
    return pd.DataFrame(rows, columns=["path", "subset", "label", "sha256"])


def many(subset: str = "", count: int = 400, first: int = 0) -> list[str]:
    return [f"{subset}/cat/{number:05d}.png".lstrip("/") for number in range(first, first + count)]


def copies(*pairs: tuple[str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(*sorted(pair), "near", 0.99) for pair in pairs], columns=NO_COPIES.columns
    )


def parts(
    files: pd.DataFrame,
    found: pd.DataFrame = NO_COPIES,
    patients: Sequence[str] | None = None,
    params: Split = PARAMS,
) -> dict:
    splits = assign(files, found, [""] * len(files) if patients is None else patients, params)
    return dict(zip(splits.path, splits.split, strict=True))


def test_given_folders_are_kept() -> None:
    files = images(*many("training", 50), *many("validation", 9), *many("test", 7))
    assert parts(files) == dict(zip(files.path, files.subset, strict=True))


@pytest.mark.parametrize(
    ("given", "carved"),
    [
        ([""], {"test": 0.1, "validation": 0.2}),
        (["training", "test"], {"validation": 0.2}),
        (["training", "validation"], {"test": 0.1}),
    ],
)
def test_a_missing_part_is_carved_from_training_by_its_share(
    given: list[str], carved: dict[str, float]
) -> None:
    files = images(
        *(
            path
            for subset in given
            for path in many(subset, 200 if subset in ("validation", "test") else 1500)
        )
    )
    counts = (
        pd.Series(parts(files))
        .groupby(files.subset.replace("", "training").to_numpy())
        .value_counts()
    )
    for part, share in carved.items():
        assert counts["training"][part] == pytest.approx(1500 * share, rel=0.2)
    assert set(counts["training"].index) == {"training", *carved}
    assert all(
        counts[subset].to_dict() == {subset: 200}
        for subset in given
        if subset not in ("", "training")
    )


def test_nothing_is_carved_with_a_share_of_zero() -> None:
    assert set(parts(images(*many()), params=Split(validation=0, test=0)).values()) == {"training"}


def test_the_seed_decides() -> None:
    files = images(*many())
    assert parts(files) == parts(files)
    assert parts(files) != parts(files, params=Split(seed=2, validation=0.2, test=0.1))


def test_the_order_of_the_rows_does_not_matter() -> None:
    files = images(*many())
    found = copies(
        *((f"cat/{number:05d}.png", f"cat/{number + 200:05d}.png") for number in range(200))
    )
    assert parts(files.sample(frac=1, random_state=0), found) == parts(files, found)


@pytest.mark.parametrize("policy", ["withhold", "keep"])
def test_a_carved_group_stays_together(policy: str) -> None:
    files = images(*many())
    found = copies(
        *((f"cat/{number:05d}.png", f"cat/{number + 200:05d}.png") for number in range(200))
    )
    assigned = parts(files, found, params=PARAMS.model_copy(update={"copies": policy}))
    assert all(assigned[pair.path_a] == assigned[pair.path_b] for pair in found.itertuples())
    assert set(assigned.values()) == set(SPLITS)


def test_copies_of_later_parts_are_withheld() -> None:
    training, validation, test = many("training", 5), many("validation", 5), many("test", 5)
    found = copies(
        (training[0], test[0]),
        (training[1], validation[1]),
        (validation[2], test[2]),
        (training[3], training[4]),
    )
    expected = (
        dict.fromkeys(training, "training")
        | dict.fromkeys(validation, "validation")
        | dict.fromkeys(test, "test")
    )
    expected |= {training[0]: WITHHELD, training[1]: WITHHELD, validation[2]: WITHHELD}
    assert parts(images(*training, *validation, *test), found) == expected


def test_copies_are_kept_where_params_say_so() -> None:
    training, validation, test = many("training", 5), many("validation", 5), many("test", 5)
    files = images(*training, *validation, *test)
    found = copies((training[0], test[0]), (training[1], validation[1]))
    assert parts(files, found, params=PARAMS.model_copy(update={"copies": "keep"})) == dict(
        zip(files.path, files.subset, strict=True)
    )


def test_identical_copies_alone_are_withheld_where_params_say_so() -> None:
    """A near copy of a test image is carved like any image; a carved group stays together."""
    training, test = many("training", 300), many("test", 300)
    files = images(*training, *test)
    files.loc[files.path.isin([training[0], test[0]]), "sha256"] = "the same bytes"
    near = copies(
        *zip(training, test, strict=True), *zip(training[10:20], training[20:30], strict=True)
    )
    assigned = parts(files, near, params=PARAMS.model_copy(update={"copies": "withhold_identical"}))
    assert [path for path in training if assigned[path] == WITHHELD] == [training[0]]
    assert {assigned[path] for path in training[1:]} == {"training", "validation"}
    assert {assigned[path] for path in test} == {"test"}
    assert all(
        assigned[one] == assigned[other]
        for one, other in zip(training[10:20], training[20:30], strict=True)
    )


def test_a_training_copy_of_a_test_image_is_withheld_where_validation_is_carved() -> None:
    files = images(*many("training", 300), *many("test", 300))
    found = copies(*(pair for pair in zip(many("training", 300), many("test", 300), strict=True)))
    assigned = parts(files, found)
    assert {assigned[path] for path in many("training", 300)} == {WITHHELD}
    assert {assigned[path] for path in many("test", 300)} == {"test"}


def test_images_of_a_patient_share_a_part() -> None:
    paths = many(count=600)
    patients = [f"patient {number % 60}" if number < 480 else "" for number in range(600)]
    assigned = pd.Series(parts(images(*paths), patients=patients)).groupby(patients).nunique()
    assert (assigned.drop("") == 1).all()
    assert assigned[""] == 3


def test_a_patient_on_both_sides_of_given_folders_is_withheld_from_training() -> None:
    files = images(
        "training/cat/a.png", "training/cat/b.png", "test/cat/c.png", "validation/cat/d.png"
    )
    assert parts(files, patients=["1", "2", "1", "3"]) == {
        "training/cat/a.png": WITHHELD, "training/cat/b.png": "training", "test/cat/c.png": "test",
        "validation/cat/d.png": "validation",
    }  # fmt: skip


def test_patients_and_copies_join_into_one_group() -> None:
    """A copy links two patients, so all their images stay together."""
    paths = many(count=40)
    splits = assign(images(*paths), copies((paths[3], paths[25])), ["1"] * 20 + ["2"] * 20, PARAMS)
    assert splits.split.nunique() == 1 and set(splits.group) == {paths[0]}


@pytest.mark.parametrize("seed", range(3))  # each kind of given folders once
def test_no_group_is_in_two_splits(seed: int) -> None:
    """Images of different splits share no group, with random folders, copies and patients."""
    rng = np.random.default_rng(seed)
    subsets = [("",), ("training", "test"), ("training", "validation", "test")][seed % 3]
    paths = [
        f"{rng.choice(subsets)}/{rng.choice(['cat', 'dog'])}/{number:04d}.png".lstrip("/")
        for number in range(300)
    ]
    files, found = (
        images(*paths),
        copies(*(tuple(rng.choice(paths, 2, replace=False)) for _ in range(60))),
    )
    patients = [f"{rng.integers(80)}" if rng.random() < 0.3 else "" for _ in paths]
    splits = assign(files, found, patients, PARAMS).set_index("path")
    used = splits[splits.split != WITHHELD]
    assert (used.groupby("group").split.nunique() == 1).all()
    known = [
        (one, other)
        for one, other in zip(found.path_a, found.path_b, strict=True)
        if {one, other} <= set(used.index)
    ]
    assert all(used.split[one] == used.split[other] for one, other in known)
    of_patients = used.assign(patient=pd.Series(patients, paths)).query("patient != ''")
    assert (of_patients.groupby("patient").split.nunique() == 1).all()


@pytest.mark.parametrize("seed", range(4))
def test_added_images_move_nobody(seed: int) -> None:
    """New images sort last; each is unrelated, a copy of an old image, or of an old patient."""
    rng = np.random.default_rng(seed)
    old = many(count=150)
    new = [f"zebra/{number:05d}.png" for number in range(rng.integers(1, 100))]
    between = copies(*zip(rng.choice(old, 10), rng.choice(old, 10), strict=True))
    patients = [f"{rng.integers(50)}" if seed % 2 else "" for _ in old]
    before = parts(images(*old), between, patients)
    kinds, originals = (
        rng.choice(["stranger", "copy", "patient"], len(new)),
        rng.integers(len(old), size=len(new)),
    )
    added = copies(
        *(
            (old[number], path)
            for kind, number, path in zip(kinds, originals, new, strict=True)
            if kind == "copy"
        )
    )
    of_new = [
        patients[number] if kind == "patient" else ""
        for kind, number in zip(kinds, originals, strict=True)
    ]
    after = parts(images(*old, *new), pd.concat([between, added]), [*patients, *of_new])
    assert {path: after[path] for path in old} == before
    assert all(after[pair.path_b] == before[pair.path_a] for pair in added.itertuples())


def test_an_image_that_joins_two_groups_takes_both_to_the_part_of_the_first() -> None:
    """The module states this exception: otherwise the group would be in two splits."""
    before = parts(images(*many()))
    one = next(path for path in before if before[path] == "training")
    other = next(path for path in before if before[path] == "test" and path > one)
    after = parts(
        images(*many(), "zebra/0.png"), copies((one, "zebra/0.png"), (other, "zebra/0.png"))
    )
    assert {path for path in before if after[path] != before[path]} == {other}
    assert after[other] == after["zebra/0.png"] == "training"


def test_images_added_anywhere_move_nobody_unless_they_copy() -> None:
    before = parts(images(*many(first=200)))
    after = parts(images(*many(), *many(first=200), "ant/0.png", "cat/00300b.png"))
    assert {path: after[path] for path in before} == before


def test_a_renamed_image_keeps_its_part() -> None:
    files = images(*many())
    renamed = files.assign(path=files.path.str.replace("cat/", "cat/new_name_"))
    assert list(parts(renamed).values()) == list(parts(files).values())


@pytest.mark.parametrize(
    ("path", "patient"),
    [
        ("Training/cat/p017_slice3.png", "017"),
        ("Training/cat/p18_slice1.png", "18"),
        ("Training/cat/unknown.png", ""),
    ],
)
def test_patients_by_a_pattern(path: str, patient: str) -> None:
    found = find_patients(
        ["Training/cat/p1_.png", path], Patients(pattern=r"/p(\d+)_", missing="single"), Path()
    )
    assert found == ["1", patient]


@pytest.mark.parametrize("source", [{"pattern": r"([a-d])\.png"}, {"table": "patients.csv"}])
def test_images_without_a_patient_are_refused_unless_each_is_to_be_a_patient_of_its_own(
    tmp_path: Path, source: dict
) -> None:
    (tmp_path / "patients.csv").write_text(
        "path,patient\n" + "".join(f"cat/{name}.png,{name}\n" for name in "abcd") + "cat/e.png,\n"
    )
    paths = [f"cat/{name}.png" for name in "abcdefgh"]
    expected = (
        r"gives no patient for 4 of 8 images: cat/e.png, cat/f.png, cat/g.png, …\. Expected one "
        ".* write `missing: single`"
    )
    with pytest.raises(UserError, match=expected):
        find_patients(paths, Patients(**source), tmp_path)
    assert find_patients(paths, Patients(**source, missing="single"), tmp_path) == [
        *"abcd",
        "",
        "",
        "",
        "",
    ]


def test_a_table_of_patients_may_come_from_windows(tmp_path: Path) -> None:
    rows = [
        "Path;PATIENT;distance",
        r"cat\a.png;007;near",
        r".\cat\b.png; NA ;n/a",
        "",
        r"cat\a.png;007;near",
    ]
    (tmp_path / "patients.csv").write_bytes("\r\n".join(rows).encode("utf-8-sig"))
    assert find_patients(["cat/b.png", "cat/a.png"], Patients(table="patients.csv"), tmp_path) == [
        "NA",
        "007",
    ]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pattern": "(p"}, "split.patients.pattern: '(p' is not a regular expression"),
        ({"pattern": "p"}, "has 0 groups, expected one around the patient"),
        ({"pattern": "(p)(q)"}, "has 2 groups, expected one around the patient"),
        (
            {"pattern": "(patient)", "missing": "single"},
            "gives no patient for 1 of 1 images: cat/a.png.",
        ),
        (
            {"table": "gone.csv"},
            "gone.csv is missing, expected a CSV file with columns path and patient",
        ),
        (
            {"table": "other.csv"},
            "other.csv, line 1: expected the columns path, patient, each once; "
            "received file, patient",
        ),
        ({"table": "strangers.csv"}, "gives no patient for 1 of 1 images: cat/a.png. Expected"),
        ({"table": "strangers.csv"}, "The table names, for example, dog/a.png"),
        ({"table": "two.csv"}, "gives cat/a.png two patients, expected one"),
    ],
)
def test_patients_that_cannot_be_found(tmp_path: Path, params: dict, message: str) -> None:
    (tmp_path / "other.csv").write_text("file,patient\ncat/a.png,1\n")
    (tmp_path / "strangers.csv").write_text("path,patient\ndog/a.png,1\n")
    (tmp_path / "two.csv").write_text("path,patient\ncat/a.png,1\ncat/a.png,2\n")
    with pytest.raises(UserError) as caught:
        find_patients(["cat/a.png"], Patients(**params), tmp_path)
    assert message in str(caught.value)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("subsets", [("",), ("training", "test")])
def test_each_part_has_images_of_each_class_however_small(
    seed: int, subsets: Sequence[str]
) -> None:
    paths = [
        f"{subset}/class {label}/{n}.png".lstrip("/")
        for subset in subsets
        for label in range(6)
        for n in range(5)
    ]
    found = copies(
        *((path, path.replace("/0.png", "/1.png")) for path in paths if path.endswith("/0.png"))
    )  # four groups a class
    splits = assign(images(*paths), found, [""] * len(paths), Split(seed=seed))
    check_classes(splits)
    assert (splits.groupby("group").split.nunique() == 1).all()


def test_a_split_that_lacks_nothing_stays_as_drawn_and_new_images_bring_moved_groups_back() -> None:
    few, more = (
        [f"class {label}/{number}.png" for label in range(6) for number in range(count)]
        for count in (8, 100)
    )
    drawn, before = (
        pd.Series(parts(images(*paths), params=Split(seed=1))) for paths in (more, few)
    )
    assert 0 < (before != drawn[before.index]).sum() <= 2 * 6
    table = pd.DataFrame(
        {
            "split": drawn,
            "label": drawn.index.str[:7],
            "group": drawn.index,
            "key": "",
            "movable": True,
        }
    )
    assert fill_splits(table, SPLITS, 1) == {}


def test_a_group_moves_only_where_all_its_classes_keep_another() -> None:
    rows = [("cat", "a"), ("dog", "a"), ("cat", "b"), ("dog", "c")]  # only `a` has both
    table = pd.DataFrame(rows, columns=["label", "group"]).assign(
        split="training", key="the same", movable=True
    )
    assert fill_splits(table, ["test"], 1) == {"a": "test"}
    assert fill_splits(table[table.group == "a"], ["test"], 1) == {}
    assert fill_splits(table[table.group != "b"], ["test"], 1) == {
        "c": "test"
    }  # no other cat would be left


def test_every_class_that_lacks_a_part_is_named() -> None:
    rows = [("cat", part) for part in SPLITS] + [
        ("dog", "training"),
        ("dog", WITHHELD),
        ("emu", "test"),
        ("emu", "validation"),
    ]
    with pytest.raises(UserError) as caught:
        check_classes(pd.DataFrame(rows, columns=["label", "split"]))
    message = str(caught.value)
    assert (
        "dog has no test image; dog has no validation image; emu has no training image" in message
    )
    assert "cat" not in message and "If split.validation or split.test is 0" in message
    check_classes(pd.DataFrame(rows[:3], columns=["label", "split"]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Draw two classes with 12 training and 6 test images, and three copies of a test image."""
    monkeypatch.chdir(tmp_path)
    labels = ("glioma_tumor", "no_tumor")
    draw.draw_set(
        tmp_path / "clean",
        {"Training": dict.fromkeys(labels, 12), "Testing": dict.fromkeys(labels, 6)},
    )
    tested = tmp_path / "clean/Testing/no_tumor/no_tumor_0002.jpg"
    shutil.copyfile(tested, tmp_path / "clean/Training/no_tumor/exact.jpg")
    with Image.open(tested) as image:
        ImageOps.mirror(image).save(tmp_path / "clean/Training/no_tumor/mirrored.jpg", quality=70)
        image.resize((100, 100)).save(
            tmp_path / "clean/Training/glioma_tumor/near_in_another_class.jpg", quality=90
        )
    return tmp_path


def split(folder: Path, section: str) -> tuple[pd.DataFrame, dict]:
    rows = []
    for path in sorted((folder / "clean").rglob("*.jpg")):
        subset, label, _ = path.relative_to(folder / "clean").parts
        with Image.open(path) as image:
            rows.append(
                (
                    path.relative_to(folder / "clean").as_posix(),
                    subset,
                    label,
                    "usable",
                    sha256(path),
                    perceptual_hash(image),
                )
            )
    files = pd.DataFrame(rows, columns=["path", "subset", "label", "status", "sha256", "hash"])
    files["subset"] = files.subset.map({"Training": "training", "Testing": "test"})
    broken = files.tail(1).assign(
        path="Training/no_tumor/broken.jpg", status="rejected", sha256="x", hash=""
    )
    write_table(pd.concat([files, broken]), folder / "files.csv")
    (folder / "params.yaml").write_text(f"split: {section}\narchitectures: {{cnn_a: {{}}}}\n")
    main(Path("raw"), Path("clean"), Path("files.csv"), Path("splits.csv"), Path("split.json"))
    return read_table(Path("splits.csv")), json.loads(Path("split.json").read_text())


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_copies_are_found_withheld_counted_and_listed(folder: Path) -> None:
    """A second run writes the same bytes."""
    splits, summary = split(folder, "{seed: 3, validation: 0.3}")
    planted = [
        "Training/glioma_tumor/near_in_another_class.jpg",
        "Training/no_tumor/exact.jpg",
        "Training/no_tumor/mirrored.jpg",
    ]
    assert summary["withheld"] == sorted(splits.path[splits.split == WITHHELD]) == planted
    assert (
        summary["exact_groups"]
        == summary["exact_surplus"]
        == summary["exact_groups_across_parts"]
        == 1
    )
    assert (
        summary["pairs"]["exact"] == 1
        and summary["pairs"]["mirrored"] >= 1
        and summary["pairs"]["near"] >= 1
    )
    assert summary["groups"] == 1
    assert {"Testing/no_tumor/no_tumor_0002.jpg", planted[0]} in [
        {pair["path_a"], pair["path_b"]} for pair in summary["label_conflicts"]
    ]
    assert set(splits.group[splits.path.isin(planted)]) == {"Testing/no_tumor/no_tumor_0002.jpg"}
    assert {
        part: sum(counts.values()) for part, counts in summary["images"].items()
    } == splits.split.value_counts().to_dict()
    assert "Training/no_tumor/broken.jpg" not in set(splits.path)
    first = [(folder / name).read_bytes() for name in ("splits.csv", "split.json")]
    split(folder, "{seed: 3, validation: 0.3}")
    assert [(folder / name).read_bytes() for name in ("splits.csv", "split.json")] == first


@pytest.mark.slow
def test_copies_that_are_kept_are_still_told(folder: Path) -> None:
    splits, summary = split(folder, "{seed: 3, validation: 0.3, copies: keep}")
    assert summary["withheld"] == [] and summary["pairs"]["exact"] == 1
    given = splits.path.str.startswith("Testing/")
    assert set(splits.split[given]) == {"test"} and set(splits.split[~given]) == {
        "training",
        "validation",
    }


@pytest.mark.slow
def test_the_thresholds_of_params_are_used(folder: Path) -> None:
    _, summary = split(
        folder, "{seed: 3, validation: 0.3, near_copies: {hash_distance: 0, correlation: 1}}"
    )
    assert summary["withheld"] == ["Training/no_tumor/exact.jpg"]
    assert NearCopies().correlation < 1


@pytest.mark.slow
def test_the_stage_stops_when_a_class_lacks_a_part(folder: Path) -> None:
    with pytest.raises(
        UserError, match="glioma_tumor has no validation image; no_tumor has no validation image"
    ):
        split(folder, "{validation: 0}")


def test_the_pipeline_withheld_the_copy_of_a_test_image(pipeline: Path) -> None:
    splits = read_table(pipeline / "data/splits.csv").set_index("path")
    assert splits.split["Training/01/copy_of_a_test_image.jpg"] == WITHHELD
    assert (
        splits.split["Training/01/again.jpg"]
        == splits.split["Training/01/glioma_tumor_0000.jpg"]
        != WITHHELD
    )
    assert ["path", *splits.columns] == list(SPLITS_COLUMNS)

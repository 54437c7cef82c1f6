"""A question assigns each class folder to a class, or reports why it does not fit the folders."""

import pytest

from tasks.errors import UserError
from tasks.params.questions import ALL_CLASSES, Question

TUMORS = ["glioma", "meningioma", "no_tumor", "pituitary"]
PHOTOS = ["paintings", "photos", "sketches"]
TUMOR = Question(labels={"tumor": ("glioma", "meningioma", "pituitary"), "no_tumor": ("no_tumor",)})
PHOTO = Question(positive="photos")


def test_all_classes() -> None:
    question = Question()
    assert question.name == ALL_CLASSES
    assert question.map_folders(reversed(PHOTOS)) == {folder: folder for folder in PHOTOS}
    assert question.classes(reversed(PHOTOS)) == PHOTOS


def test_one_against_the_rest_has_the_rest_first() -> None:
    assert PHOTO.name == "photos or not"
    assert PHOTO.map_folders(PHOTOS) == {
        "paintings": "not_photos",
        "photos": "photos",
        "sketches": "not_photos",
    }
    assert PHOTO.classes(PHOTOS) == ["not_photos", "photos"]
    assert Question(positive="a").classes(["a", "b"]) == ["not_a", "a"]


def test_groups_are_in_alphabetical_order() -> None:
    assert TUMOR.name == "no_tumor, tumor"
    assert TUMOR.map_folders(TUMORS) == {
        "glioma": "tumor",
        "meningioma": "tumor",
        "no_tumor": "no_tumor",
        "pituitary": "tumor",
    }
    assert TUMOR.classes(TUMORS) == ["no_tumor", "tumor"]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            {"positive": "photo"},
            [
                "positive: received 'photo'; did you mean photos? "
                "expected one of not_a, paintings, photos"
            ],
        ),
        (
            {"labels": {"real": ["photos"], "drawn": ["painting", "photos"]}},
            [
                "labels: the folder 'photos' is listed twice; list it under one class",
                "labels: received 'painting'; did you mean paintings? "
                "expected one of not_a, paintings, photos",
                "labels: the folder 'not_a' belongs to no class; add it to one of real, drawn",
                "labels: the folder 'paintings' belongs to no class; add it to one of real, drawn",
            ],
        ),
    ],
)
def test_all_problems_are_reported_at_once(question: dict, expected: list[str]) -> None:
    asked = Question(**question)
    assert asked.find_problems(["photos", "paintings", "not_a"]) == expected
    for call in (asked.map_folders, asked.classes):
        with pytest.raises(UserError) as caught:
            call(["photos", "paintings", "not_a"])
        assert str(caught.value) == "; ".join(expected)


def test_a_folder_may_not_have_the_name_of_the_rest() -> None:
    (problem,) = Question(positive="a").find_problems(["a", "b", "not_a"])
    assert "form the class 'not_a', and a folder has that name already" in problem


def test_all_classes_are_finer_than_every_question() -> None:
    everything = Question()
    assert everything.coarsen(TUMOR, TUMORS) == TUMOR.map_folders(TUMORS)
    assert everything.coarsen(PHOTO, PHOTOS) == PHOTO.map_folders(PHOTOS)
    assert TUMOR.coarsen(everything, TUMORS) is None


def test_groups_are_coarsened_where_they_nest() -> None:
    fine = Question(labels={"x": ("a", "b"), "y": ("c",), "z": ("d",)})
    coarse = Question(labels={"p": ("a", "b", "c"), "q": ("d",)})
    across = Question(labels={"p": ("a", "c"), "q": ("b", "d")})
    assert fine.coarsen(coarse, "abcd") == {"x": "p", "y": "p", "z": "q"}
    assert coarse.coarsen(fine, "abcd") is None
    assert fine.coarsen(across, "abcd") is None and across.coarsen(coarse, "abcd") is None


def test_one_against_the_rest_is_a_question_of_groups_too() -> None:
    groups = Question(labels={"real": ("photos",), "drawn": ("paintings", "sketches")})
    assert PHOTO.coarsen(groups, PHOTOS) == {"not_photos": "drawn", "photos": "real"}
    assert groups.coarsen(PHOTO, PHOTOS) == {"drawn": "not_photos", "real": "photos"}
    assert PHOTO.coarsen(PHOTO, PHOTOS) == {"not_photos": "not_photos", "photos": "photos"}
    assert PHOTO.coarsen(Question(positive="sketches"), PHOTOS) is None

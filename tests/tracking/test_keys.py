"""MLflow accepts the key of every name, plain names stay as they are, and no two share a key."""

from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.utils import validation

from tasks.tracking.keys import make_key
from tests.support.names import names, quick

KINDS = ["", "test_recall_", "questions.labels."]
LOOKALIKES = st.text("_x28() ./f:", min_size=1, max_size=8)  # the characters of escapes


@quick
@given(st.sampled_from(KINDS), names() | LOOKALIKES)
def test_mlflow_takes_every_key(kind: str, name: str) -> None:
    key = make_key(kind + name)
    validation._validate_metric_name(key)
    validation._validate_param(key, "1")
    validation._validate_model_version_tag(key, "1")
    assert 0 < len(key) <= validation.MAX_ENTITY_KEY_LENGTH and "\n" not in key


@quick
@given(st.lists(names() | LOOKALIKES, max_size=30, unique=True))
@example(["(x28_f", "_x28(f", "_x28_x28_f"])
@example(["a(b", "a[b", "a_b", "a_x28_b"])
@example(["y" * 250 + "1", "y" * 250 + "2"])
def test_two_names_never_share_a_key(several: list[str]) -> None:
    assert len({make_key(name) for name in several}) == len(several)


def test_a_name_like_the_key_of_a_long_name_gets_another_key() -> None:
    key = make_key("y" * 300)
    assert len(key) == 250 and make_key(key) != key and make_key(key[-40:]) != key[-40:]


def test_plain_names_are_their_own_keys_and_escapes_show_the_character() -> None:
    for name in (
        "test_recall_no_tumor",
        "test_recall_tumeur née",
        "val_recall_肿瘤",
        "a.b/c-d e",
        "img_x1",
    ):
        assert make_key(name) == name
    assert make_key("Corn_(maize)___healthy") == "Corn__x28_maize_x29____healthy"
    assert make_key("..") == "_x2e__x2e_" and make_key("_x28_") == "_x5f_x28_"

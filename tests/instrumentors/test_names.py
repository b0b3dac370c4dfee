"""Where the name and version of a model come from."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xgboost
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from otel_mlmon import Profile, semconv
from otel_mlmon.instrumentors import base
from otel_mlmon.profile.document import ATTRIBUTE

rng = np.random.default_rng(8)
X = rng.normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)
ROWS = {"x0": 5, "x1": 5, "x2": 5}


def profile(model: str, version: str = "1") -> Profile:
    return Profile.build(X, model=model, version=version)


def warnings_of(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("otel_mlmon")]


@pytest.fixture
def model():
    return LogisticRegression().fit(X, Y)


@pytest.fixture
def environment(monkeypatch):
    def put(**names: str) -> None:
        for name, value in names.items():
            monkeypatch.setenv(f"OTEL_MLMON_{name}", value)

    return put


def hashes(seen) -> set[str | None]:
    return {attributes.get(semconv.ML_REFERENCE_HASH) for attributes, _ in seen.points(semconv.METRIC_ML_FEATURE_COUNT)}


def test_the_class_gives_the_name_where_nothing_else_does(serving, model):
    with serving() as seen:
        model.predict(X[:5])
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y).predict(X)
    assert seen.models == {("LogisticRegression", ""), ("Pipeline", "")}
    assert hashes(seen) == {None}


def test_the_environment_goes_before_the_class(serving, model, environment):
    environment(MODEL_NAME="flights", MODEL_VERSION="12")
    with serving() as seen:
        model.predict(X[:5])
    assert seen.models == {("flights", "12")}


def test_the_profile_of_the_environment_goes_before_its_names(serving, model, environment, tmp_path):
    known = profile("of the file", "3")
    known.save(tmp_path / "p.json")
    environment(PROFILE=str(tmp_path / "p.json"), MODEL_NAME="flights", MODEL_VERSION="12")
    with serving() as seen:
        model.predict(X[:5])
    assert seen.models == {("of the file", "3")}
    assert hashes(seen) == {known.hash}


def test_the_attached_profile_goes_before_all(serving, model, environment, tmp_path):
    profile("of the file").save(tmp_path / "p.json")
    environment(PROFILE=str(tmp_path / "p.json"), MODEL_NAME="flights", MODEL_VERSION="12")
    known = profile("attached", "9")
    known.attach(model)
    model = pickle.loads(pickle.dumps(model))
    with serving() as seen:
        model.predict(X[:5])
    assert seen.models == {("attached", "9")}
    assert hashes(seen) == {known.hash}


def test_models_with_profiles_of_their_own_are_counted_apart(serving):
    models = [LogisticRegression().fit(X, Y) for _ in range(3)]
    profile("one").attach(models[0])
    profile("two").attach(models[1])
    profile("two", "2").attach(models[2])
    with serving() as seen:
        for number, model in enumerate(models):
            model.predict(X[: number + 1])
    counted = {
        (a[semconv.ML_MODEL_NAME], a[semconv.ML_MODEL_VERSION]): n
        for a, n in seen.points(semconv.METRIC_ML_FEATURE_COUNT)
        if a[semconv.ML_FEATURE_NAME] == "x1"
    }
    assert counted == {("one", "1"): 1, ("two", "1"): 2, ("two", "2"): 3}


@pytest.mark.parametrize(
    "fit",
    [
        lambda: LogisticRegression().fit(X, Y),
        lambda: xgboost.XGBClassifier(n_estimators=2).fit(X, Y),
        lambda: xgboost.train({}, xgboost.DMatrix(X, Y), num_boost_round=2),
    ],
    ids=["sklearn", "xgboost", "booster"],
)
def test_a_profile_attached_or_changed_after_the_first_prediction_is_used(serving, fit):
    model = fit()
    rows = xgboost.DMatrix(X[:5]) if isinstance(model, xgboost.Booster) else X[:5]
    with serving() as seen:
        model.predict(rows)
        profile("late").attach(model)
        model.predict(rows)
        model.predict(rows)
        profile("later").attach(model)
        model.predict(rows)
    assert seen.models == {(type(model).__name__, ""), ("late", "1"), ("later", "1")}
    assert seen.features("late") == dict.fromkeys(ROWS, 10)
    assert seen.features("later") == ROWS


def test_a_profile_in_a_saved_booster_is_found(serving, tmp_path):
    booster = xgboost.train({}, xgboost.DMatrix(X, Y), num_boost_round=2)
    profile("saved").attach(booster)
    booster.save_model(tmp_path / "model.ubj")
    with serving() as seen:
        xgboost.Booster(model_file=tmp_path / "model.ubj").predict(xgboost.DMatrix(X[:5]))
        loaded = xgboost.XGBRegressor()
        loaded.load_model(tmp_path / "model.ubj")
        loaded.predict(X[:5])
    assert seen.models == {("saved", "1")}
    assert seen.features() == dict.fromkeys(ROWS, 10)


@pytest.mark.parametrize("text", ["{", "not json", '{"version": 99}', "null", ""])
def test_a_broken_attached_profile_is_told_of_once_and_gone_without(serving, model, environment, caplog, text):
    environment(MODEL_NAME="flights")
    setattr(model, ATTRIBUTE, text)
    with serving() as seen:
        for _ in range(3):
            model.predict(X[:5])
    assert seen.models == {("flights", "")}
    assert seen.features() == dict.fromkeys(ROWS, 15)
    assert ["the profile of a LogisticRegression cannot be used" in line for line in warnings_of(caplog)] == [True]


def test_an_attribute_that_is_no_text_is_not_a_profile(serving, model):
    setattr(model, ATTRIBUTE, object())
    with serving() as seen:
        model.predict(X[:5])
    assert seen.models == {("LogisticRegression", "")}


@pytest.mark.parametrize("kind", ["missing", "broken", "a folder", "endless"])
def test_a_profile_of_the_environment_that_cannot_be_read_is_told_of_once_and_gone_without(
    serving, environment, caplog, tmp_path, kind
):
    path = Path("/dev/zero") if kind == "endless" else tmp_path / "p.json"
    if kind == "broken":
        path.write_text("{")
    elif kind == "a folder":
        path.mkdir()
    environment(PROFILE=str(path), MODEL_NAME="flights", MODEL_VERSION="2")
    models = [LogisticRegression().fit(X, Y) for _ in range(3)]
    with serving() as seen:
        for model in models:
            model.predict(X[:5])
    assert seen.models == {("flights", "2")}
    assert seen.features() == dict.fromkeys(ROWS, 15)
    assert len(warnings_of(caplog)) == 1


def test_models_beyond_the_limit_are_left_alone_and_told_of_once(serving, monkeypatch, caplog):
    monkeypatch.setattr(base, "MAX_MODELS", 4)
    models = [LogisticRegression().fit(X, Y) for _ in range(7)]
    for number, model in enumerate(models):
        profile(f"m{number}").attach(model)
    with serving() as seen:
        for model in (*models, *models):
            model.predict(X[:5])
    assert seen.models == {(f"m{number}", "1") for number in range(4)}
    assert len(warnings_of(caplog)) == 1

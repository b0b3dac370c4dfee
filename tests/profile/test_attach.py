"""A profile travels with the model, as text."""

import io
import pickle
import pickletools
import subprocess
import sys
from unittest.mock import MagicMock

import joblib
import numpy as np
import pytest
import xgboost
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from otel_mlmon.profile import Profile, ProfileError

rng = np.random.default_rng(1)
X = rng.normal(size=(200, 3))
y = (X[:, 0] > 0).astype(int)


@pytest.fixture(scope="module")
def profile():
    return Profile.build(X, model="m", version="1")


MODELS = {
    "estimator": lambda: LogisticRegression().fit(X, y),
    "unfitted": LogisticRegression,
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=2).fit(X, y),
    "xgboost unfitted": xgboost.XGBClassifier,
    "booster": lambda: xgboost.train({}, xgboost.DMatrix(X, y), num_boost_round=2),
    "own": type("Own", (), {}),
}


@pytest.mark.parametrize("name", MODELS)
def test_attached_is_found_again(profile, name):
    model = MODELS[name]()
    assert Profile.attached(model) is None
    profile.attach(model)
    assert Profile.attached(model) == profile


@pytest.mark.parametrize("name", [name for name in MODELS if name != "own"])
def test_it_travels_through_pickle_and_joblib(profile, name, tmp_path):
    model = MODELS[name]()
    profile.attach(model)
    assert Profile.attached(pickle.loads(pickle.dumps(model))) == profile
    joblib.dump(model, tmp_path / "model.joblib")
    assert Profile.attached(joblib.load(tmp_path / "model.joblib")) == profile


def test_a_pickle_names_none_of_our_classes(profile):
    model = LogisticRegression()
    profile.attach(model)
    text = io.StringIO()
    pickletools.dis(pickle.dumps(model), out=text)
    modules = [line for line in text.getvalue().splitlines() if "GLOBAL" in line or "SHORT_BINUNICODE" in line]
    assert not any("otel_mlmon." in line for line in modules)


def test_a_model_with_a_profile_loads_where_otel_mlmon_is_not(profile, tmp_path):
    model = LogisticRegression().fit(X, y)
    profile.attach(model)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    script = (
        "import pickle, sys; sys.modules['otel_mlmon'] = None\n"
        "model = pickle.load(open('model.pkl', 'rb')); print(len(model.predict([[0, 0, 0]])))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1\n"


@pytest.mark.parametrize("kind", ["xgboost", "booster"])
def test_a_saved_xgboost_model_keeps_it(profile, kind, tmp_path):
    model = MODELS[kind]()
    profile.attach(model)
    model.save_model(tmp_path / "model.ubj")
    again = xgboost.Booster(model_file=tmp_path / "model.ubj")
    assert Profile.attached(again) == profile


def test_a_clone_is_without_it(profile):
    model = LogisticRegression()
    profile.attach(model)
    assert Profile.attached(clone(model)) is None


def test_attaching_does_not_change_what_sklearn_sees(profile):
    model = LogisticRegression()
    before = (
        model.get_params(),
        repr(model),
        model.__sklearn_is_fitted__() if hasattr(model, "__sklearn_is_fitted__") else 0,
    )
    profile.attach(model)
    after = (
        model.get_params(),
        repr(model),
        model.__sklearn_is_fitted__() if hasattr(model, "__sklearn_is_fitted__") else 0,
    )
    assert before == after
    with pytest.raises(Exception, match="not fitted"):
        model.predict(X)


def test_what_takes_no_attributes_says_so(profile):
    with pytest.raises(TypeError, match="cannot be attached to tuple"):
        profile.attach((1, 2))


def test_mocks_and_proxies_have_none():
    assert Profile.attached(MagicMock()) is None
    assert Profile.attached(3) is None


def test_a_broken_attachment_is_refused():
    model = LogisticRegression()
    model.otel_mlmon_profile = "{}"
    with pytest.raises(ProfileError, match="format"):
        Profile.attached(model)

"""What is recorded of XGBoost models that serve."""

import math
import re
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import xgboost
from scipy.sparse import csr_matrix
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from otel_mlmon import Profile, semconv
from otel_mlmon.instrumentors.sklearn import SklearnInstrumentor
from otel_mlmon.instrumentors.xgboost import XGBoostInstrumentor

rng = np.random.default_rng(4)
NAMES = ["a", "b", "c"]
X = rng.normal(size=(120, 3)).astype(np.float32)
TWO = (X[:, 0] > 0).astype(int)
THREE = np.digitize(X[:, 0], [-0.5, 0.5])
NUMBER = X @ [1.0, -2.0, 0.5]
TAGS = np.column_stack([TWO, X[:, 1] > 0]).astype(int)
NEW = rng.normal(size=(31, 3)).astype(np.float32)
FRAME = pd.DataFrame(NEW, columns=NAMES)
COUNTS = dict.fromkeys(NAMES, 31)


def train(objective: str, y, **parameters) -> xgboost.Booster:
    data = xgboost.DMatrix(X, y, feature_names=NAMES)
    return xgboost.train({"objective": objective, "max_depth": 3, **parameters}, data, num_boost_round=3)


def fit(kind, y, **parameters):
    return kind(n_estimators=3, max_depth=3, **parameters).fit(pd.DataFrame(X, columns=NAMES), y)


def check_output(seen, role: str | None, values) -> None:
    assert seen.predictions() == ({role: 31} if role else {})
    if role == "class":
        assert seen.classes() == Counter(str(int(value)) for value in values)
    elif role:
        metric = semconv.METRIC_ML_PREDICTION_SCORE if role == "score" else semconv.METRIC_ML_PREDICTION_VALUE
        point = seen.histogram(metric)
        assert (point.count, point.min, point.max) == (31, min(values), max(values))
        assert point.sum == pytest.approx(math.fsum(values), rel=1e-6)  # float32


def check_features(seen, rows=NEW) -> None:
    assert seen.features() == COUNTS
    for i, name in enumerate(NAMES):
        point = seen.histogram(semconv.METRIC_ML_FEATURE_VALUE, **{semconv.ML_FEATURE_NAME: name})
        valid = [float(value) for value in rows[:, i] if not math.isnan(value)]
        assert (point.count, point.min, point.max) == (len(valid), min(valid), max(valid))
        assert point.sum == pytest.approx(math.fsum(valid), rel=1e-6)


MODELS = {
    "classes of two": (xgboost.XGBClassifier, TWO, "predict", "class", list),
    "classes of three": (xgboost.XGBClassifier, THREE, "predict", "class", list),
    "positive class": (xgboost.XGBClassifier, TWO, "predict_proba", "score", lambda r: [row[1] for row in r]),
    "likeliest class": (xgboost.XGBClassifier, THREE, "predict_proba", "score", lambda r: [max(row) for row in r]),
    "tags": (xgboost.XGBClassifier, TAGS, "predict_proba", None, None),
    "forest": (xgboost.XGBRFClassifier, TWO, "predict", "class", list),
    "number": (xgboost.XGBRegressor, NUMBER, "predict", "value", list),
    "two numbers": (xgboost.XGBRegressor, np.column_stack([NUMBER, -NUMBER]), "predict", None, None),
}


@pytest.mark.parametrize("case", MODELS)
def test_the_sklearn_interface_is_counted_exactly(serving, case):
    kind, y, method, role, naive = MODELS[case]
    model = fit(kind, y)
    expected = getattr(model, method)(FRAME)
    with serving() as seen:
        np.testing.assert_array_equal(getattr(model, method)(FRAME), expected)
    assert seen.models == {(kind.__name__, "")}
    assert seen.calls() == {(method, ""): 1}
    info = [a[semconv.ML_FRAMEWORK_NAME] for a, _ in seen.points(semconv.METRIC_ML_MODEL_INFO)]
    assert info == ["xgboost"]
    check_features(seen)
    check_output(seen, role, naive and naive(expected))


def test_a_ranker_gives_values(serving):
    model = xgboost.XGBRanker(n_estimators=3).fit(pd.DataFrame(X, columns=NAMES), TWO, qid=np.repeat([0, 1, 2], 40))
    expected = model.predict(FRAME)
    with serving() as seen:
        model.predict(FRAME)
    check_features(seen)
    check_output(seen, "value", expected)


BOOSTERS = {
    "probability": ("binary:logistic", TWO, {}, {}, "value", list),
    "number": ("reg:squarederror", NUMBER, {}, {}, "value", list),
    "strict shape": ("reg:squarederror", NUMBER, {}, {"strict_shape": True}, "value", lambda r: [v for (v,) in r]),
    "probabilities": ("multi:softprob", THREE, {"num_class": 3}, {}, "score", lambda r: [max(row) for row in r]),
    "margin": ("binary:logistic", TWO, {}, {"output_margin": True}, None, None),
    "margins": ("multi:softprob", THREE, {"num_class": 3}, {"output_margin": True}, None, None),
    "two numbers": ("reg:squarederror", np.column_stack([NUMBER, -NUMBER]), {}, {}, None, None),
}


@pytest.mark.parametrize("case", BOOSTERS)
def test_boosters_are_counted_exactly(serving, case):
    objective, y, parameters, asked, role, naive = BOOSTERS[case]
    booster = train(objective, y, **parameters)
    data = xgboost.DMatrix(NEW, feature_names=NAMES)
    expected = booster.predict(data, **asked)
    with serving() as seen:
        np.testing.assert_array_equal(booster.predict(data, **asked), expected)
    assert seen.models == {("Booster", "")}
    assert seen.calls() == {("predict", ""): 1}
    check_features(seen)
    check_output(seen, role, naive and naive(expected))


@pytest.mark.parametrize(
    "asked",
    [["pred_leaf"], ["pred_contribs"], ["pred_contribs", "approx_contribs"], ["pred_interactions"]],
    ids=lambda names: names[-1],
)
def test_explanations_are_no_predictions(serving, asked):
    booster = train("binary:logistic", TWO)
    data = xgboost.DMatrix(NEW, feature_names=NAMES)
    with serving() as seen:
        booster.predict(data, **dict.fromkeys(asked, True))
    assert not seen.metrics


def test_prediction_in_place_is_counted(serving):
    booster = train("binary:logistic", TWO)
    expected = booster.inplace_predict(FRAME)
    with serving() as seen:
        booster.inplace_predict(FRAME)
    assert seen.calls() == {("inplace_predict", ""): 1}
    check_features(seen)
    check_output(seen, "value", expected)
    seen.clear()
    with serving() as seen:
        booster.inplace_predict(data=FRAME, predict_type="margin")
    check_features(seen)
    check_output(seen, None, None)


def test_the_profile_says_that_a_boosters_numbers_are_scores(serving):
    booster = train("binary:logistic", TWO)
    data = xgboost.DMatrix(NEW, feature_names=NAMES)
    reference = booster.predict(xgboost.DMatrix(X, feature_names=NAMES))
    known = Profile.build(
        pd.DataFrame(X, columns=NAMES), model="m", version="1", predictions={"score": reference, "class": TWO}
    )
    known.attach(booster)
    expected = booster.predict(data)
    with serving() as seen:
        booster.predict(data)
    check_output(seen, "score", expected)


@pytest.mark.parametrize("form", ["dense", "sparse"])
def test_what_is_missing_in_a_dmatrix_is_counted_apart_and_zeros_are_not_missing(serving, form):
    booster = train("reg:squarederror", NUMBER)
    rows = NEW.copy()
    rows[[1, 4], 1] = np.nan
    rows[[2, 3, 7], 2] = 0.0
    data = xgboost.DMatrix(rows if form == "dense" else csr_matrix(rows), feature_names=NAMES)
    with serving() as seen:
        booster.predict(data)
    missing = seen.totals(semconv.METRIC_ML_FEATURE_INVALID, semconv.ML_FEATURE_NAME)
    if form == "dense":
        assert missing == {"b": 2}
        check_features(seen, rows)
    else:  # what is not stored is missing to XGBoost
        assert missing == {"b": 2, "c": 3}


def test_a_dmatrix_without_names_is_counted_by_position(serving):
    booster = xgboost.train({}, xgboost.DMatrix(X, NUMBER), num_boost_round=2)
    with serving() as seen:
        booster.predict(xgboost.DMatrix(NEW))
    assert seen.features() == {"x0": 31, "x1": 31, "x2": 31}


def test_a_dmatrix_of_a_million_columns_is_not_unfolded(serving):
    wide = csr_matrix((np.ones(4, np.float32), ([0, 1, 2, 3], [0, 5, 9, 999_999])), shape=(4, 1_000_000))
    booster = xgboost.train({"max_depth": 1}, xgboost.DMatrix(wide, [0, 1, 0, 1]), num_boost_round=1)
    with serving() as seen:
        booster.predict(xgboost.DMatrix(wide))
    assert seen.features() == {}
    assert seen.predictions() == {"value": 4}


def test_nothing_is_recorded_while_training_or_evaluating(serving):
    data = xgboost.DMatrix(X, TWO, feature_names=NAMES)
    parameters = {"objective": "binary:logistic"}

    def custom(predictions, data):
        return "error", float(((predictions > 0.5) != data.get_label()).mean())

    def objective(predictions, data):
        return predictions - data.get_label(), np.ones_like(predictions)

    class Peek(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            model.predict(data)
            return False

    with serving() as seen:
        booster = xgboost.train(
            parameters,
            data,
            num_boost_round=4,
            evals=[(data, "train")],
            early_stopping_rounds=2,
            verbose_eval=False,
            custom_metric=custom,
            callbacks=[Peek()],
        )
        xgboost.train(parameters, data, num_boost_round=2, obj=objective)
        xgboost.cv(parameters, data, num_boost_round=2, nfold=2, callbacks=[])
        booster.eval(data)
        booster.update(data, 5)
        model = xgboost.XGBClassifier(n_estimators=3, early_stopping_rounds=2, callbacks=[Peek()])
        model.fit(X, TWO, eval_set=[(X, TWO)], verbose=False)
        model.score(X, TWO)
        model.apply(X)
        regressor = xgboost.XGBRegressor(n_estimators=2).fit(X, NUMBER)
        regressor.score(X, NUMBER)
    assert not seen.metrics


def test_score_is_evaluation_with_sklearn_left_alone_too(serving):
    with serving(XGBoostInstrumentor) as seen:
        xgboost.XGBClassifier(n_estimators=2).fit(X, TWO).score(X, TWO)
        xgboost.XGBRFRegressor(n_estimators=2).fit(X, NUMBER).score(X, NUMBER)
    assert not seen.metrics
    assert "score" not in vars(xgboost.XGBClassifier)


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_pipeline(StandardScaler(), xgboost.XGBClassifier(n_estimators=2)),
        lambda: GridSearchCV(xgboost.XGBClassifier(n_estimators=2), {"max_depth": [1, 2]}, cv=2),
        lambda: CalibratedClassifierCV(xgboost.XGBClassifier(n_estimators=2), cv=2),
    ],
    ids=["pipeline", "search", "calibrated"],
)
def test_within_a_sklearn_model_it_is_counted_once(serving, make):
    model = make().fit(X, TWO)
    expected = model.predict(NEW)
    with serving() as seen:
        model.predict(NEW)
    assert seen.models == {(type(model).__name__, "")}
    assert seen.calls() == {("predict", ""): 1}
    assert seen.features() == {"x0": 31, "x1": 31, "x2": 31}
    assert seen.classes() == Counter(map(str, expected))


@pytest.mark.parametrize("only", [None, SklearnInstrumentor, XGBoostInstrumentor])
def test_own_subclasses_are_counted_once(serving, only):
    class Own(xgboost.XGBRegressor):
        def predict(self, X, **kwargs):
            return super().predict(X, **kwargs) * 2

    model = fit(Own, NUMBER)
    expected = model.predict(FRAME)
    with serving(*([only] if only else [])) as seen:
        model.predict(FRAME)
    assert seen.models == {("Own", "")}
    assert seen.calls() == {("predict", ""): 1}
    check_features(seen)
    check_output(seen, "value", expected if only is not XGBoostInstrumentor else expected / 2)


def test_labels_that_cannot_be_read_do_not_reach_the_caller(serving):
    class Own(xgboost.XGBClassifier):
        broken = False

        @property
        def classes_(self):
            if self.broken:
                raise RuntimeError("no labels")
            return np.arange(3)

    model = fit(Own, THREE)
    expected = model.predict_proba(FRAME)
    model.broken = True
    with serving() as seen:
        np.testing.assert_array_equal(model.predict_proba(FRAME), expected)
    check_output(seen, "score", expected.max(axis=1))
    assert seen.totals(semconv.METRIC_MLMON_RECORDER_ERRORS, semconv.MLMON_REASON) == {"RuntimeError": 1}


def test_xgboosts_exceptions_pass_as_they_are(serving):
    booster = train("binary:logistic", TWO)
    calls = [
        lambda: booster.predict(xgboost.DMatrix(NEW)),  # other names
        lambda: booster.predict(NEW),  # no DMatrix
        lambda: booster.inplace_predict(FRAME[["a"]]),
        lambda: xgboost.XGBRegressor().predict(NEW),
        lambda: xgboost.Booster().predict(xgboost.DMatrix(NEW)),
    ]

    def raised():
        found = []
        for call in calls:
            with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever the library raises
                call()
            text = str(caught.value).split("Stack trace")[0]
            found.append((caught.type, re.sub(r"\[\d\d:\d\d:\d\d\]", "", text)))  # the time of day
        return found

    before = raised()
    with serving() as seen:
        assert raised() == before
    assert {error for _, error in seen.calls()} == {kind.__name__ for kind, _ in before}

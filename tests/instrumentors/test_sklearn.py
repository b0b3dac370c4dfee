"""What is recorded of scikit-learn models that serve."""

import math
from bisect import bisect_left
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    BaggingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier, SGDClassifier
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier
from sklearn.neighbors import KernelDensity, KNeighborsClassifier, LocalOutlierFactor
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC, OneClassSVM
from sklearn.tree import DecisionTreeClassifier

from otel_mlmon import Profile, semconv

rng = np.random.default_rng(3)
X = rng.normal(size=(120, 4))
TWO = (X[:, 0] + X[:, 1] > 0).astype(int)
THREE = np.array(["ant", "bee", "cow"])[np.digitize(X[:, 0], [-0.5, 0.5])]
NUMBER = X @ [1.0, -2.0, 0.5, 0.0] + 3
SEVERAL = np.column_stack([NUMBER, -NUMBER])
TAGS = np.column_stack([TWO, X[:, 2] > 0]).astype(int)
NEW = rng.normal(size=(37, 4))
FRAME = pd.DataFrame(NEW, columns=["a", "b", "c", "d"])
FOUR = {f"x{i}": 37 for i in range(4)}


def one(result):
    return list(np.ravel(result))


def second(result):
    return [row[1] for row in result]


def largest(result):
    return [max(row) for row in result]


def tree():
    return DecisionTreeClassifier(max_depth=3, random_state=0)


# What each method says by the documentation: role, and the naive way to the numbers; None where nothing is counted.
OUTPUTS = {
    "two classes": (LogisticRegression(), TWO, "predict", "class", one),
    "three classes": (LogisticRegression(), THREE, "predict", "class", one),
    "boolean classes": (tree(), TWO == 1, "predict", "class", one),
    "forest": (RandomForestClassifier(5, n_jobs=2, random_state=0), THREE, "predict", "class", one),
    "probability of the positive class": (LogisticRegression(), TWO, "predict_proba", "score", second),
    "largest probability": (LogisticRegression(), THREE, "predict_proba", "score", largest),
    "margin": (LinearSVC(), TWO, "decision_function", "score", one),
    "largest margin": (LinearSVC(), THREE, "decision_function", "score", largest),
    "margin beside a probability": (LogisticRegression(), TWO, "decision_function", None, None),
    "available_if": (SVC(), THREE, "decision_function", "score", largest),
    "number": (Ridge(), NUMBER, "predict", "value", one),
    "number in a column": (LinearRegression(), NUMBER[:, None], "predict", "value", one),
    "boosting": (HistGradientBoostingRegressor(max_iter=5), NUMBER, "predict", "value", one),
    "transformed target": (TransformedTargetRegressor(Ridge()), NUMBER, "predict", "value", one),
    "several numbers": (LinearRegression(), SEVERAL, "predict", None, None),
    "several classes": (MultiOutputClassifier(tree()), TAGS, "predict", None, None),
    "probabilities of several": (MultiOutputClassifier(tree()), TAGS, "predict_proba", None, None),
    "probabilities of tags": (OneVsRestClassifier(tree()), TAGS, "predict_proba", None, None),
    "probabilities of a chain": (ClassifierChain(tree()), TAGS, "predict_proba", None, None),
    "cluster": (KMeans(3, random_state=0), None, "predict", "class", one),
    "outlier": (IsolationForest(n_estimators=5, random_state=0), None, "predict", "class", one),
    "isolation": (IsolationForest(n_estimators=5, random_state=0), None, "score_samples", "score", one),
    "isolation margin": (IsolationForest(n_estimators=5, random_state=0), None, "decision_function", "score", one),
    "one-class": (OneClassSVM(), None, "score_samples", "score", one),
    "local outlier": (LocalOutlierFactor(novelty=True), None, "score_samples", "score", one),
    "density": (KernelDensity(), None, "score_samples", "score", one),
    "mixture": (GaussianMixture(2, random_state=0), None, "predict_proba", "score", second),
}


@pytest.mark.parametrize("case", OUTPUTS)
def test_every_kind_of_estimator_is_counted_exactly(serving, case):
    estimator, y, method, role, naive = OUTPUTS[case]
    model = clone(estimator).fit(X, y)
    expected = getattr(model, method)(NEW)
    with serving() as seen:
        got = getattr(model, method)(NEW)
    np.testing.assert_array_equal(got, expected)
    assert seen.features() == FOUR
    for i in range(4):
        point = seen.histogram(semconv.METRIC_ML_FEATURE_VALUE, **{semconv.ML_FEATURE_NAME: f"x{i}"})
        assert (point.count, point.min, point.max) == (37, min(NEW[:, i]), max(NEW[:, i]))
        assert point.sum == pytest.approx(math.fsum(NEW[:, i]), rel=1e-12)
    assert seen.calls() == {(method, ""): 1}
    assert seen.models == {(type(model).__name__, "")}
    assert seen.predictions() == ({role: 37} if role else {})
    if role == "class":
        names = [
            "true" if v is True else "false" if v is False else str(v) for v in np.asarray(naive(expected)).tolist()
        ]
        assert seen.classes() == Counter(names)
    elif role:
        values = naive(expected)
        metric = semconv.METRIC_ML_PREDICTION_SCORE if role == "score" else semconv.METRIC_ML_PREDICTION_VALUE
        point = seen.histogram(metric)
        assert (point.count, point.min, point.max) == (37, min(values), max(values))
        assert point.sum == pytest.approx(math.fsum(values), rel=1e-12)


def test_without_a_profile_each_value_is_in_its_exponential_bucket(serving):
    model = Ridge().fit(X, NUMBER)
    values = model.predict(NEW)
    with serving() as seen:
        model.predict(NEW)
    point = seen.histogram(semconv.METRIC_ML_PREDICTION_VALUE)
    base = 2 ** (2**-point.scale)
    for sign, part in ((1, point.positive), (-1, point.negative)):
        found = {part.offset + i: n for i, n in enumerate(part.bucket_counts) if n}
        # (base**i, base**(i + 1)], as the data model of OpenTelemetry has it
        assert found == Counter(math.ceil(math.log(v * sign, base)) - 1 for v in values.tolist() if v * sign > 0)


def test_with_a_profile_each_value_is_in_the_cell_between_its_bounds(serving):
    model = LogisticRegression().fit(X, TWO)
    Profile.build(X, model="m", version="7", predictions=model.predict_proba(X)).attach(model)
    scores = model.predict_proba(NEW)[:, 1]
    with serving() as seen:
        model.predict_proba(NEW)
    assert seen.models == {("m", "7")}
    points = [(seen.histogram(semconv.METRIC_ML_PREDICTION_SCORE), scores)]
    points += [
        (seen.histogram(semconv.METRIC_ML_FEATURE_VALUE, **{semconv.ML_FEATURE_NAME: f"x{i}"}), NEW[:, i])
        for i in range(4)
    ]
    for point, values in points:
        bounds = list(point.explicit_bounds)
        found = {i: n for i, n in enumerate(point.bucket_counts) if n}
        assert found == Counter(bisect_left(bounds, value) for value in values)  # (lower, upper]
        assert point.sum == pytest.approx(math.fsum(values), rel=1e-12)


def test_a_profile_with_classes_counts_the_likeliest_class_of_probabilities(serving):
    model = LogisticRegression().fit(X, THREE)
    Profile.build(X, model="m", version="1", predictions={"class": THREE, "score": X[:, 0]}).attach(model)
    expected = [str(model.classes_[list(row).index(max(row))]) for row in model.predict_proba(NEW)]
    with serving() as seen:
        model.predict_proba(NEW)
    assert seen.classes() == Counter(expected)
    assert seen.predictions() == {"class": 37, "score": 37}


def test_columns_go_by_name_and_missing_values_are_counted_apart(serving):
    model = make_pipeline(HistGradientBoostingRegressor(max_iter=3))
    model.fit(pd.DataFrame(X, columns=FRAME.columns), NUMBER)
    rows = FRAME.copy()
    rows.loc[[3, 5, 8], "b"] = np.nan
    with serving() as seen:
        model.predict(rows)
    assert seen.features() == dict.fromkeys("abcd", 37)
    assert seen.totals(semconv.METRIC_ML_FEATURE_INVALID, semconv.ML_FEATURE_INVALID_REASON) == {"nan": 3}
    point = seen.histogram(semconv.METRIC_ML_FEATURE_VALUE, **{semconv.ML_FEATURE_NAME: "c"})
    assert point.sum == pytest.approx(math.fsum(FRAME["c"]), rel=1e-12)


def test_rows_and_outputs_given_as_keywords_or_lists_are_counted(serving):
    model = LogisticRegression().fit(X, TWO)
    with serving() as seen:
        model.predict(X=NEW)
        model.predict([list(row) for row in NEW])
    assert seen.features() == dict.fromkeys(FOUR, 74)
    assert seen.calls() == {("predict", ""): 2}


def test_a_tuple_of_prediction_and_deviation_counts_the_prediction(serving):
    model = GaussianProcessRegressor().fit(X, NUMBER)
    mean, _ = model.predict(NEW, return_std=True)
    with serving() as seen:
        result = model.predict(NEW, return_std=True)
    assert isinstance(result, tuple)
    assert seen.predictions() == {"value": 37}
    assert seen.histogram(semconv.METRIC_ML_PREDICTION_VALUE).sum == pytest.approx(math.fsum(mean), rel=1e-12)


def test_every_call_counts_by_itself(serving):
    model = LogisticRegression().fit(X, TWO)
    with serving() as seen:
        model.predict_proba(NEW)
        model.predict(NEW)
        model.predict(NEW[:5])
        model.decision_function(NEW[:2])
    assert seen.calls() == {("predict_proba", ""): 1, ("predict", ""): 2, ("decision_function", ""): 1}
    assert seen.features() == dict.fromkeys(FOUR, 37 + 37 + 5 + 2)
    assert seen.predictions() == {"score": 37, "class": 42}
    batches = seen.points(semconv.METRIC_ML_INFERENCE_BATCH_SIZE)
    assert {a[semconv.ML_OPERATION_NAME]: (p.count, p.sum) for a, p in batches} == {
        "predict_proba": (1, 37),
        "predict": (2, 42),
        "decision_function": (1, 2),
    }


def test_transform_is_left_alone(serving):
    scaler = StandardScaler().fit(X)
    clusters = KMeans(3, random_state=0).fit(X)
    union = FeatureUnion([("scale", scaler), ("clusters", clusters)]).fit(X)
    columns = ColumnTransformer([("scale", StandardScaler(), [0, 1])]).fit(X)
    with serving() as seen:
        for transformer in (scaler, clusters, union, columns):
            transformer.transform(NEW)
            transformer.fit_transform(X)
    assert not seen.metrics


META = {
    "pipeline": lambda: make_pipeline(StandardScaler(), StandardScaler(), LogisticRegression()),
    "pipeline in a pipeline": lambda: make_pipeline(StandardScaler(), make_pipeline(StandardScaler(), tree())),
    "search": lambda: GridSearchCV(
        make_pipeline(StandardScaler(), tree()), {"decisiontreeclassifier__max_depth": [1, 2]}
    ),
    "voting": lambda: VotingClassifier([("a", tree()), ("b", LogisticRegression())], voting="soft"),
    "calibrated": lambda: CalibratedClassifierCV(tree(), cv=2),
    "stacking": lambda: StackingClassifier([("a", tree()), ("b", LogisticRegression())], cv=2),
    "bagging": lambda: BaggingClassifier(LogisticRegression(), 4, random_state=0),
}


@pytest.mark.parametrize("kind", META)
@pytest.mark.parametrize("method", ["predict", "predict_proba"])
def test_models_made_of_models_are_counted_once_by_the_outermost(serving, kind, method):
    model = META[kind]().fit(X, TWO)
    expected = getattr(model, method)(NEW)
    with serving() as seen:
        getattr(model, method)(NEW)
    assert seen.models == {(type(model).__name__, "")}
    assert seen.features() == FOUR
    assert seen.calls() == {(method, ""): 1}
    if method == "predict":
        assert seen.classes() == Counter(map(str, expected))
    else:
        assert seen.histogram(semconv.METRIC_ML_PREDICTION_SCORE).sum == pytest.approx(math.fsum(expected[:, 1]))


def test_models_that_predict_on_threads_of_their_own_are_counted_once(serving):
    model = BaggingClassifier(LogisticRegression(), 4, random_state=0).fit(X, TWO)
    expected = model.predict(NEW)
    model.set_params(n_jobs=2)
    with serving() as seen, parallel_config("threading"):
        np.testing.assert_array_equal(model.predict(NEW), expected)
    assert seen.models == {("BaggingClassifier", "")}
    assert seen.features() == FOUR
    assert seen.calls() == {("predict", ""): 1}


class Before(ClassifierMixin, BaseEstimator):
    """A model of the user's, defined before anything is instrumented."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.bees = self.predict(X)
        return self

    def predict(self, X):
        return np.where(np.asarray(X)[:, 0] > 0, self.classes_[1], self.classes_[0])


class Half:
    """Not an estimator by itself."""

    def predict(self, X):
        return np.asarray(X)[:, 0] * 2

    def score_samples(self, X):
        return np.asarray(X)[:, 1]


class Mixed(Half, BaseEstimator):
    pass


class Derived(LogisticRegression):
    def predict(self, X):
        return 1 - super().predict(X)


def test_own_classes_defined_before_are_counted(serving):
    model, derived = Before().fit(X, TWO), Derived().fit(X, TWO)
    expected, other = model.predict(NEW), derived.predict(NEW)
    with serving() as seen:
        model.predict(NEW)
        derived.predict(NEW)
        Mixed().score_samples(NEW)
    assert seen.models == {("Before", ""), ("Derived", ""), ("Mixed", "")}
    assert seen.classes("Before") == Counter(map(str, expected))
    assert seen.classes("Derived") == Counter(map(str, other))
    assert seen.calls("Derived") == {("predict", ""): 1}  # not again at the class it is derived from
    assert seen.predictions("Mixed") == {"score": 37}


def test_own_classes_defined_after_are_counted(serving):
    with serving() as seen:

        class LateHalf:
            def predict(self, X):
                return np.asarray(X)[:, 0] * 2

        class Late(LateHalf, RegressorMixin, BaseEstimator):
            def fit(self, X, y):
                self.predict(X)
                return self

        class Later(Late):
            def decision_function(self, X):
                return np.asarray(X)[:, 1]

        Late().fit(X, NUMBER).predict(NEW)
        Later().decision_function(NEW)
    assert seen.predictions("Late") == {"value": 37}
    assert seen.histogram(semconv.METRIC_ML_PREDICTION_VALUE).sum == pytest.approx(2 * math.fsum(NEW[:, 0]))
    assert seen.predictions("Later") == {"score": 37}
    assert seen.features("Late") == FOUR
    assert "predict" in vars(LateHalf)
    assert not hasattr(LateHalf.predict, "__wrapped__")  # restored though it came later


def test_models_that_cannot_be_hashed_or_compare_equal_are_told_apart(serving):
    class Odd(RegressorMixin, BaseEstimator):
        __hash__ = None

        def __eq__(self, other):
            return True

        def predict(self, X):
            return np.asarray(X)[:, 0]

    models = [Odd(), Odd()]
    for number, model in enumerate(models):
        Profile.build(X, model=f"odd-{number}", version="1").attach(model)
    with serving() as seen:
        models[0].predict(NEW)
        models[1].predict(NEW[:5])
    assert seen.features("odd-0") == FOUR
    assert seen.features("odd-1") == dict.fromkeys(FOUR, 5)


def test_a_model_that_takes_the_memory_of_another_is_not_taken_for_it(serving):
    with serving() as seen:
        for number in range(20):
            model = Ridge().fit(X, NUMBER)
            Profile.build(X, model=f"m{number}", version="1").attach(model)
            model.predict(NEW[: number + 1])
            del model
    assert {name: seen.features(name)["x0"] for name, _ in seen.models} == {f"m{n}": n + 1 for n in range(20)}


def test_sixteen_threads_are_counted_exactly(serving):
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, TWO)
    parts = [NEW[i % 30 : i % 30 + 1 + i % 5] for i in range(400)]
    expected = Counter(str(label) for part in parts for label in model.predict(part))
    with serving() as seen, ThreadPoolExecutor(16) as pool:
        list(pool.map(model.predict, parts))
    rows = sum(len(part) for part in parts)
    assert seen.features() == dict.fromkeys(FOUR, rows)
    assert seen.classes() == expected
    assert seen.calls() == {("predict", ""): 400}


def test_text_is_left_untouched_and_its_predictions_are_counted(serving):
    texts = ["good day", "bad day", "good night", "bad night"]
    model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(texts, [1, 0, 1, 0])
    expected = model.predict(texts)
    with serving() as seen:
        model.predict(texts)
        model.predict(text for text in texts)  # can be read only once
        model.predict(pd.Series(texts))
    assert seen.features() == {}
    assert seen.classes() == {label: 3 * n for label, n in Counter(map(str, expected)).items()}
    assert seen.calls() == {("predict", ""): 3}
    assert seen.totals(semconv.METRIC_MLMON_RECORDER_DROPPED, semconv.MLMON_REASON) == {"unreadable": 3}


def test_hashed_text_is_not_unfolded_into_its_million_columns(serving):
    rows = HashingVectorizer().transform(["good day", "bad day"] * 50)
    model = SGDClassifier(random_state=0).fit(rows, [1, 0] * 50)
    expected = model.predict(rows)
    with serving() as seen:
        model.predict(rows)
    assert seen.features() == {}
    assert seen.classes() == Counter(map(str, expected))
    assert seen.totals(semconv.METRIC_MLMON_RECORDER_ERRORS, semconv.MLMON_REASON) == {"UnreadableError": 1}


def test_narrow_sparse_rows_are_counted(serving):
    from scipy.sparse import csr_array

    rows = csr_array(np.where(NEW > 0, NEW, 0.0))
    model = RidgeClassifier().fit(X, TWO)
    with serving() as seen:
        model.predict(rows)
    assert seen.features() == FOUR
    point = seen.histogram(semconv.METRIC_ML_FEATURE_VALUE, **{semconv.ML_FEATURE_NAME: "x2"})
    assert point.zero_count == sum(value <= 0 for value in NEW[:, 2])


@pytest.mark.parametrize("kind", [OneVsRestClassifier, ClassifierChain])
def test_several_probabilities_that_happen_to_sum_to_one_are_not_taken_for_classes(serving, kind):
    model = kind(DecisionTreeClassifier(random_state=0)).fit(X, TAGS)
    one_tag = NEW[[list(row) == [0, 1] for row in model.predict_proba(NEW)]]
    assert len(one_tag)
    with serving() as seen:
        model.predict_proba(one_tag)
    assert seen.features() == dict.fromkeys(FOUR, len(one_tag))
    assert seen.predictions() == {}


def test_neighbours_of_several_targets_count_features_only(serving):
    model = KNeighborsClassifier().fit(X, TAGS)
    with serving() as seen:
        model.predict_proba(NEW)
    assert seen.features() == FOUR
    assert seen.predictions() == {}

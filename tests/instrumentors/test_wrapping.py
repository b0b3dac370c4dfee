"""The caller notices nothing, and everything can be undone."""

import inspect
import logging
import pickle
import subprocess
import sys
import time
import traceback

import numpy as np
import pytest
import sklearn
import xgboost
from joblib import wrap_non_picklable_objects
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin, clone
from sklearn.linear_model import LinearRegression, LogisticRegression, SGDClassifier
from sklearn.metrics import _scorer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils import all_estimators, parallel
from sklearn.utils import estimator_checks as checks

from otel_mlmon import semconv
from otel_mlmon.instrumentors.sklearn import PREDICTING, SklearnInstrumentor
from otel_mlmon.instrumentors.xgboost import XGBoostInstrumentor

rng = np.random.default_rng(6)
X = rng.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)


def known_classes() -> list[type]:
    """Every class of scikit-learn and XGBoost that an estimator is made of, and a few of our own."""
    every = [kind for _, kind in all_estimators()]
    every += [xgboost.XGBClassifier, xgboost.XGBRegressor, xgboost.XGBRanker, xgboost.XGBRFRegressor, xgboost.Booster]
    every += [Own, parallel._FuncWrapper, _scorer._Scorer, _scorer._MultimetricScorer]
    return sorted({kind for found in every for kind in found.__mro__ if kind is not object}, key=repr)


class Own(RegressorMixin, BaseEstimator):
    def predict(self, X):
        """Say the first column."""
        return X[:, 0]


def state() -> dict[object, dict[str, object]]:
    modules = (xgboost, xgboost.training, xgboost.core, xgboost.sklearn, sklearn, sklearn.base, parallel, _scorer)
    return {owner: dict(vars(owner)) for owner in (*known_classes(), *modules)}


def assert_same(before, after) -> None:
    for owner, names in before.items():
        assert after[owner].keys() == names.keys(), owner
        changed = [name for name, value in names.items() if after[owner][name] is not value]
        assert not changed, (owner, changed)


ORDERS = [
    (SklearnInstrumentor, XGBoostInstrumentor, SklearnInstrumentor, XGBoostInstrumentor),
    (SklearnInstrumentor, XGBoostInstrumentor, XGBoostInstrumentor, SklearnInstrumentor),
    (XGBoostInstrumentor, SklearnInstrumentor, XGBoostInstrumentor, SklearnInstrumentor),
]


@pytest.mark.parametrize("order", ORDERS, ids=["first in first out", "first in last out", "the other first"])
def test_uninstrument_puts_the_very_same_objects_back(receiver, order):
    before = state()
    order[0]().instrument()
    order[1]().instrument()
    try:
        during = state()
        assert vars(LogisticRegression)["predict_proba"] is not before[LogisticRegression]["predict_proba"]
        assert during[xgboost.Booster]["predict"] is not before[xgboost.Booster]["predict"]
        assert during[Own]["predict"] is not before[Own]["predict"]
    finally:
        order[2]().uninstrument()
        order[3]().uninstrument()
    assert_same(before, state())


def test_instrumenting_and_undoing_twice_is_harmless(serving):
    before = state()
    model = LogisticRegression().fit(X, Y)
    with serving(SklearnInstrumentor) as seen:
        once = vars(LogisticRegression)["predict_proba"]
        SklearnInstrumentor().instrument()
        assert vars(LogisticRegression)["predict_proba"] is once
        model.predict(X)
    SklearnInstrumentor().uninstrument()
    assert_same(before, state())
    assert seen.features() == {"x0": 60, "x1": 60, "x2": 60}
    seen.clear()
    model.predict(X)
    with serving(SklearnInstrumentor) as seen:
        model.predict(X[:7])
    assert seen.features() == {"x0": 7, "x1": 7, "x2": 7}


def test_what_others_replace_meanwhile_stays_theirs(serving):
    def theirs(self, X):
        return "theirs"

    with serving():
        Own.predict, original = theirs, Own.predict.__wrapped__
    try:
        assert Own.predict is theirs
    finally:
        Own.predict = original


def test_nothing_is_left_wrapped_where_a_framework_is_not_like_those_we_know(receiver, monkeypatch):
    before = state()
    with monkeypatch.context() as patch:
        patch.delattr(parallel, "_FuncWrapper")
        with pytest.raises(ImportError, match="_FuncWrapper"):
            SklearnInstrumentor().instrument()
        assert not SklearnInstrumentor().is_instrumented_by_opentelemetry
    assert_same(before, state())


def test_signatures_and_documentation_stay(serving):
    def described():
        return {
            (kind, name): (
                str(inspect.signature(getattr(kind, name))),
                getattr(kind, name).__doc__,
                getattr(kind, name).__name__,
            )
            for kind in known_classes()
            for name in (*PREDICTING, "fit", "partial_fit", "fit_predict", "fit_transform", "score", "inplace_predict")
            if inspect.isfunction(getattr(kind, name, None))
        }

    before = described()
    with serving():
        assert described() == before
    assert len(before) > 400


def test_available_methods_and_their_errors_stay(serving):
    models = [
        SVC(),
        SVC().fit(X, Y),
        SGDClassifier(loss="hinge").fit(X, Y),
        make_pipeline(StandardScaler()).fit(X),
        make_pipeline(StandardScaler(), LinearRegression()).fit(X, Y),
        GridSearchCV(LinearRegression(), {}),
        GridSearchCV(LogisticRegression(), {}, cv=2).fit(X, Y),
    ]

    def told():
        found = []
        for model in models:
            for name in (*PREDICTING, "transform", "score", "partial_fit"):
                try:
                    method = getattr(model, name)
                    found.append((method.__name__, method.__self__ is model))
                except AttributeError as error:
                    found.append((str(error), str(error.__cause__)))
        return found

    before = told()
    with serving():
        assert told() == before
        assert not hasattr(models[2], "predict_proba")
        assert hasattr(models[6], "predict_proba")


def test_metadata_routing_and_cloning_stay(serving):
    def asked(model):
        return {name for name in dir(model) if name.startswith("set_") and name.endswith("_request")}

    kinds = [LogisticRegression, Own, GridSearchCV, xgboost.XGBClassifier]
    before = {kind: asked(kind) for kind in kinds}
    with serving(), sklearn.config_context(enable_metadata_routing=True):

        class Late(Own):
            def fit(self, X, y):
                self.fitted_ = True
                return self

            def predict(self, X, shift=0):
                return X[:, 0] + shift

            def score(self, X, y, sample_weight=None):
                return 0.0

        assert {kind: asked(kind) for kind in kinds} == before
        assert {"set_predict_request", "set_score_request"} <= asked(Late)
        model = Pipeline([("late", Late().set_predict_request(shift=True))]).fit(X, Y)
        np.testing.assert_array_equal(model.predict(X, shift=3), X[:, 0] + 3)
        assert clone(model).get_params(deep=False).keys() == model.get_params(deep=False).keys()
        copy = clone(LogisticRegression(C=3))
        assert copy.C == 3


@pytest.mark.parametrize(
    "check",
    [
        checks.check_estimators_pickle,
        checks.check_estimators_overwrite_params,
        checks.check_estimators_unfitted,
        checks.check_dict_unchanged,
        checks.check_methods_subset_invariance,
        checks.check_n_features_in_after_fitting,
        checks.check_fit_idempotent,
        checks.check_classifiers_train,
    ],
    ids=lambda check: check.__name__,
)
def test_the_frameworks_own_checks_of_an_estimator_pass(serving, check):
    with serving():
        check("LogisticRegression", LogisticRegression())


def test_results_are_the_very_same_objects(serving):
    answers = [np.arange(3), [1, 2, 3], (np.arange(3), np.arange(3)), "text", None, object()]

    class Answering(BaseEstimator):
        def predict(self, X):
            return answers[X]

    with serving():
        for number, answer in enumerate(answers):
            assert Answering().predict(number) is answer


class RefusalError(ValueError):
    """With state, as libraries have them."""

    def __init__(self, code: int) -> None:
        super().__init__(f"code {code}")
        self.code = code

    def __str__(self) -> str:
        if self.code == 13:
            raise RuntimeError("cannot even be told")
        return super().__str__()


class Stop(BaseException):
    pass


@pytest.mark.parametrize(
    "error", [RefusalError(7), RefusalError(13), KeyboardInterrupt(), Stop()], ids=["own", "mute", "^C", "base"]
)
def test_the_librarys_exceptions_pass_as_they_are(serving, error):
    class Refusing(BaseEstimator):
        def predict(self, X):
            raise error from LookupError("why")

    with serving() as seen:
        with pytest.raises(type(error)) as caught:
            Refusing().predict(X)
        assert caught.value is error
        assert isinstance(error.__cause__, LookupError)
        assert error.__context__ is None  # it was not raised again while another was handled
        assert traceback.extract_tb(error.__traceback__)[-1].line == 'raise error from LookupError("why")'
    assert seen.calls() == {("predict", type(error).__name__): 1}


def test_sklearns_exceptions_pass_as_they_are(serving):
    fitted, unfitted = LogisticRegression().fit(X, Y), make_pipeline(StandardScaler(), LogisticRegression())
    calls = [
        lambda: fitted.predict(X[:, :2]),
        lambda: fitted.predict([["a", "b", "c"]]),
        lambda: fitted.predict(),
        lambda: fitted.predict(X, 1, 2, 3),
        lambda: unfitted.predict_proba(X),
        lambda: xgboost.XGBClassifier().predict(X),
        lambda: LinearRegression().fit(X, Y).predict_proba(X),
    ]

    def raised():
        found = []
        for call in calls:
            with pytest.raises(Exception) as caught:  # noqa: PT011 -- whatever the library raises
                call()
            found.append((caught.type, str(caught.value)))
        return found

    before = raised()
    with serving():
        assert raised() == before


class Hostile:
    """Raises at whatever is read of it."""

    reads = 0

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("no array")

    @property
    def shape(self):
        self.reads += 1
        raise RuntimeError("no shape")

    @property
    def columns(self):
        raise RuntimeError("no columns")


class Lax(BaseEstimator):
    def __init__(self, answer=None) -> None:
        self.answer = answer

    @property
    def classes_(self):
        raise RuntimeError("no classes")

    def predict(self, X):
        return self.answer

    predict_proba = score_samples = predict


class HostileAnswer(Hostile):
    @property
    def ndim(self):
        raise RuntimeError("no dimensions")


def test_failures_of_ours_never_reach_the_caller(serving, caplog):
    answers = [X[:, 0], HostileAnswer(), [[1, 2], [3]], [object()], np.full((3, 2), 0.5), np.zeros((2, 2, 2))]
    with serving() as seen:
        for answer in answers:
            for rows in (Hostile(), X, object(), [], {}, {"a": [1], "b": [1, 2]}, np.zeros(()), np.zeros((2, 2, 2))):
                model = Lax(answer)
                assert model.predict(rows) is answer
                assert model.predict_proba(rows) is answer
                assert model.score_samples(rows) is answer
    assert sum(seen.calls().values()) == 6 * 8 * 3
    told = [record.getMessage() for record in caplog.records if record.name.startswith("otel_mlmon")]
    assert len(told) == len(set(told))
    assert sum("RuntimeError" in line for line in told) == 1  # the first of its kind is logged
    assert seen.totals(semconv.METRIC_MLMON_RECORDER_ERRORS, semconv.MLMON_REASON)["RuntimeError"] > 6


def test_an_exporter_that_fails_is_not_noticed(serving, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")  # nobody listens
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_TIMEOUT", "200")
    model = LogisticRegression().fit(X, Y)
    expected = model.predict(X)
    with serving():
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline:
            np.testing.assert_array_equal(model.predict(X), expected)


@pytest.mark.parametrize(
    ("name", "value"), [("OTEL_SDK_DISABLED", "true"), ("OTEL_METRICS_EXPORTER", "none")], ids=["disabled", "none"]
)
def test_where_nothing_is_sent_nothing_is_counted(serving, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    model = LogisticRegression().fit(X, Y)
    booster = xgboost.XGBClassifier(n_estimators=2).fit(X, Y)
    rows, answer = Hostile(), HostileAnswer()
    with serving() as seen:
        model.predict(X)
        booster.predict_proba(X)
        assert Lax(answer).predict(rows) is answer
    assert not seen.metrics
    assert (rows.reads, answer.reads) == (0, 0)


def test_pickles_made_while_instrumented_load_where_otel_mlmon_is_not(serving, tmp_path):
    models = [make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), GridSearchCV(SVC(), {}, cv=2).fit(X, Y)]
    models += [xgboost.XGBClassifier(n_estimators=2).fit(X, Y)]
    with serving():
        answers = [model.predict(X).tolist() for model in models]
        (tmp_path / "models.pkl").write_bytes(pickle.dumps([models, [model.predict for model in models], answers]))
    script = (
        "import pickle, sys; sys.modules['otel_mlmon'] = None\n"
        f"import numpy as np; X = np.array({X.tolist()})\n"
        "models, methods, answers = pickle.load(open('models.pkl', 'rb'))\n"
        "assert [model.predict(X).tolist() for model in models] == answers\n"
        "assert [method(X).tolist() for method in methods] == answers\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)


def test_classes_pickled_by_value_work_in_a_process_that_is_not_instrumented(serving, tmp_path):
    def make():
        class Scripted(TransformerMixin, RegressorMixin, BaseEstimator):
            def fit(self, X, y=None):
                return self

            def transform(self, X):
                return X

            def predict(self, X):
                return X[:, 0] * 2

        return Scripted()

    with serving() as seen:
        model = make()
        (tmp_path / "model.pkl").write_bytes(pickle.dumps(wrap_non_picklable_objects(model, keep_wrapper=False)))
        model.predict(X[:4])
    assert seen.features() == {"x0": 4, "x1": 4, "x2": 4}
    script = (
        "import pickle, numpy as np\n"
        "model = pickle.load(open('model.pkl', 'rb'))\n"
        "assert model.fit_transform(np.ones((2, 3))).tolist() == [[1, 1, 1]] * 2\n"
        "assert model.predict(np.ones((2, 3))).tolist() == [2, 2]\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)


def test_models_without_weak_references_predict_and_are_told_of_once(serving, caplog):
    class Slim:
        __slots__ = ()

        def predict(self, X):
            return X[:, 0]

    with serving(), caplog.at_level(logging.WARNING):

        class Full(Slim, BaseEstimator):
            pass

        for _ in range(3):
            assert Slim().predict(X)[0] == X[0, 0]
    assert len([r for r in caplog.records if r.name.startswith("otel_mlmon")]) == 1

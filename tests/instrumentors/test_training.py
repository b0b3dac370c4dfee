"""What trains or evaluates is not serving: nothing of it is recorded."""

import numpy as np
import pytest
import xgboost
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, TransformerMixin, clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.ensemble import (
    AdaBoostClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
)
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 -- makes IterativeImputer importable
from sklearn.feature_selection import RFECV, SequentialFeatureSelector
from sklearn.impute import IterativeImputer
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.metrics import get_scorer, make_scorer
from sklearn.model_selection import (
    GridSearchCV,
    TunedThresholdClassifierCV,
    cross_val_predict,
    cross_val_score,
    cross_validate,
    learning_curve,
    permutation_test_score,
    validation_curve,
)
from sklearn.multioutput import ClassifierChain
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

rng = np.random.default_rng(5)
X = rng.normal(size=(90, 3))
Y = (X[:, 0] + 0.3 * rng.normal(size=90) > 0).astype(int)
HOLES = np.where(rng.random(X.shape) < 0.1, np.nan, X)


class Peeking(ClassifierMixin, BaseEstimator):
    """Predicts while it is fitted, as own models do that stop early."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        self.predict(X)
        return self.partial_fit(X, y)

    def partial_fit(self, X, y):
        self.predict_proba(X)
        return self

    def predict(self, X):
        return (np.asarray(X)[:, 0] > 0).astype(int)

    def predict_proba(self, X):
        positive = 1 / (1 + np.exp(-np.asarray(X)[:, 0]))
        return np.column_stack([1 - positive, positive])


def pipe():
    return make_pipeline(StandardScaler(), LogisticRegression())


def own_scorer(model, X, y):
    return float((model.predict(X) == y).mean())


def fitted(model):
    return clone(model).fit(X, Y)


FITTING = {
    "own": lambda: Peeking().fit(X, Y),
    "own, partly": lambda: Peeking().partial_fit(X, Y),
    "grid search": lambda: GridSearchCV(pipe(), {"logisticregression__C": [0.1, 1]}, cv=2).fit(X, Y),
    "early stopping by score": lambda: HistGradientBoostingClassifier(
        max_iter=6, early_stopping=True, scoring="accuracy", n_iter_no_change=2
    ).fit(X, Y),
    "early stopping": lambda: SGDClassifier(early_stopping=True, random_state=0).fit(X, Y),
    "boosting": lambda: AdaBoostClassifier(n_estimators=3).fit(X, Y),
    "calibration": lambda: CalibratedClassifierCV(Peeking(), cv=2).fit(X, Y),
    "threshold": lambda: TunedThresholdClassifierCV(Peeking(), cv=2).fit(X, Y),
    "stacking": lambda: StackingClassifier([("a", Peeking()), ("b", LogisticRegression())], cv=2).fit(X, Y),
    "stacking, transforming": lambda: StackingClassifier([("a", Peeking())], cv=2).fit_transform(X, Y),
    "chain": lambda: ClassifierChain(LogisticRegression(), cv=2).fit(X, np.column_stack([Y, 1 - Y])),
    "self-training": lambda: SelfTrainingClassifier(LogisticRegression()).fit(X, np.where(X[:, 1] > 1, -1, Y)),
    "out-of-bag": lambda: RandomForestClassifier(20, oob_score=True, random_state=0).fit(X, Y),
    "elimination": lambda: RFECV(LogisticRegression(), cv=2).fit(X, Y),
    "selection": lambda: SequentialFeatureSelector(LogisticRegression(), n_features_to_select=1, cv=2).fit(X, Y),
    "imputation": lambda: IterativeImputer(max_iter=3, tol=1).fit(HOLES),
    "imputation, transforming": lambda: IterativeImputer(max_iter=3, tol=1).fit_transform(HOLES),
    "imputation in a pipeline": lambda: make_pipeline(IterativeImputer(max_iter=3, tol=1)).fit_transform(HOLES),
    "contamination": lambda: IsolationForest(n_estimators=5, contamination=0.1).fit(X),
    "clusters": lambda: KMeans(2).fit_predict(X),
    "outliers": lambda: IsolationForest(n_estimators=5).fit_predict(X),
}
EVALUATING = {
    "score": lambda: fitted(pipe()).score(X, Y),
    "own score": lambda: fitted(Peeking()).score(X, Y),
    "scorer": lambda: get_scorer("roc_auc")(fitted(pipe()), X, Y),
    "cross-validation": lambda: cross_val_score(pipe(), X, Y, cv=2),
    "several scorers": lambda: cross_validate(Peeking(), X, Y, cv=2, scoring=["accuracy", "roc_auc"]),
    "own scorer": lambda: cross_val_score(Peeking(), X, Y, cv=2, scoring=own_scorer),
    "made scorer": lambda: cross_val_score(Peeking(), X, Y, cv=2, scoring=make_scorer(lambda y, p: (y == p).mean())),
    "out-of-fold predictions": lambda: cross_val_predict(pipe(), X, Y, cv=2, method="predict_proba"),
    "learning curve": lambda: learning_curve(Peeking(), X, Y, cv=2, train_sizes=[0.5, 1.0]),
    "validation curve": lambda: validation_curve(
        LogisticRegression(), X, Y, cv=2, param_name="C", param_range=[0.1, 1.0]
    ),
    "permutation test": lambda: permutation_test_score(Peeking(), X, Y, cv=2, n_permutations=2),
    "permutation importance": lambda: permutation_importance(fitted(pipe()), X, Y, n_repeats=2, scoring="accuracy"),
    "score of xgboost": lambda: xgboost.XGBClassifier(n_estimators=2).fit(X, Y).score(X, Y),
    "cross-validation of xgboost": lambda: cross_val_score(xgboost.XGBClassifier(n_estimators=2), X, Y, cv=2),
}


@pytest.mark.parametrize("kind", FITTING)
def test_nothing_is_recorded_while_fitting(serving, kind):
    with serving() as seen:
        FITTING[kind]()
    assert not seen.metrics


@pytest.mark.parametrize("kind", EVALUATING)
def test_nothing_is_recorded_while_evaluating(serving, kind):
    with serving() as seen:
        EVALUATING[kind]()
    assert not seen.metrics


def test_nothing_is_recorded_on_threads_that_evaluate_or_fit(serving):
    with serving() as seen, parallel_config("threading"):
        cross_val_score(Peeking(), X, Y, cv=2, n_jobs=2, scoring=own_scorer)
        cross_val_predict(Peeking(), X, Y, cv=2, n_jobs=2)
        GridSearchCV(Peeking(), {}, cv=2, n_jobs=2).fit(X, Y)
        permutation_importance(fitted(Peeking()), X, Y, n_repeats=1, n_jobs=2)
    assert not seen.metrics


def test_models_are_served_again_after_training(serving):
    with serving() as seen:
        search = GridSearchCV(pipe(), {"logisticregression__C": [0.1, 1]}, cv=2).fit(X, Y)
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            search.fit(X, Y[:-1])
        search.predict(X[:7])
    assert seen.features() == {"x0": 7, "x1": 7, "x2": 7}
    assert seen.calls() == {("predict", ""): 1}


def test_transformers_that_predict_while_fitted_are_silent_though_defined_later(serving):
    with serving() as seen:

        class Inner(RegressorMixin, BaseEstimator):
            def predict(self, X):
                return np.asarray(X)[:, 0]

        class Residuals(TransformerMixin, BaseEstimator):
            def fit_transform(self, X, y=None):
                return X - Inner().predict(X)[:, None]

        class Reversed(BaseEstimator, TransformerMixin):
            def fit_transform(self, X, y=None):
                return X - Inner().predict(X)[:, None]

        class Alone(BaseEstimator):
            def fit_transform(self, X, y=None):
                return X - Inner().predict(X)[:, None]

        kinds = (Residuals, Reversed, Alone)
        for kind in kinds:
            np.testing.assert_array_equal(kind().fit_transform(X), X - X[:, :1])
    assert not seen.metrics
    for kind in kinds:  # nothing of ours stayed within scikit-learn's own wrapper
        function = vars(kind)["fit_transform"]
        while function is not None:
            assert "otel_mlmon" not in function.__code__.co_filename
            function = getattr(function, "__wrapped__", None)


def test_predictions_of_the_users_own_threads_are_served(serving):
    from joblib import Parallel, delayed

    model = fitted(pipe())
    with serving() as seen:
        Parallel(2, backend="threading")(delayed(model.predict)(X[i : i + 10]) for i in range(0, 90, 10))
    assert seen.features() == {"x0": 90, "x1": 90, "x2": 90}

"""Train a small model, attach the profile of its training data, save it.

python train.py model.joblib
"""

from __future__ import annotations

import sys

import joblib
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from otel_mlmon import Profile


def main() -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    X = X.iloc[:, :10]
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    scores = model.predict_proba(X)[:, 1]
    Profile.build(X, model="tumours", version="1", predictions={"score": scores}).attach(model)
    joblib.dump(model, sys.argv[1])


if __name__ == "__main__":
    main()

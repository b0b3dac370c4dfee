"""Ten lines to a monitored model. Start `otel-mlmon processor` first; then see `otel-mlmon status`."""

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from otel_mlmon import Monitor, Profile

rng = np.random.default_rng(0)
data = pd.DataFrame(rng.gamma(2.0, 10.0, size=(30_000, 3)), columns=["income", "age", "balance"])
train, live = data[:20_000], data[20_000:].copy()
model = LogisticRegression().fit(train, train["income"] > train["age"])
live["income"] *= 1.1  # something changes after training

profile = Profile.build(train, model="credit", version="1", predictions=model.predict_proba(train))
monitor = Monitor(profile)
for start in range(0, len(live), 100):
    X = live[start : start + 100]
    with monitor.inference(X) as call:
        y = model.predict_proba(X)
        call.record(y)
monitor.close()

"""A model behind FastAPI, with nothing of otel-mlmon in it.

MODEL=model.joblib opentelemetry-instrument uvicorn app:app
"""

from __future__ import annotations

import os

import joblib
import pandas as pd
from fastapi import FastAPI
from fastapi.responses import JSONResponse

app = FastAPI()
model = joblib.load(os.environ["MODEL"])
if os.environ.get("WARM_UP"):  # as servers do that load the model before they fork
    model.predict_proba(pd.DataFrame([dict.fromkeys(model.feature_names_in_, 1.0)] * 3))


@app.post("/predict")
def predict(rows: list[dict[str, float]]) -> JSONResponse:
    try:
        scores = model.predict_proba(pd.DataFrame(rows))[:, 1]
    except ValueError as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    return JSONResponse({"scores": scores.tolist()})

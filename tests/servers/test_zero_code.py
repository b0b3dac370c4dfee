"""The example application under real web servers, with and without opentelemetry-instrument."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sklearn.datasets import load_breast_cancer

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

ROWS = load_breast_cancer(as_frame=True).data.iloc[:, :10].to_dict("records")
UVICORN = ["uvicorn", "app:app", "--port", "{port}", "--log-level", "warning"]
GUNICORN = [
    "gunicorn",
    "app:app",
    "-w",
    "2",
    "-k",
    "uvicorn_worker.UvicornWorker",
    "--preload",
    "-b",
    "127.0.0.1:{port}",
]
BROKEN = [{"mean radius": 1.0}]


def drive(server) -> list[httpx.Response]:
    """Batches of 1 to 7 rows until all have been sent, eight at once, and one that the model refuses."""
    batches, at = [], 0
    while at < len(ROWS):
        size = 1 + len(batches) % 7
        batches.append(ROWS[at : at + size])
        at += size
    with httpx.Client(base_url=server.url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda rows: client.post("/predict", json=rows), [*batches, BROKEN]))


@pytest.fixture(scope="module")
def plain_answers():
    return {}


@pytest.mark.parametrize(
    ("command", "protocol"),
    [(UVICORN, "grpc"), (UVICORN, "http/protobuf"), (GUNICORN, "grpc")],
    ids=["uvicorn", "uvicorn-http", "gunicorn-preload"],
)
def test_exact_counts_child_spans_and_unchanged_answers(command, protocol, processor, spans, serve, wait):  # noqa: PLR0917
    plain = [(r.status_code, r.json()) for r in drive(serve(command))]
    server = serve(command, processor, spans, protocol, WARM_UP="1")
    observed = [(r.status_code, r.json()) for r in drive(server)]
    assert observed == plain
    assert observed[-1][0] == 422  # the library's own exception came through

    # 3 rows were predicted before the fork, and the refused row was seen (one column there, nine missing).
    expected = len(ROWS) + 3 + 1
    names = list(ROWS[0])
    wait(
        lambda: processor.feature_counts() == dict.fromkeys(names, expected),
        lambda: f"{expected} of each feature; got {processor.feature_counts()}\n{server.log.read_text()[-3000:]}",
    )
    missing = processor.samples("ml_feature_invalid_total")
    assert {labels["ml_feature_name"]: value for labels, value in missing} == dict.fromkeys(names[1:], 1)
    wait(lambda: processor.samples("ml_reference_rows"), "the profile, which the model carries")
    wait(lambda: _predictions(processor) == len(ROWS) + 3, "the predictions")
    wait(lambda: len(_pairs(spans)) >= len(observed), "the spans")
    assert len(_pairs(spans)) == len(observed)
    assert all(parent == "POST /predict" for parent in _pairs(spans))


def _predictions(processor) -> float:
    return sum(value for _, value in processor.samples("ml_prediction_count_total"))


def _pairs(spans) -> list[str]:
    """The name of the request's span above each of ours."""
    named = {span.span_id: span.name for _, span in spans.spans}
    parents = {span.span_id: span.parent_span_id for _, span in spans.spans}
    found = []
    for scope, span in spans.spans:
        if scope == "otel_mlmon" and span.parent_span_id:
            at = span.parent_span_id
            while parents.get(at) in named:
                at = parents[at]
            found.append(named.get(at, "?"))
    return found

"""Ask the application for predictions: all rows of its training data, with one feature larger than it was.

python drive.py [URL]
"""

from __future__ import annotations

import json
import sys
import urllib.request

from sklearn.datasets import load_breast_cancer


def main() -> None:
    url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    X = load_breast_cancer(as_frame=True).data.iloc[:, :10]
    X["mean radius"] *= 1.1
    for start in range(0, len(X), 10):
        body = json.dumps(X.iloc[start : start + 10].to_dict("records")).encode()
        request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=10).read()
    print(f"{len(X)} rows predicted")


if __name__ == "__main__":
    main()

// A model in Node.js that is monitored like any other: docs/other-languages.md says why each thing is as it is.
//
//   otel-mlmon profile show flights.profile.json --boundaries --json > bounds.json
//   npm ci
//   OTEL_SERVICE_NAME=flights-api node model.js bounds.json < rows.jsonl
//
// reads a row a line as JSON and writes a prediction a line. `Monitor` is what to copy; the rest stands for your model.

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { metrics } from "@opentelemetry/api";
import { NodeSDK, metrics as sdk, resources } from "@opentelemetry/sdk-node";

const SECONDS = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01,
  0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

// What is counted of a column: itself, or something derived from it. NaN where it is not of the column's type.
const TRANSFORMS = {
  identity: (value) => value,
  age: (value) => (Date.now() - new Date(value)) / 1000,
  hour: (value) => new Date(value).getUTCHours(),
  length: (value) => (typeof value === "string" ? [...value].length : NaN),
};

// A feature or an output. It has a meter of its own, as a View, which sets the bounds, selects by meter.
class Variable {
  constructor(kind, name, cells, model) {
    const role = name === "class" ? "class" : "category";
    Object.assign(this, { kind, name, cells, meter: `${kind}/${name}` });
    this.transform = TRANSFORMS[cells.transform ?? "identity"];
    this.value = kind === "feature" ? "ml.feature.value" : `ml.prediction.${name}`;
    this.valued = kind === "feature" ? { ...model, "ml.feature.name": name } : model;
    this.counted = kind === "feature" ? this.valued : { ...model, "ml.prediction.signal": name };
    this.label = `ml.${kind}.${role}`;
    this.labels = new Map(Object.entries(cells.labels ?? {}));
  }

  // A gauge, since a histogram drops what is negative; the View makes a histogram of it all the same.
  view() {
    const { EXPLICIT_BUCKET_HISTOGRAM: type } = sdk.AggregationType;
    const options = { boundaries: this.cells.boundaries };
    return { meterName: this.meter, instrumentName: this.value, aggregation: { type, options } };
  }

  start() {
    const meter = metrics.getMeter(this.meter);
    const unit = this.kind === "feature" ? "{value}" : "{prediction}";
    this.seen = meter.createCounter(`ml.${this.kind}.count`, { unit });
    this.invalid = meter.createCounter(`ml.${this.kind}.invalid`, { unit });
    if (!this.cells.boundaries) this.categories = meter.createCounter(this.label, { unit });
    else this.distribution = meter.createGauge(this.value, { unit: this.name === "score" ? "{score}" : "{value}" });
  }

  count(raw) {
    this.seen.add(1, this.counted);
    const value = raw == null ? raw : this.transform(raw);
    const reason = this.reason(raw, value);
    if (reason) this.invalid.add(1, { ...this.counted, "ml.feature.invalid.reason": reason });
    else if (this.distribution) this.distribution.record(value, this.valued);
    else this.categories.add(1, { ...this.valued, [this.label]: this.labels.get(String(value)) ?? this.cells.rest });
  }

  // Why a value is in no cell; undefined where it is in one.
  reason(raw, value) {
    if (raw == null) return "missing";
    if (Number.isNaN(value)) return !Number.isNaN(raw) ? "type" : this.distribution ? "nan" : "missing";
    if (value === Infinity || value === -Infinity) return "inf";
    const types = this.distribution ? ["number"] : ["string", "number", "boolean"];
    return types.includes(typeof value) ? undefined : "type";
  }
}

export class Monitor {
  // `bounds` is what `otel-mlmon profile show --boundaries --json` prints.
  constructor(bounds) {
    this.model = { "ml.model.name": bounds.model, "ml.model.version": bounds.version };
    const counted = { ...this.model, "ml.reference.hash": bounds.hash };
    const make = (kind, every) => Object.entries(every).map(([name, cells]) => new Variable(kind, name, cells, counted));
    this.features = make("feature", bounds.features);
    this.predictions = make("prediction", bounds.predictions);
    const every = [...this.features, ...this.predictions];
    this.sdk = new NodeSDK({
      views: every.filter((variable) => variable.cells.boundaries).map((variable) => variable.view()),
      resourceDetectors: [resources.envDetector, resources.serviceInstanceIdDetector], // the latter tells replicas apart
    });
    this.sdk.start();
    every.forEach((variable) => variable.start());
    const meter = metrics.getMeter("model");
    const info = meter.createObservableGauge("ml.model.info", { unit: "{model}" });
    info.addCallback((result) => result.observe(1, counted));
    const advice = { explicitBucketBoundaries: SECONDS };
    this.duration = meter.createHistogram("ml.inference.duration", { unit: "s", advice });
  }

  // What `predict` says of a row: an object of outputs by role (value, class, score). Its errors pass unchanged.
  infer(row, predict) {
    for (const feature of this.features) feature.count(row[feature.cells.column]);
    const attributes = { ...this.model, "ml.operation.name": "predict" };
    const started = performance.now();
    try {
      const outputs = predict(row);
      for (const prediction of this.predictions) prediction.count(outputs[prediction.name]);
      return outputs;
    } catch (error) {
      attributes["error.type"] = error.name;
      throw error;
    } finally {
      this.duration.record((performance.now() - started) / 1000, attributes);
    }
  }

  close() {
    return this.sdk.shutdown(); // sends what is left
  }
}

const predict = (row) => ({ score: 1 / (1 + Math.exp(-(row.dep_delay ?? NaN) / 15)) });

const monitor = new Monitor(JSON.parse(readFileSync(process.argv[2], "utf8")));
for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(monitor.infer(JSON.parse(line), predict)));
}
await monitor.close();

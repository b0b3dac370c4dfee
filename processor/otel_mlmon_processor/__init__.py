"""The processor: receives OTLP, folds it into windows, measures and decides. See app.py for how the stages fit."""

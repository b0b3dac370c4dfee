"""Instrumentation of frameworks with no code change; one file for each."""

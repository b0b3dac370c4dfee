"""Pure numpy: cells, counts, measures. No I/O, clock, lock or protobuf."""

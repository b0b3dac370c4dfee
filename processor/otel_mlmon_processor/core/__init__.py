"""Pure decisions: numbers in, numbers and words out. No I/O, clock, lock or protobuf."""

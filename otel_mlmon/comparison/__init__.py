"""Two data sets or profiles in, what has changed out: the numerics of the processor, offline."""

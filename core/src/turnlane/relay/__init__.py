"""The data plane: lanes, flows, the scheduler and the pumps between them."""

"""Level-triggered loops: read the whole truth, decide, act one step, look again."""

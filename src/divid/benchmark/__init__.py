"""Tables of many trainings: cells that are trained, judged and put together, each once, however often the work is broken off."""

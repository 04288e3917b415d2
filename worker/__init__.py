"""The GPU process: takes chunks from the queue, samples, encodes, writes shards."""

package protocol

import "sync/atomic"

// Stats count the blocks that were exchanged, and their bytes as they are stored.
type Stats struct {
	BlocksUp, BytesUp     uint64
	BlocksDown, BytesDown uint64 // those that were not here before
}

// counters are Stats that are counted.
type counters struct{ blocksUp, bytesUp, blocksDown, bytesDown atomic.Uint64 }

func (c *counters) up(bytes int) {
	c.blocksUp.Add(1)
	c.bytesUp.Add(uint64(bytes))
}

func (c *counters) down(bytes int) {
	c.blocksDown.Add(1)
	c.bytesDown.Add(uint64(bytes))
}

// Stats returns what was exchanged with all peers so far.
func (r *Replicator) Stats() Stats {
	c := &r.stats
	return Stats{c.blocksUp.Load(), c.bytesUp.Load(), c.blocksDown.Load(), c.bytesDown.Load()}
}

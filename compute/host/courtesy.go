package host

// A courtesy says when a VM gives way to the others: while it uses up its bound.
// It gets what the host has left then, within the bound, and those that want a
// processor for a moment do not wait behind it. One that wants less again, be it
// that it got nothing, is like the others after a while, so that nobody starves.
type courtesy struct {
	on   bool
	calm int // seconds
}

const (
	greedy   = 0.9 // of a bound, over a second
	becalmed = 3   // seconds
)

// observe takes the use over the last second and its bound, in cores, and reports
// whether on has changed. Who is bound to a core or more, or not at all, has paid
// for a processor and never gives way.
func (c *courtesy) observe(used, bound float64) bool {
	was := c.on
	switch {
	case bound <= 0 || bound >= 1:
		*c = courtesy{}
	case used >= greedy*bound:
		*c = courtesy{on: true}
	case c.on:
		if c.calm++; c.calm == becalmed {
			*c = courtesy{}
		}
	}
	return c.on != was
}

package host

import "testing"

func TestCourtesy(t *testing.T) {
	for _, s := range []struct {
		name  string
		bound float64
		used  []float64
		want  string // a letter for each second: whether it gives way
	}{
		{"it uses little", 0.25, []float64{0, 0.1, 0.2, 0.1}, "nnnn"},
		{"it uses all", 0.25, []float64{0.1, 0.25, 0.24, 0.25}, "nyyy"},
		{"then it is calm for three seconds", 0.25, []float64{0.25, 0.1, 0, 0, 0}, "yyynn"},
		{"a burst begins that anew", 0.25, []float64{0.25, 0, 0, 0.25, 0, 0, 0}, "yyyyyyn"},
		{"a whole core", 1, []float64{1, 1}, "nn"},
		{"no bound", 0, []float64{2, 2}, "nn"},
	} {
		var c courtesy
		for i, used := range s.used {
			was := c.on
			if changed := c.observe(used, s.bound); changed != (c.on != was) {
				t.Errorf("%s: second %d: changed is %v", s.name, i, changed)
			}
			if want := s.want[i] == 'y'; c.on != want {
				t.Errorf("%s: second %d: it gives way: %v", s.name, i, c.on)
			}
		}
	}
}

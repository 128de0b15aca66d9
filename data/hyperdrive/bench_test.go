package hyperdrive

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
)

// BenchmarkMirror measures a folder of small files, and one of large ones, into
// a drive on disk and out of it again.
func BenchmarkMirror(b *testing.B) {
	for _, c := range []struct {
		name        string
		files, size int
	}{{"small", 20000, 2000}, {"large", 100, 1 << 20}} {
		from := newDisk(b)
		text := strings.Repeat("0123456789abcdef", c.size/16)
		for i := range c.files {
			from.write(fmt.Sprintf("/%d/%d", i%100, i), fmt.Sprint(i)+text)
		}
		b.Run(c.name+"/in", func(b *testing.B) {
			for b.Loop() {
				d := benchDrive(b)
				_, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
				must(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.files), "µs/file")
		})
		d := benchDrive(b)
		_, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
		must(b, err)
		b.Run(c.name+"/out", func(b *testing.B) {
			for b.Loop() {
				_, err := Mirror(ctx, d, newDisk(b).folder(), MirrorOptions{})
				must(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.files), "µs/file")
		})
		b.Run(c.name+"/again", func(b *testing.B) {
			for b.Loop() {
				_, err := Mirror(ctx, from.folder(), d, MirrorOptions{})
				must(b, err)
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*c.files), "µs/file")
		})
	}
}

func benchDrive(b *testing.B) *Drive {
	s, err := corestore.Open(b.TempDir(), corestore.Options{})
	must(b, err)
	b.Cleanup(func() { s.Close() })
	return newDriveIn(b, s, Options{})
}

package hyperdrive

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/tradle/cloudpal"
)

// TestManyAtOnce writes, reads, lists and reclaims at the same time. Every file
// that is found is whole.
func TestManyAtOnce(t *testing.T) {
	d := newTestDrive(t)
	var writers, others sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		writers.Go(func() {
			for i := range 25 {
				name := fmt.Sprintf("/%d/%d", w, i%5)
				data := fileFor(name, i*4000+w)
				var err error
				switch i % 4 {
				case 0:
					err = d.Put(ctx, name, data, Attr{})
				case 1:
					b := d.Batch()
					_, err = b.ReadFrom(ctx, name, bytes.NewReader(data), Attr{})
					err = errors.Join(err, b.Flush(ctx))
				case 2:
					var out *Writer
					out, err = d.Writer(ctx, name, WriterOptions{Shared: w%2 == 0})
					if err == nil {
						_, err = out.Write(data)
						err = errors.Join(err, out.Close())
					}
				case 3:
					err = d.Delete(ctx, name)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	loop := func(f func() error) {
		others.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := f(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	loop(func() error { return d.Reclaim(ctx, d.Version()) })
	loop(func() error {
		for e, err := range d.List(ctx, "") {
			if err != nil {
				return err
			}
			data, err := d.Get(briefly(t), e.Name)
			if errors.Is(err, cloudpal.NotExist) || errors.Is(err, cloudpal.Timeout) {
				continue // deleted, or replaced and reclaimed, meanwhile
			}
			head, rest, _ := bytes.Cut(data, []byte("\n"))
			if err != nil || string(head) != fmt.Sprintf("%s %d", e.Name, len(rest)) || !bytes.Equal(rest, pattern(len(rest))) {
				return fmt.Errorf("%s has %d bytes beginning with %.20q, %v", e.Name, len(data), data, err)
			}
		}
		return nil
	})
	loop(func() error {
		for _, err := range d.ReadDir(ctx, "/1") {
			if err != nil {
				return err
			}
		}
		return nil
	})
	writers.Wait()
	close(stop)
	others.Wait()
	for e, err := range d.List(ctx, "") {
		must(t, err)
		if _, err := d.Get(briefly(t), e.Name); err != nil {
			t.Errorf("%s: %v", e.Name, err)
		}
	}
}

package center

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// decode reads exactly one JSON value, with no field that v has not.
func decode(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more follows it")
	}
	return nil
}
